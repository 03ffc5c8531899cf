"""What a run says its rows are of: the data, the device as it was measured, and the settings of one network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.distill.data.dataset import Dataset
from tutelage.distill.evaluation.evaluate import evaluate
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.terminal.provenance import provenance
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.settings import settings_of
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.evaluate import Evaluated
from tutelage.pipeline.stages.gains import gains
from tutelage.pipeline.stages.publish import command_of, file_rows
from tutelage.pipeline.workspace import Workspace
from tutelage.records import Arch, Artifact, DeviceProfile, Measurement, Pruned, Row, Student

NUM = 60
LABELS = np.arange(NUM) % 2
GROUPS = np.repeat(np.arange(20), 3).astype(str)
RECIPE: dict[str, Any] = {
    "name": "folded",
    "data": {"size": 32, "fold": 1},
    "teachers": [{"name": "big"}, {"name": "vit"}],
    "students": [{"name": "small"}, {"name": "tiny", "title": "tiny-half", "options": {"width": 0.5}}],
}
SMALL = Student(
    model="small", role="student", teacher="big", weights=Artifact(kind="w", path="w", sha256="w", size_bytes=1)
)
WIDE = Student(model="wide", role="baseline", library_name="wide")
HALVED = Pruned(parent="wide", importance="magnitude", ratio=0.5, shapes={})
PROFILE = DeviceProfile(name="host-ort", runtime="onnxruntime", runtime_version="1.0", cpu_model="CPU of the profile")


def filed(
    folder: Path, measured: bool = True, *, version: str = "1.31.1", weights: str = "w", slope: float = 0.6, **seen: str
) -> Row:
    """File the row of one student in a workspace's leaderboard, as a run does, and give it.

    slope: how far its probabilities of the two classes are apart.
    """
    data = Dataset(
        name="folder", images=np.zeros((NUM, 32, 32, 1), np.uint8), labels=LABELS, class_names=("healthy", "ill"),
        groups=GROUPS, splits={"test": np.arange(NUM)}, manifest="0123456789abcdef",
    )  # fmt: skip
    ctx = Context(Recipe.model_validate(RECIPE), Workspace(folder), data, lambda *_: None, 1)
    second = 0.2 + slope * LABELS + 0.1 * np.sin(np.arange(NUM))
    probs = np.stack([1 - second, second], 1).astype(np.float32)
    figures = evaluate(probs, LABELS, GROUPS, threshold=0.5, bootstrap=100)
    said = {"start": "fresh", "epochs": 9, "notes": ("validation still rising",)}
    own = Artifact(kind="w", path="w", sha256=weights, size_bytes=1)
    student = SMALL.model_copy(update={"weights": own, **said})
    file = Artifact(kind="onnx", path="m.onnx", sha256="f", size_bytes=1)
    one = Evaluated(Variant(student, "fp32", "onnxruntime", file), figures, 0.5, probs, LABELS, figures, "m.npz")
    measurement = Measurement(
        device="host-ort", runtime="onnxruntime", runtime_version=version, threads=1, batch=1, precision="fp32",
        effective_precision="fp32", samples_ms=(1.0, 2.0), **seen,
    )  # fmt: skip
    found = {"host-ort": {"f": measurement}} if measured else {}
    store = Store(ctx.workspace.store)
    state = "complete" if measured else "evaluated"
    (row,) = file_rows(ctx, store, [Device(PROFILE, folder, None)], [one], found, gains(ctx, [one]), state=state)
    return row


def facts(row: Row) -> tuple[object, ...]:
    return (row.processor, row.runtime_version, row.precision, row.power_state)


def test_a_row_says_its_data_and_the_device_as_it_was_measured(tmp_path: Path) -> None:
    early = filed(tmp_path, measured=False)
    assert (early.manifest, early.split, early.fold, early.image_size) == ("0123456789abcdef", "test", 1, 32)
    assert facts(early) == ("CPU of the profile", "1.0", "fp32", "")
    assert (early.details["start"], early.details["epochs"]) == ("fresh", 9)
    assert early.details["notes"] == ["validation still rising"]
    row = filed(tmp_path, processor="Cortex-A76", power_state="governor powersave")
    assert facts(row) == ("Cortex-A76", "1.31.1", "fp32", "governor powersave")
    assert row.key == early.key, "the row that goes on became another when it was measured"
    (back,) = Store(tmp_path / "leaderboard.db").rows()
    assert (back.key, facts(back)) == (row.key, facts(row))
    # A measurement of before they were part of one says neither.
    assert facts(filed(tmp_path / "old")) == ("CPU of the profile", "1.31.1", "fp32", "")


def test_a_row_that_is_no_better_than_guessing_has_a_note(tmp_path: Path) -> None:
    row = filed(tmp_path, slope=0.0)
    rising, guessing = row.details["notes"]
    assert (rising, guessing[:8]) == ("validation still rising", "test AUC")
    said = provenance(Store(tmp_path / "leaderboard.db"), row)
    assert said["notes"] == [rising, guessing], "the row's own page shows only what was known when it was trained"


def test_a_run_on_another_host_stands_beside_and_one_on_this_host_replaces(tmp_path: Path) -> None:
    first = filed(tmp_path, processor="here")
    other = filed(tmp_path, processor="there", weights="v")
    store = Store(tmp_path / "leaderboard.db")
    assert [row.key for row in store.rows()] == [first.key, other.key]
    again = filed(tmp_path, processor="here", weights="u")
    assert [row.key for row in store.rows()] == [other.key, again.key]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "renamed"}, {"title": "T", "about": "a", "expect": "e", "command": "c"}, {"seed": 4}, {"seeds": 5},
        {"devices": [{"name": "another"}]}, {"baselines": ["mobilenetv2_100"]}, {"measure": {"samples": 500}},
        {"baselines": [{"name": "small", "weights": "imagenet"}]},
        {"explain": {"images": 3}}, {"search": {"evaluations": 7}}, {"data": {"size": 32, "fold": 1, "workers": 7}},
        {"students": [{"name": "small"}, {"name": "another"}]}, {"quantize": {"method": "minmax"}},
        {"teachers": [{"name": "big"}, {"name": "vit", "epochs": 3}]}, {"supernet": {"epochs": 3}},
        {"distill": {"temperature": None, "epochs": 10}},  # said, and as it is by default
    ],
)  # fmt: skip
def test_what_a_network_is_no_result_of_is_no_setting_of_it(changes: dict[str, Any]) -> None:
    before, after = (Recipe.model_validate({**RECIPE, **more}) for more in ({}, changes))
    assert settings_of(after, SMALL, "fp32") == settings_of(before, SMALL, "fp32")


def test_a_setting_that_a_file_is_no_result_of_adds_no_row_beside_it() -> None:
    """The rate of QAT where nothing is trained with it, the soft loss of a control, the mode of the teachers."""
    control = SMALL.model_copy(update={"teacher": ""})
    before = Recipe.model_validate(RECIPE)
    for student, scheme, changes in (
        (SMALL, "int8-ptq", {"quantize": {"qat_lr": 2e-5, "qat_epochs": 1}}),
        (control, "int8-ptq", {"distill": {"temperature": 7.0, "alpha": 0.1}}),
        (SMALL, "fp32", {"distill": {"teacher_mode": "each"}}),
    ):
        after = Recipe.model_validate({**RECIPE, **changes})
        assert settings_of(after, student, scheme) == settings_of(before, student, scheme)
    after = Recipe.model_validate({**RECIPE, "quantize": {"qat_lr": 2e-5, "qat_epochs": 1}})
    assert settings_of(after, SMALL, "int8-qat") != settings_of(before, SMALL, "int8-qat")
    after = Recipe.model_validate({**RECIPE, "distill": {"temperature": 7.0}})
    assert settings_of(after, SMALL, "fp32") != settings_of(before, SMALL, "fp32")


@pytest.mark.parametrize(
    ("changes", "student", "scheme"),
    [
        ({"data": {"size": 32, "fold": 1, "augment": "flip"}}, SMALL, "fp32"),
        ({"teachers": [{"name": "big", "epochs": 3}]}, SMALL, "fp32"),
        ({"students": [{"name": "small", "options": {"drop_rate": 0.5}}]}, SMALL, "fp32"),
        ({"distill": {"epochs": 3}}, SMALL, "fp32"),
        ({"quantize": {"method": "minmax"}}, SMALL, "int8-ptq"),
        (
            {"teachers": [{"name": "big", "lr": 0.5}]},
            SMALL.model_copy(update={"model": "big", "role": "teacher"}),
            "fp32",
        ),
        ({"baselines": [{"name": "wide", "weights": "imagenet"}]}, WIDE, "fp32"),
        (
            {"baselines": [{"name": "wide", "weights": "imagenet"}]},
            WIDE.model_copy(update={"model": "wide-pruned50", "role": "student", "pruned": HALVED}),
            "fp32",
        ),
        (
            {"students": [{"name": "small", "options": {"drop_rate": 0.5}}]},
            SMALL.model_copy(
                update={"model": "small-pruned50", "pruned": HALVED.model_copy(update={"parent": "small"})}
            ),
            "fp32",
        ),
        (
            {"students": [{"name": "tiny", "title": "tiny-half"}]},
            SMALL.model_copy(update={"model": "tiny-half"}),
            "fp32",
        ),
    ],
)
def test_what_a_network_is_a_result_of_is_a_setting_of_it(
    changes: dict[str, Any], student: Student, scheme: str
) -> None:
    before, after = (Recipe.model_validate({**RECIPE, **more}) for more in ({}, changes))
    assert settings_of(after, student, scheme) != settings_of(before, student, scheme)


def test_a_searched_student_is_a_result_of_its_supernet() -> None:
    arch = Arch(space="ofa_mbv3_w1.0", ks=[3] * 20, e=[3] * 20, d=[2] * 5, r=32)
    student = SMALL.model_copy(update={"arch": arch, "teacher": ""})
    bare = {**RECIPE, "students": [], "supernet": {"teachers": ["vit"]}}
    before = Recipe.model_validate(bare)
    for changes in ({"supernet": {"teachers": ["vit"], "epochs": 3}}, {"teachers": [{"name": "vit", "epochs": 3}]}):
        assert settings_of(Recipe.model_validate({**bare, **changes}), student, "fp32") != settings_of(
            before, student, "fp32"
        )


ARCH = Arch(space="ofa_mbv3_w1.0", ks=[3] * 20, e=[3] * 20, d=[2] * 5, r=32)
LARGEST = Student(model="ofa_mbv3_w1.0", role="teacher", arch=ARCH, start="supernet", epochs=0)
CUT = Student(model="a-pruned50", role="student", arch=ARCH, start="pruned", epochs=10)


@pytest.mark.parametrize(
    ("sections", "student", "is_result"),
    [
        ({"students": []}, CUT.model_copy(update={"pruned": HALVED}), True),  # of a winner
        ({"students": [{"name": "wide"}], "supernet": {}}, CUT.model_copy(update={"pruned": HALVED}), True),
        ({"students": [{"name": "wide", "start": "fresh"}]}, CUT.model_copy(update={"pruned": HALVED}), False),
        ({"students": [{"name": "wide", "weights": "imagenet"}]}, CUT.model_copy(update={"pruned": HALVED}), False),
        ({}, SMALL.model_copy(update={"start": "fresh", "teacher": "ofa_mbv3_w1.0"}), True),
        ({}, LARGEST, True),
        ({}, SMALL.model_copy(update={"start": "fresh"}), False),
    ],
)
def test_pruned_students_and_the_largest_subnet_are_results_of_their_supernet(
    sections: dict[str, Any], student: Student, is_result: bool
) -> None:
    first, second = (Recipe.model_validate({**RECIPE, **sections, "supernet": {"epochs": epochs}}) for epochs in (3, 4))
    assert (settings_of(first, student, "fp32") != settings_of(second, student, "fp32")) is is_result


@pytest.mark.parametrize(
    ("student", "is_result"),
    [
        (LARGEST, True),
        (SMALL.model_copy(update={"start": "fresh", "teacher": "ofa_mbv3_w1.0"}), True),
        (SMALL.model_copy(update={"start": "supernet", "teacher": "vit"}), False),
    ],
)
def test_the_largest_subnet_and_what_it_distils_are_results_of_its_calibration(
    student: Student, is_result: bool
) -> None:
    first, second = (
        Recipe.model_validate({**RECIPE, "search": {"calibration_batches": batches}}) for batches in (4, 2)
    )
    assert (settings_of(first, student, "fp32") != settings_of(second, student, "fp32")) is is_result


def test_epochs_of_its_own_are_the_same_as_those_of_the_recipe() -> None:
    """Ten, as by default, of a student that has its own, and of all in another recipe."""
    own = SMALL.model_copy(update={"start": "fresh", "epochs": 10})
    shorter, usual = (Recipe.model_validate({**RECIPE, "distill": {"epochs": epochs}}) for epochs in (3, 10))
    assert settings_of(shorter, own, "fp32") == settings_of(usual, own, "fp32")


def test_the_command_of_a_row_is_one_that_finds_the_recipe():
    own = Recipe.model_validate(RECIPE)
    assert command_of(own) == f"tutelage run FILE, the recipe file that is named {own.name}"
    assert command_of(own.model_copy(update={"name": "demo"})) == "tutelage run demo"
    assert command_of(own.model_copy(update={"command": "tutelage run demo --seed 1"})) == "tutelage run demo --seed 1"
