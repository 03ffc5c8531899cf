"""Structured pruning in a run: rows of students that were cut out of others, trained as those are, never as subnets."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tutelage.cli.app import app
from tutelage.leaderboard.store import Store
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.records import InputError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason="pip install 'tutelage[prune]'"
)
# The smallest subnet: what a run costs grows with the layers of its networks.
GENES = {"space": "mbconv_small_w1.0", "ks": [3] * 4, "e": [2] * 4, "d": [0] * 4, "r": 32}
RECIPE: dict[str, Any] = {
    "name": "cut",
    "data": {"dataset": "phantom", "size": 32, "limit": 80, "augment": "none", "augment_variants": 1},
    "students": [{"name": "small", "arch": GENES}],
    "devices": [{"name": "host-ort"}],
    "distill": {"epochs": 1, "batch_size": 32},
    "pruned": [{"of": "small", "keep": "60%", "importance": "taylor"}],
    "quantize": {"calibration_images": 16, "method": "minmax"},
    "measure": {"tolerance": 0.9, "bootstrap": 100},
}


def _written(folder: Path, **changes: Any) -> Path:
    path = folder / "cut.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


@pytest.mark.slow
def test_a_run_files_pruned_students_beside_their_parent(tmp_path: Path) -> None:
    recipe = _written(tmp_path)
    words = ["run", str(recipe), "--workspace", str(tmp_path / "ws")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    rows = {(row.model, row.teacher, row.scheme): row for row in Store(tmp_path / "ws" / "leaderboard.db").rows()}
    parent = rows["small", "", "fp32"]
    name = "small-pruned60-taylor"
    row, int8 = rows[name, "", "fp32"], rows[name, "", "int8-ptq"]
    assert row.role == "student"
    assert row.arch is None
    assert 0.3 * parent.macs < row.macs <= 0.6 * parent.macs
    assert row.params < parent.params
    assert int8.size_bytes < 0.4 * row.size_bytes
    assert "predicted_ms" not in row.details
    assert (row.details["pruned"]["parent"], row.details["pruned"]["importance"]) == ("small", "taylor")
    journal = (tmp_path / "ws" / "journal.jsonl").read_text()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "ws" / "journal.jsonl").read_text() == journal  # nothing is pruned or trained twice
    shown = json.loads(CliRunner().invoke(app, ["leaderboard", "show", "--json", *words[2:]]).output)
    assert any(row["model"] == name for row in shown)


def test_what_cannot_be_pruned_is_reported_before_any_training(tmp_path: Path) -> None:
    unknown = _written(tmp_path, pruned=[{"of": "OFA-595"}])
    result = CliRunner().invoke(app, ["run", str(unknown), "--workspace", str(tmp_path / "ws")])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "pruned.of = 'OFA-595': no such network is trained; known: small"
    assert not (tmp_path / "ws" / "artifacts").exists() or not any((tmp_path / "ws" / "artifacts").iterdir())


@pytest.mark.parametrize("keep", ["0%", "100%", "half", "5", "-3%"])
def test_a_share_is_between_nothing_and_all(keep: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write a percentage of the multiply-accumulates"):
        load_recipe(str(_written(tmp_path, pruned=[{"of": "small", "keep": keep}])))


def test_a_recipe_without_pruning_has_none() -> None:
    assert Recipe.model_validate({"name": "x"}).pruned == ()
