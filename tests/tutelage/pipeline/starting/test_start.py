"""`tutelage init` on folders as people have them: a recipe that a run takes, or one line that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tutelage.pipeline.recipes_planned import written
from tutelage.pipeline.operations.starting import start as starting
from tutelage.pipeline.operations.starting.chosen import Wish
from tutelage.pipeline.operations.starting.document import Document, flow
from tutelage.pipeline.operations.starting.start import check_wish
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InfeasibleBudgetError, InputError

from ...command import Done, assert_exit, image_folder, tutelage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace `w`, in which device `box` knows one space at 32 px."""
    folder = tmp_path_factory.mktemp("start")
    written(folder)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


Init = Callable[..., Done]


@pytest.fixture
def init(place: Path, tmp_path: Path) -> Init:
    def call(*words: object, device: str = "box", out: Path = tmp_path / "r.yaml") -> Done:
        arguments = ["init", "--device", device, "--no-timing", "--out", str(out), "-w", str(place / "w")]
        return tutelage(*arguments, *map(str, words))

    return call


def named_folder(root: Path, num: int = 60) -> Path:
    """Pictures as people name them: in colours, unbalanced, several of one patient, a space in every name."""
    rng = np.random.default_rng(0)
    for number in range(num):
        file = root / ("Klasse ä" if number % 4 else "#2: no") / f"Patient {number // 4:02d} view-{number % 4}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(file)
    return root


def test_odd_names_become_a_recipe_that_a_run_takes(init: Init, place: Path, tmp_path: Path) -> None:
    images = named_folder(tmp_path / "my 'odd' images: 1")
    damaged = images / "Klasse ä" / "Patient 90.jpg"
    damaged.write_bytes(b"no picture")
    done = init("--path", images, "--max-latency", "0.5ms", "--max-size", "9MB", "--minutes", "20")
    assert done.returncode == 0, done.stderr
    for words in (
        "found: 61 colour images (folder): #2: no 15, Klasse ä 46",
        "1 pictures cannot be read and are left out",
        "drawn by group, 16 groups by the number after 'patient'",
        "class weights: balanced (the largest class is 3.1 times",
        "ms on box (predicted)",
        "by stated times of a 2-core server",
        "next: tutelage run",
    ):
        assert words in done.stdout
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    data = recipe.data
    assert (data.path, data.channels, data.size, data.skip_bad) == (images, 3, 32, True)
    assert recipe.devices[0].max_latency == "0.5ms"
    assert recipe.search.max_size == "9MB"
    assert recipe.distill.class_weights == "balanced"
    assert recipe.bundle.rows == "front"
    assert recipe.num_winners == 3
    assert not recipe.teachers
    planned = tutelage("run", str(tmp_path / "r.yaml"), "--dry-run", "-w", str(place / "w"))
    assert planned.returncode == 0, planned.stderr
    assert "train supernet" in planned.stdout


def test_a_table_of_labels_and_several_budgets(init: Init, tmp_path: Path) -> None:
    """Multi-label, gray, patients in a column; one student for each budget; as JSON."""
    image_folder(tmp_path, ("pictures",), 40)
    lines = [f"pictures/pictures{n}.png,{'a|b' if n % 5 == 0 else 'b' if n % 2 else 'a'},{n // 2}" for n in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *lines]) + "\n")
    done = init("--path", tmp_path / "labels.csv", "--max-latency", "0.4ms,0.6ms", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["found"]["multi_label"]
    assert facts["found"]["grouped_by"] == "the data set"
    assert facts["latency"]["budget_ms"] == 0.6
    assert 0 < facts["latency"]["within"] <= 1
    assert facts["minutes"] == pytest.approx(sum(facts["seconds"].values()) / 60)
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe == Recipe.model_validate(facts["chosen"])
    assert (recipe.data.dataset, recipe.data.channels, recipe.num_winners) == ("table", 1, 2)


def test_a_new_device_is_measured_when_that_is_asked_for(
    init: Init, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.bench.devices.profiles import read_profile
    from tutelage.pipeline import device

    asked: list[object] = []

    def measured(workspace: Workspace, report: object, request: object) -> object:
        asked.append(request)
        return read_profile(place / "w" / "devices" / "box.yaml")

    monkeypatch.setattr(device, "measure_device", measured)
    words = ("--dataset", "folder", "--path", place / "images", "--size", "32")
    with monkeypatch.context() as patch:  # not even a training step is timed for a device that is none
        patch.setattr(starting, "measure_steps", lambda *_, **__: pytest.fail("timed"))
        arguments = ["init", "--device", "bax", "--out", str(tmp_path / "r.yaml"), "-w", str(place / "w")]
        assert_exit(tutelage(*arguments, *map(str, words[:4])), 2, "(did you mean 'box'?)")
    assert_exit(init(*words, device="new"), 2, "no device 'new': known are box", "--add-device", "--resolution 32")
    assert not asked
    done = init(*words, "--add-device", device="new")
    # What was measured is of another space than the one that 32 px ask for: the same line as a run's.
    assert_exit(done, 2, "has a latency model for ofa_mbv3_w1.0")
    (request,) = asked
    assert (request.name, request.space.name, request.space.resolutions) == ("new", "ofa_mbv3_w0.75_stem1", (32,))  # type: ignore[attr-defined]


def test_a_file_is_kept_unless_it_is_to_be_replaced(init: Init, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("name: mine\n")
    words = ("--path", place / "images")
    assert_exit(init(*words, out=out), 2, "mine.yaml' exists: give --force")
    assert out.read_text() == "name: mine\n"
    assert init(*words, "--force", out=out).returncode == 0
    assert load_recipe(str(out)).name == "images"
    assert_exit(init(*words, out=Path("/proc/r.yaml")), 2, "/proc cannot be written")
    assert_exit(init(*words, out=tmp_path / "absent" / "r.yaml"), 2, "there is no folder")
    assert_exit(init(*words, out=tmp_path / "r.txt"), 2, "name a file that ends in .yaml")


def test_what_cannot_be_begun_with_is_one_line(init: Init, place: Path, tmp_path: Path) -> None:
    images, empty, bad = place / "images", tmp_path / "empty", image_folder(tmp_path / "bad")
    empty.mkdir()
    for file in (bad / "a").iterdir():
        file.write_bytes(b"no picture")
    one = image_folder(tmp_path / "one", ("a",))
    for words, said in (
        (("--path", tmp_path / "absent"), "no data at"),
        (("--path", empty), "is empty"),
        (("--path", one), "holds 1 class folders (a): needs two"),
        (("--path", one / "a" / "a0.png"), "is one picture"),
        (("--path", bad), "12 of 24 pictures cannot be read"),
        ((), "give --path"),
        (("--path", images, "--size", "64"), "knows 32 px"),
        (("--path", images, "--runtime", "openvino"), "runs onnxruntime"),
    ):
        done = init(*words)
        assert_exit(done, 2, said)
        assert not (tmp_path / "r.yaml").exists(), words


def test_images_that_cannot_be_used_are_named_before_a_recipe_or_a_workspace_that_is_in_use(
    init: Init, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("name: mine\n")
    one = image_folder(tmp_path / "one", ("a",))
    with Workspace(place / "w").locked():
        for words, said in ((("--path", tmp_path / "absent"), "no data at"), (("--path", one), "needs two")):
            assert_exit(init(*words, out=out), 2, said)
    assert_exit(init("--path", place / "images", "--dataset", "foldr", out=out), 2, "foldr", "folder")


def test_a_budget_that_nothing_keeps_is_refused_with_the_range(
    init: Init, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:  # in the place of what takes seconds to be sure
        raise InfeasibleBudgetError("no architecture has 0.01 ms")

    monkeypatch.setattr(starting, "open_checked", refuse)
    done = init("--path", place / "images", "--max-latency", "0.01ms")
    assert_exit(
        done, 3, "no architecture has 0.01 ms. Subnets of ofa_mbv3_w1.0 at 32 px take", "ms on box by the means"
    )
    assert not (tmp_path / "r.yaml").exists()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("box", max_latency="0ms"), "0ms"),
        (Wish("box", max_latency="1ms,soon"), "soon"),
        (Wish("box", minutes=0), "--minutes is 0"),
        (Wish("box", side=8), "--size is 8"),
        (Wish("box", max_size="1kg"), "1kg"),
        (Wish("box", runtime="nosuch"), "nosuch"),
    ],
)
def test_a_wish_that_no_data_makes_right_is_refused_before_any_is_read(wish: Wish, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_wish(wish)


def test_the_words_say_how_much_of_the_space_is_within_the_budget(init: Init, place: Path) -> None:
    done = init("--path", place / "images", "--max-latency", "100ms")
    assert "all of them are within 100 ms" in done.stdout
    done = init("--path", place / "images", "--max-latency", "50%", "--force")
    assert "of those drawn at random are within" in done.stdout


def test_values_are_quoted_where_yaml_reads_them_otherwise() -> None:
    from tutelage.records import parsed_yaml

    for value in ("a: b # c", "yes", "1.0", "", "it's", {"a b": [1, "x, y"]}, None, 1.5e-4):
        doc = Document()
        doc.comment("why. " * 60)
        doc.key("key", value)
        assert parsed_yaml(doc.text()) == {"key": value}
        assert "\n" not in flow(value)
