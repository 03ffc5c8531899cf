"""Figures under corruptions of the test images: of a real run, by a second way, and on a front of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from tutelage.corruptions import CORRUPTIONS, comparable
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.evaluation.corrupt import corrupt
from tutelage.distill.evaluation.shift_sets import find_set
from tutelage.leaderboard.page.data import embedded
from tutelage.leaderboard.store import Store
from tutelage.pipeline.context import shift_requests
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError

from ..command import assert_exit, image_folder, tutelage

RECIPE: dict[str, Any] = {
    "name": "shifted",
    "data": {"dataset": "phantom", "size": 32, "limit": 120, "augment_variants": 1},
    "students": [{"name": "mobilenetv3_small_050"}, {"name": "resnet10t"}],
    "devices": [{"name": "my-ort", "runtime": "onnxruntime"}],
    "distill": {"epochs": 2, "batch_size": 32},
    "quantize": {"method": "minmax", "calibration_images": 8},
    "bundle": {"rows": "none"},
    "measure": {"bootstrap": 100, "tolerance": 0.99, "corruptions": "all"},
    "seeds": 2,
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shifted")
    (folder / "shifted.yaml").write_text(yaml.safe_dump(RECIPE))
    done = tutelage("run", str(folder / "shifted.yaml"), "--workspace", str(folder / "own"))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "own"


@pytest.mark.slow
def test_rows_have_the_accuracy_under_each_corruption_and_the_mean(workspace: Path) -> None:
    rows = Store(workspace / "leaderboard.db", read_only=True).rows("role=student")
    data = load_dataset("phantom", size=32, limit=120)
    places = data.indices("test")
    pixels, labels = data.images[places], data.labels[places]
    assert {row.scheme for row in rows} > {"fp32"}
    for row in rows:
        session = onnxruntime.InferenceSession(workspace / row.details["how"]["file"]["path"])
        (name,) = [one.name for one in session.get_inputs()]
        known = {}
        for kind in CORRUPTIONS:
            right, areas = [], []
            for severity in (1, 3, 5):
                changed = corrupt(pixels, kind, severity, np.arange(len(places))) / np.float32(255)
                seen = ((changed - np.float32(0.5)) / np.float32(0.25)).transpose(0, 3, 1, 2)
                each = [session.run(None, {name: np.ascontiguousarray(one[None])})[0] for one in seen]
                logits = np.concatenate(each)
                powers = np.exp(logits - logits.max(1, keepdims=True))
                right.append(float((powers.argmax(1) == labels).mean()))
                areas.append(roc_auc_score(labels, powers / powers.sum(1, keepdims=True), multi_class="ovr"))
            known[kind] = sum(right) / 3
            assert row.details["shift"][kind]["accuracy"] == pytest.approx(known[kind])
            assert row.details["shift"][kind]["auc"] == pytest.approx(sum(areas) / 3, abs=1e-4)
        assert row.details["shift"]["accuracy"] == pytest.approx(sum(known.values()) / 10)
        assert row.details["shift"]["severities"] == [1, 3, 5]


@pytest.mark.slow
def test_a_front_is_drawn_on_the_corrupted_figure(workspace: Path) -> None:
    store = Store(workspace / "leaderboard.db", read_only=True)
    names = ("model", "shift_accuracy", "shift_jpeg", "latency_p50_ms")
    found = store.columns("shift_accuracy>=0", names)
    assert len(found["model"]) == len(store.rows())
    assert None not in found["shift_jpeg"]
    done = tutelage("leaderboard", "show", "--front", "latency_p50_ms,shift_accuracy", "--workspace", str(workspace))
    assert done.returncode == 0, done.stderr
    assert "*" in done.stdout
    assert "sure" not in done.stdout.replace("measure", "")  # these figures have no interval


@pytest.mark.slow
def test_the_first_seed_alone_is_evaluated_under_corruptions(workspace: Path) -> None:
    found: dict[str, list[bool]] = {}
    for file in workspace.glob("artifacts/*/done.json"):
        title = str(json.loads(file.with_name("inputs.json").read_text())["title"])
        if title.startswith("evaluate "):
            found.setdefault(title, []).append("shift" in json.loads(file.read_text())["result"])
    assert found
    assert [title for title, each in found.items() if sorted(each) != [False, True]] == []


def test_a_column_means_the_same_in_every_row() -> None:
    figures = {"accuracy": 0.5, "auc": 0.7}
    each = {name: dict(figures) for name in CORRUPTIONS}
    assert comparable({**figures, "severities": [5, 3, 1], **each}) == {**figures, "severities": [5, 3, 1], **each}
    assert comparable({**figures, "severities": [1, 3, 5], "jpeg": figures}) == {
        "severities": [1, 3, 5], "jpeg": figures, "own": figures,
    }  # fmt: skip
    assert comparable({**figures, "severities": [1], **each}) == {"severities": [1], "own": {**figures, **each}}


def test_nothing_is_corrupted_unless_it_is_asked_for_and_the_recipe_is_as_before() -> None:
    plain = Recipe.model_validate({**RECIPE, "measure": {}})
    assert {"corruptions", "severities"} & set(plain.model_dump(mode="json")["measure"]) == set()
    every = Recipe.model_validate({**RECIPE, "measure": {"corruptions": ["all"]}})
    assert Recipe.model_validate(every.model_dump(mode="json")) == every
    assert len(every.measure.corruptions) == 10
    one = Recipe.model_validate({**RECIPE, "measure": {"corruptions": "jpeg", "severities": 5}})
    assert (one.measure.corruptions, one.measure.severities) == (("jpeg",), (5,))


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ({"corruptions": ["fog"]}, "no corruption 'fog': choose among gaussian_noise"),
        ({"corruptions": ["jpeg"], "severities": [6]}, "severities"),
        ({"corruptions": ["jpeg"], "severities": []}, "each once"),
        ({"severities": [1]}, "no effect without corruptions"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(measure: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**RECIPE, "measure": measure}))
    with pytest.raises(InputError, match=said):
        load_recipe(str(tmp_path / "r.yaml"))


# A further test set of the user's: three classes of pictures that are read at another path.
ELSEWHERE: dict[str, Any] = {
    **RECIPE,
    "name": "elsewhere",
    "students": [{"name": "mobilenetv3_small_050"}],
    "distill": {"epochs": 1, "batch_size": 16},
    "seeds": 1,
}


def pictures(folder: Path, num: int, seed: int) -> Path:
    """Write pictures of three classes that differ in brightness, of the size at which they are read."""
    rng = np.random.default_rng(seed)
    for number in range(num):
        file = folder / "abc"[number % 3] / f"{seed}-{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 100 + 70 * (number % 3), (32, 32), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    data = {"dataset": "folder", "path": str(pictures(folder / "own", 72, 0)), "size": 32, "augment_variants": 1}
    measure = {"bootstrap": 100, "tolerance": 0.99, "shift_sets": {"hospital-b": str(pictures(folder / "b", 30, 1))}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**ELSEWHERE, "data": data, "measure": measure}))
    done = tutelage("run", str(folder / "recipe.yaml"), "--workspace", str(folder / "w"))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_rows_have_figures_on_a_named_test_set(elsewhere: Path) -> None:
    store = Store(elsewhere / "w" / "leaderboard.db", read_only=True)
    files = sorted((elsewhere / "b").glob("*/*.png"))
    truth = np.array(["abc".index(file.parent.name) for file in files])
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])[:, None, None] / np.float32(255)
    rows = store.rows("role=student")
    assert len(rows) > 1
    for row in rows:
        session = onnxruntime.InferenceSession(elsewhere / "w" / row.details["how"]["file"]["path"])
        (name,) = [one.name for one in session.get_inputs()]
        logits = np.concatenate(
            [session.run(None, {name: (one - np.float32(0.5)) / np.float32(0.25)})[0] for one in pixels]
        )
        found = row.details["shift"]["sets"]["hospital-b"]
        assert found["num_images"] == 30
        assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == truth).mean()))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        area = roc_auc_score(truth, powers / powers.sum(1, keepdims=True), multi_class="ovr")
        assert found["auc"] == pytest.approx(area, abs=1e-4)
        assert found["auc_lo"] <= found["auc"] <= found["auc_hi"]
    names = ("auc@hospital-b", "auc@hospital-b_lo", "accuracy@hospital-b")
    columns = store.columns("accuracy@hospital-b>=0", names)
    assert len(columns[names[0]]) == len(store.rows())
    assert None not in columns[names[0]] + columns[names[1]]
    assert store.count("accuracy@hospital-c>=0") == 0
    front = ("--front", "latency_p50_ms,auc@hospital-b", "--columns", "auc@hospital-b")
    done = tutelage("leaderboard", "show", *front, "--workspace", str(elsewhere / "w"))
    assert done.returncode == 0, done.stderr
    assert "AUC on hospital-b" in done.stdout
    assert "* sure" in done.stdout or "* maybe" in done.stdout  # by the intervals of the set
    done = tutelage("leaderboard", "compare", rows[0].key, rows[1].key, "--workspace", str(elsewhere / "w"))
    assert "hospital-b" in done.stdout
    text, _ = embedded(store.frame(), "", store.details)
    page = json.loads(text)
    assert "auc@hospital-b" in page["qualities"]
    assert page["columns"]["auc@hospital-b"]["label"] == "AUC on hospital-b"
    for cost in ("latency_p50_ms", "size_bytes"):
        codes = page["fronts"][f"auc@hospital-b|{cost}"]
        assert "0" not in codes, cost  # no figure is missing
        assert max(codes) > "4", cost  # some row is on the front


@pytest.mark.slow
def test_another_image_of_a_named_set_is_evaluated_anew_and_nothing_else(elsewhere: Path) -> None:
    file = elsewhere / "b" / "a" / "1-0.png"
    kept = file.read_bytes()
    Image.fromarray(np.full((32, 32), 77, dtype=np.uint8)).save(file)
    try:
        done = tutelage(
            "run", str(elsewhere / "recipe.yaml"), "--dry-run", "--json", "--workspace", str(elsewhere / "w")
        )
    finally:
        file.write_bytes(kept)
    assert done.returncode == 0, done.stderr
    again = {one["title"]: one["reason"] for one in json.loads(done.stdout)["stages"] if one["reason"]}
    assert again
    assert {title.split()[0] for title in again} == {"evaluate"}
    assert all("measure.shift_sets" in reason for reason in again.values()), again


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"hospital-b": "nowhere"}, "measure.shift_sets: hospital-b: no data at nowhere: name the file or folder"),
        ({"hospital b": "b"}, "is no name of a test set"),
        ({"b": ""}, "the path of b is empty"),
        ({"b": "two"}, "b lacks the class c: a test set has the classes"),
    ],
)
def test_a_set_that_cannot_be_evaluated_is_refused_before_anything_is_trained(
    sets: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "own", 36, 0)
    image_folder(tmp_path / "two")
    data = {"dataset": "folder", "path": "own", "size": 32}
    recipe = {**ELSEWHERE, "data": data, "measure": {"shift_sets": sets}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done = tutelage("run", "r.yaml", "--workspace", "w")
    assert_exit(done, 2, said)
    assert not list(tmp_path.glob("w/artifacts/*"))


def test_a_set_is_read_by_the_options_of_the_data_and_never_downloaded_in_their_place(tmp_path: Path) -> None:
    options = {"flag": "breastmnist", "archive_size": 64, "range": [0, 255]}
    data = {"dataset": "medmnist", "size": 32, "options": options}
    measure = {"shift_sets": {"hospital-b": str(tmp_path / "b.npz"), "c": str(tmp_path / "c")}}
    (tmp_path / "c").mkdir()
    recipe = Recipe.model_validate({**ELSEWHERE, "data": data, "measure": measure})
    requests = shift_requests(recipe, Workspace(tmp_path))
    assert requests["hospital-b"].options == {"range": [0, 255]}
    with pytest.raises(InputError, match=r"^measure\.shift_sets: hospital-b: no data at .*b\.npz: name the file"):
        find_set("hospital-b", requests["hospital-b"])
    with pytest.raises(InputError, match=r"^measure\.shift_sets: c: .* holds 0 npz files"):
        find_set("c", requests["c"])


def test_a_set_of_data_that_lie_on_the_hub_is_read_as_they_are(tmp_path: Path) -> None:
    sets = {"b": "hf:another/one", "c": "images-c"}
    recipe = {**ELSEWHERE, "data": {"dataset": "hf:owner/name", "size": 32}, "measure": {"shift_sets": sets}}
    found = shift_requests(Recipe.model_validate(recipe), Workspace(tmp_path))
    read = [(one.name, str(one.path)) for one in found.values()]
    assert read == [("parquet", "hf:another/one"), ("parquet", "images-c")]


def test_what_a_set_cannot_be_read_by_is_said_with_its_name(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({**ELSEWHERE, "measure": {"shift_sets": {"b": str(tmp_path)}}})
    with pytest.raises(InputError, match=r"^measure\.shift_sets: b: path is .* data set phantom is drawn, not read"):
        shift_requests(recipe, Workspace(tmp_path))
