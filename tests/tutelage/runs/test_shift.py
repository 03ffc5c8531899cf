"""Figures under corruptions of the test images: of a real run, by a second way, and on a front of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from tutelage.corruptions import CORRUPTIONS, comparable
from tutelage.distill.data.registry import load_dataset
from tutelage.distill.evaluation.corrupt import corrupt
from tutelage.leaderboard.store import Store
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.records import InputError

from ..command import tutelage

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
