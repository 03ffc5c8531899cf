"""What `tutelage init` chooses of what it finds, each rule alone."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pipeline.operations.starting import choices, pretrained, timing
from tutelage.pipeline.operations.starting.choices import Memory, Work
from tutelage.pipeline.operations.starting.findings import Findings, guess_group, look
from tutelage.pipeline.operations.starting.start import about, about_bytes
from tutelage.pipeline.operations.starting.timing import STATED, STATED_SIDE, measure_steps
from tutelage.quantities import size_in_bytes
from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES

from ...command import image_folder

FOUND = Findings("folder", None, {}, 3000, {"a": 1500, "b": 1500}, False, {}, 3000, "", 256, False)


def side_of(found: Findings = FOUND, asked: int | None = None, covered: Any = (), minutes: float = 600.0) -> int:
    return choices.choose_side(found, asked, covered, STATED, STATED_SIDE, minutes).value


def test_the_image_size_is_what_the_pictures_have_and_the_minutes_allow() -> None:
    assert side_of() == 224
    assert side_of(replace(FOUND, side=100)) == 96
    assert side_of(replace(FOUND, side=28)) == 32  # not smaller than the smallest
    assert side_of(replace(FOUND, side=90)) == 96  # a little enlarged
    by_minutes = [side_of(minutes=minutes) for minutes in (1, 5, 15, 60, 600)]
    assert by_minutes == sorted(by_minutes)
    assert by_minutes[0] < by_minutes[-1]
    assert side_of(covered=(48, 64)) == 64
    assert side_of(replace(FOUND, side=28), covered=(64, 96)) == 64
    assert side_of(asked=80, minutes=1) == 80


def test_the_space_goes_by_size_images_bytes_and_budget_and_is_one_that_is_there() -> None:
    def space(num: int, side: int, covered: Any = (), size: str | None = None, ms: float | None = None) -> str:
        found = replace(FOUND, num_images=num)
        memory = Memory(None if size is None else size_in_bytes(size))
        return choices.choose_space(found, side, covered, memory, ms).value

    assert space(3000, 32) == "ofa_mbv3_w0.75_stem1"
    assert space(20_000, 64) == "ofa_mbv3_w1.0"
    assert space(100_000, 128) == "ofa_mbv3_w1.2"
    assert space(100_000, 128, size="6MB") == "ofa_mbv3_w0.75"
    assert space(3000, 32, size="2MB") == "mbconv_small_w1.0_stem1"
    assert space(100_000, 128, size="2MB") == "mbconv_small_w1.0"
    assert space(3000, 64, size="2MB", covered=("ofa_mbv3_w0.75", "mbconv_small_w1.0")) == "mbconv_small_w1.0"
    assert space(3000, 64, size="2kB", covered=("ofa_mbv3_w0.75", "mbconv_small_w1.0")) == "ofa_mbv3_w0.75"
    # The smallest of OFA's is taken to need .41 ms at .75 times the widths and .5 at 1.0, at 224 px 2.8 and 3.7.
    for ms, width in ((0.3, ""), (0.45, "0.75"), (0.6, "1.0")):
        assert space(20_000, 32, ms=ms) == (f"ofa_mbv3_w{width}_stem1" if width else "mbconv_small_w1.0_stem1")
    for ms, width in ((2.0, ""), (3.3, "0.75"), (5.0, "1.0")):
        assert space(20_000, 224, ms=ms) == (f"ofa_mbv3_w{width}" if width else "mbconv_small_w1.0")
    assert space(20_000, 64, ms=0.1, covered=("ofa_proxyless_w1.3",)) == "ofa_proxyless_w1.3"
    for side in choices.SIDES:
        for num in (100, 10_000, 100_000):
            assert {space(num, side), space(num, side, ms=0.1)} <= set(SPACES)


def test_a_microcontroller_gets_a_space_and_a_size_that_it_holds() -> None:
    board = Memory(1_000_000, 320_000, int8=True, said=("the memories of board",))
    asked = choices.Choice(224, "as the pictures")
    side = choices.within_ram(asked, FOUND, board)
    assert side.value == 192
    assert side.why == "as the pictures; at 224 px no network is within the memories of board"
    chosen = choices.choose_space(FOUND, side.value, (), board, None)
    assert (chosen.value, chosen.why) == (
        "mbconv_micro_w0.25", "a quarter of MobileNetV2's widths, for the memories of board",
    )  # fmt: skip
    assert choices.within_ram(asked, FOUND, Memory(ram=10**9)) is asked
    assert choices.within_ram(asked, FOUND, Memory(ram=1)) is asked  # which is refused with the nearest bound
    assert choices.choose_space(FOUND, 32, (), board, None).value == "mbconv_small_w1.0_stem1"
    assert choices.choose_space(FOUND, 32, (), Memory(2e6, int8=True), None).value == "ofa_mbv3_w0.75_stem1"


def test_classes_are_weighted_where_one_is_rare() -> None:
    def weights(multi_label: bool = False, **counts: int) -> str:
        found = replace(FOUND, class_counts=counts, num_images=100 if multi_label else sum(counts.values()))
        return choices.choose_weighting(replace(found, multi_label=multi_label)).value

    assert weights(a=50, b=50) == "none"
    assert weights(a=90, b=10) == "balanced"
    assert weights(a=50, b=50, multi_label=True) == "none"
    assert weights(a=50, b=5, multi_label=True) == "balanced"  # 95 images without the label b
    assert weights(a=50, b=95, multi_label=True) == "balanced"


@given(
    num=st.integers(60, 200_000), minutes=st.floats(5, 2000), winners=st.integers(1, 4), teacher=st.booleans(),
    pace=st.floats(0.01, 10), seeds=st.sampled_from((1, 3)), fresh=st.booleans(),
)  # fmt: skip
def test_a_run_exceeds_its_minutes_by_no_more_than_one_epoch_of_each_takes(
    num: int, minutes: float, winners: int, teacher: bool, pace: float, seeds: int, fresh: bool
) -> None:
    times = replace(
        STATED, **{name: getattr(STATED, name) * pace for name in ("supernet", "score", "student", "teacher")}
    )
    work = Work(num, max(10, num // 5), winners, seeds, teacher, fresh)
    epochs = choices.choose_epochs(times, work, minutes)
    seconds = choices.run_seconds(epochs, times, work)
    least = replace(epochs, supernet=1, student=1, teacher=int(teacher), evaluations=choices.FEWEST_EVALUATIONS)
    floor = sum(choices.run_seconds(least, times, work).values())
    assert sum(seconds.values()) <= minutes * 60 + floor
    assert min(epochs.supernet, epochs.student, choices.MAX_EPOCHS - epochs.supernet + 1) >= 1


def test_more_minutes_train_no_shorter_and_enough_of_them_as_long_as_the_images_ask_for() -> None:
    work = Work(2000, 300, 3, 1, False)
    short, long = (choices.choose_epochs(STATED, work, minutes) for minutes in (5.0, 500.0))
    assert short.supernet < long.supernet == choices.SUPERNET_IMAGES // 2000
    assert "cut to 5 min" in short.why
    assert "cut to" not in long.why


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("num", [300, 1306, 5000, 20_000])
def test_the_minutes_that_a_cut_names_train_what_the_images_ask_for(num: int, teacher: bool) -> None:
    work = Work(num, num // 5, 3, 1, teacher)
    short = choices.choose_epochs(STATED, work, 4.0)
    whole, minutes = re.findall(r"from (\d+ and \d+) epochs.* --minutes (\d+) ", short.why)[0]
    long = choices.choose_epochs(STATED, work, float(minutes))
    assert f"{long.supernet} and {long.student}" == whole
    assert "cut to" not in long.why


def test_a_baseline_is_trained_like_a_student_with_each_seed_and_by_the_teacher() -> None:
    epochs = choices.Epochs(supernet=4, student=2, teacher=3, evaluations=16, why="")
    one, each = (Work(1000, 200, 3, seeds, teacher) for seeds, teacher in ((1, False), (3, True)))
    seconds = [choices.run_seconds(epochs, STATED, work)["baseline"] for work in (one, each)]
    assert seconds[0] == pytest.approx(6 * STATED.student * 1000)
    assert seconds[1] == pytest.approx(6 * seconds[0])
    assert (one.networks, each.networks) == (4, 25)
    pretrained_one = replace(one, fresh_baseline=False)
    assert choices.run_seconds(epochs, STATED, pretrained_one)["baseline"] == pytest.approx(seconds[0] / 3)


def test_a_teacher_is_pretrained_or_of_many_images_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    here: set[str] = set()
    monkeypatch.setattr(pretrained, "has_network_weights", lambda name, channels, here_=False, **_: name in here)

    def teacher(side: int = 64, num: int = 3000, minutes: float = 30.0) -> tuple[str, str]:
        return choices.choose_teacher(FOUND, side, 1, num, minutes).value

    assert teacher() == ("", "")
    assert teacher(num=20_000, minutes=120) == (pretrained.SCRATCH, "")
    here |= {"resnet50", "resnet18"}
    assert teacher() == ("resnet50", "imagenet")
    assert teacher(side=32) == ("", "")


def test_the_words_of_a_split_say_whether_patients_are_kept_apart() -> None:
    assert "drawn by image" in choices.choose_split(FOUND, 300)
    grouped = replace(FOUND, num_groups=700, grouped_by="the data set")
    assert "none stands in two splits" in choices.choose_split(grouped, 300)
    own = replace(FOUND, splits={"train": 2000, "test": 1000})
    assert "own splits; val drawn from train" in choices.choose_split(own, 1000)
    assert "data.fold=0" in choices.choose_split(FOUND, 50)
    assert "data.fold" not in choices.choose_split(replace(own, splits={"train": 9, "test": 9}), 50)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([f"a/patient{i // 4:03d}_{i}.png" for i in range(80)], 20),
        ([f"a/Left view, Patient {i // 2} ({i}).png" for i in range(80)], 40),
        ([f"a/person{i // 3}_bacteria_{i}.jpeg" for i in range(60)] + [f"b/IM-{i:04d}.jpeg" for i in range(20)], 40),
        ([f"a/{1000 + i // 4}_{i % 4}.png" for i in range(80)], 20),
        ([f"a/IMG_{i:04d}.png" for i in range(80)], None),  # a camera's numbers
        ([f"a/normal-{i}.png" for i in range(80)], None),  # a class's
        ([f"a/{i}.png" for i in range(80)], None),
        ([f"{c}/{i}.png" for c in "ab" for i in range(80)], None),  # the same names in each class folder
        ([f"{c}/img_{i:03d}.png" for c in "abc" for i in range(80)], None),
        ([f"{c}/p{i:02d}_{c}.png" for c in "ab" for i in range(40)], 40),  # a patient in two classes
        ([f"a/2021_{i}.png" for i in range(80)], None),  # one year
        ([f"a/patient{i}.png" for i in range(80)], None),  # one picture each
        ([f"a/patient{i // 2}_{i}.png" for i in range(8)], None),  # too few to split
    ],
)
def test_patients_are_seen_in_file_names(names: list[str], groups: int | None) -> None:
    from tutelage.distill.data.sets.folders import group_rule

    found = guess_group(names)
    if groups is None:
        assert found is None
        return
    assert found is not None
    _, pattern, given = found
    assert len(set(given)) == groups
    rule = group_rule(pattern)  # as a run reads the option
    assert [rule(name) for name in names] == list(given)


@pytest.mark.parametrize(("channels", "teacher", "multi_label"), [(1, "resnet10t", False), (3, "", True)])
def test_steps_are_timed_in_seconds_an_image(
    channels: int, teacher: str, multi_label: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single-label and multi-label: what is timed is what trains."""
    monkeypatch.setattr(timing, "_REPEATS", 1)
    space = SPACES["mbconv_small_w1.0"]
    times = measure_steps(space, 32, channels, 3, 2, teacher=teacher, multi_label=multi_label)
    assert times.measured
    assert min(times.supernet, times.score, times.student, times.teacher) > 0
    assert times.at(32, 64).supernet == pytest.approx(4 * times.supernet)


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.01, "about 10 s"),
        (0.2, "about 10 s"),
        (1.9, "about 110 s"),
        (2.1, "about 2 min"),
        (7.4, "about 7 min"),
        (37.0, "about 35 min"),
        (130.0, "about 2.25 h"),
    ],
)
def test_minutes_are_rounded_as_they_are_known(minutes: float, words: str) -> None:
    assert about(minutes) == words


def test_bytes_are_rounded_up() -> None:
    assert about_bytes(1) == "about 10 MB"
    assert about_bytes(1_240_000_000) == "about 1.2 GB"


def test_the_columns_of_a_table_are_found_by_what_they_hold(tmp_path: Path) -> None:
    """Files by the files that are there, classes and patients by usual headers; a study is not taken for a patient."""
    image_folder(tmp_path, ("pictures",), 24)
    lines = [f"{n},pictures{n}.png,{'ab'[n % 2]},P{n // 4},S{n // 2},{40 + n // 4}" for n in range(24)]
    header = "nr,Image File,Diagnosis,Patient ID,Study,Patient Age"
    table = tmp_path / "pictures" / "labels.csv"
    table.write_text("\n".join([header, *lines]))
    for dataset in (None, "table"):
        found = look(table, dataset)
        assert found.options == {"path_column": "Image File", "label_column": "Diagnosis", "group_column": "Patient ID"}
        assert (found.num_groups, found.grouped_by) == (6, "column Patient ID")
        assert found.class_counts == {"a": 12, "b": 12}
        assert not [note for note in found.notes if "is not read" in note]
    # Only the classes are left; two columns of ids of studies: neither is taken.
    table.write_text("\n".join(["nr,file,what,study,series,age", *lines]))
    found = look(table, None)
    assert found.options == {"path_column": "file", "label_column": "what"}
    assert found.grouped_by == ""
    # Two columns could be the classes: neither is taken, and the error names the option.
    table.write_text("\n".join(["nr,file,dx,target,series,age", *lines]))
    with pytest.raises(InputError, match=r"has no column 'label'; it has nr, file, dx, target.*option label_column"):
        look(table, None)
    with pytest.raises(InputError, match=r"labels\.csv lies there: if it lists the pictures, give"):
        look(table.parent, None)
    header = "path,label,group"
    table.write_text("\n".join([header, *(",".join(line.split(",")[1:4]) for line in lines)]))
    assert (look(table, None).options, look(table, None).num_groups) == ({}, 6)
