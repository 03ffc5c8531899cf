"""`tutelage workspace clean`: what no row, bundle or unfinished run needs is collected, and nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tutelage.cli.app import app
from tutelage.distill.data.cache import alone
from tutelage.distill.data.registry import load_dataset
from tutelage.files import write_json
from tutelage.leaderboard.store import Store
from tutelage.pipeline.operations.clean import clean, sizes
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row, utc_now


def _stage(workspace: Workspace, name: str, inputs: dict[str, Any], sha: str = "", recipe: str = "mine") -> Path:
    def work(folder: Path) -> dict[str, Any]:
        (folder / "file").write_bytes(b"12345")
        return {"file": {"sha256": sha, "path": f"artifacts/{folder.name}/file"}}

    return workspace.stage(name, inputs, work, title=f"{name} it", recipe={"name": recipe}).folder


def _row(folder: Path, **more: Any) -> Row:
    place = f"artifacts/{folder.name}"
    details = {"how": {"file": {"path": f"{place}/file"}}, "predictions": f"{place}/p.npz", "state": "complete"}
    return Row(
        model="m",
        role="student",
        dataset="d",
        accuracy=0.5,
        recipe="mine",
        created=utc_now(),
        details={**details, **more},
    )


@pytest.fixture
def done(tmp_path: Path) -> tuple[Workspace, Path, Path, Path]:
    """Give a workspace whose run came to its end: a training, the file of its row, and a stage that no row needs."""
    workspace = Workspace(tmp_path / "w")
    trained = _stage(workspace, "distil", {}, "a" * 64)
    file = _stage(workspace, "export", {"network": {"sha256": "a" * 64}}, "b" * 64)
    unused = _stage(workspace, "quantize", {"fp32": {"sha256": "b" * 64}})
    Store(workspace.store).add([_row(file)], [])
    return workspace, trained, file, unused


def test_what_no_row_needs_is_listed_and_then_removed(done: tuple[Workspace, Path, Path, Path]) -> None:
    workspace, trained, file, unused = done
    (trained / "checkpoint").mkdir()
    (trained / "checkpoint" / "optimizer.pt").write_bytes(b"m" * 1000)
    (workspace.path / "bundles" / "mine" / "m").mkdir(parents=True)
    (workspace.path / "bundles" / "mine" / "m" / "model.onnx").write_bytes(b"model")
    words = ["workspace", "clean", "--workspace", str(workspace.path)]
    listed = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    wanted = [f"artifacts/{trained.name}/checkpoint", f"artifacts/{unused.name}"]
    assert [one["path"] for one in listed["removed"]] == wanted
    assert (listed["removed"][0]["size_bytes"], listed["kept"]) == (1000, "")
    assert unused.is_dir()
    assert sizes(workspace.path)["checkpoints"] == 1000
    assert "checkpoints 1 kB" in CliRunner().invoke(app, ["workspace", "--workspace", str(workspace.path)]).output
    result = CliRunner().invoke(app, [*words, "--yes"])
    assert (result.exit_code, "removed" in result.output) == (0, True)
    assert sorted((workspace.path / "artifacts").iterdir()) == sorted([trained, file])
    assert not (trained / "checkpoint").exists()
    assert (workspace.path / "bundles" / "mine" / "m" / "model.onnx").is_file()
    assert not list(workspace.path.glob(".removed*"))
    assert clean(workspace, dry_run=True).removed == ()


def _stopped(workspace: Workspace) -> None:
    def work(folder: Path) -> dict[str, Any]:
        (folder / "checkpoint").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.stage("distil", {"n": 2}, work, title="distil it", recipe={"name": "mine"})


def _between_stages(workspace: Workspace) -> None:
    """Leave a run of another recipe as a kill does after its first stage."""
    _stage(workspace, "distil", {"n": 3}, recipe="other")


def _later_stage(workspace: Workspace) -> None:
    """Finish a stage of the same recipe, with other settings, after its rows."""
    folder = _stage(workspace, "distil", {"n": 4})
    filed = json.loads((folder / "done.json").read_text())
    write_json(folder / "done.json", {**filed, "finished": "2999-01-01T00:00:00+00:00"})


def _reusing(workspace: Workspace) -> None:
    """Begin a run that has done no stage of its own yet."""
    (workspace.path / "recipe.yaml").write_text("name: other\n")


@pytest.mark.parametrize("begin", [_stopped, _between_stages, _later_stage, _reusing])
def test_an_unfinished_run_keeps_all_that_it_may_need(done: tuple[Workspace, Path, Path, Path], begin: Any) -> None:
    workspace, trained, _, _ = done
    (trained / "checkpoint").write_bytes(b"left by a kill")
    (workspace.path / "cache" / "soft-targets" / "x").mkdir(parents=True)
    begin(workspace)
    before = sorted((workspace.path / "artifacts").rglob("*"))
    found = clean(workspace, dry_run=False, caches=True)
    assert [one.kind for one in found.removed] == ["checkpoints"]
    assert "did not come to its end" in found.kept or "is not finished" in found.kept
    assert sorted((workspace.path / "artifacts").rglob("*")) == [one for one in before if one != trained / "checkpoint"]
    assert (workspace.path / "cache" / "soft-targets" / "x").is_dir()


def test_checkpoints_that_a_run_takes_trainings_over_from_are_kept(done: tuple[Workspace, Path, Path, Path]) -> None:
    workspace, trained, _, _ = done
    (trained / "checkpoint").write_bytes(b"of the version before")
    filed = json.loads((trained / "inputs.json").read_text())
    write_json(trained / "inputs.json", {**filed, "title": ""})
    clean(workspace, dry_run=False)
    assert (trained / "checkpoint").is_file()


def test_a_workspace_in_use_is_not_cleaned(done: tuple[Workspace, Path, Path, Path]) -> None:
    workspace, _, _, unused = done
    with Workspace(workspace.path).locked(), pytest.raises(InputError, match="in use by another command"):
        clean(workspace, dry_run=False)
    assert unused.is_dir()


def test_images_decoded_in_part_are_collected_and_whole_ones_where_it_is_asked(
    done: tuple[Workspace, Path, Path, Path], tmp_path: Path
) -> None:
    workspace, *_ = done
    for n in range(12):
        place = tmp_path / "images" / "ab"[n % 2] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * n, np.uint8)).save(place)
    cache = workspace.path / "cache"
    load_dataset("folder", path=tmp_path / "images", size=8, cache=cache)
    (home,) = cache.iterdir()
    parts = [home / ".partial-0123456789abcdef", home / ".partial-fedcba9876543210"]
    for part in parts:
        part.mkdir()
    (further := cache / "shift-sets" / home.name / ".partial-0123456789abcdef").mkdir(parents=True)
    (workspace.path / f".removed.{os.getpid() + 1}").mkdir()
    with alone(parts[0]):  # as a command that decodes has it
        clean(workspace, dry_run=False)
    assert [part.is_dir() for part in (*parts, further)] == [True, False, False]
    assert not list(workspace.path.glob(".removed*"))
    assert len(list(home.iterdir())) == 2
    assert sizes(workspace.path)["decoded images"] > 12 * 64
    clean(workspace, dry_run=False, caches=True)
    assert list(cache.iterdir()) == []
