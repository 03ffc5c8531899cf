"""The stages of a workspace are listed with what needs them, and pruned where no row does."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.leaderboard.filed import real_board
from tests.tutelage.pipeline.recipes_planned import Planner, recipes, written
from tests.tutelage.pipeline.test_stages import Counted, finish
from tutelage.cli.app import app
from tutelage.leaderboard.store import Store
from tutelage.pipeline.keys.plan import Planning
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.operations.board import bring_up_to_date
from tutelage.pipeline.operations.stages import list_stages, prune
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.measure import DeviceInput, MeasureInputs
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row

DAMAGED = ("{", "3", "[1]", "{}", '{"stage": 3, "inputs": 3, "result": 3}')


def _stage(workspace: Workspace, name: str, inputs: dict[str, Any], sha: str) -> str:
    def work(folder: Path) -> dict[str, Any]:
        (folder / "file").write_bytes(b"12345")
        return {"file": {"sha256": sha, "path": f"artifacts/{folder.name}/file"}}

    return workspace.stage(name, inputs, work).key


def _row(key: str, sha: str = "") -> Row:
    """Give a row whose file lies in a stage."""
    file = {"path": f"artifacts/{key}/file", "sha256": sha}
    return Row(model="m", role="student", dataset="d", accuracy=0.5, details={"how": {"file": file}})


def test_the_workspace_lists_its_stages_and_prunes_what_no_row_needs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    trained = _stage(workspace, "distil", {}, "a" * 64)
    file = _stage(workspace, "export", {"network": {"sha256": "a" * 64}}, "b" * 64)
    unused = _stage(workspace, "quantize", {"fp32": {"sha256": "b" * 64}}, "c" * 64)
    row = _row(file)
    Store(workspace.store).add([row], [])
    words = ["workspace", "--workspace", str(workspace.path), "--json"]
    listed = {one["key"]: one for one in json.loads(CliRunner().invoke(app, words).output)}
    assert (listed[trained]["stages"], listed[file]["rows"]) == ([file], [row.key])
    assert (listed[unused]["rows"], listed[unused]["stages"]) == ([], [])
    assert listed[file]["size_bytes"] > 5
    lines = CliRunner().invoke(app, words[:-1]).output.splitlines()
    assert [line.split()[0] for line in lines if line.split()[0] in listed] == list(listed)  # no key is wrapped
    words = ["workspace", "prune", "--workspace", str(workspace.path)]
    dry = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    assert [one["key"] for one in json.loads(dry.output)] == [unused]
    assert (workspace.path / "artifacts" / unused).is_dir()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert sorted(path.name for path in (workspace.path / "artifacts").iterdir()) == sorted([trained, file])


def test_a_folder_that_is_no_workspace_is_refused_and_left_alone(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["workspace", "--workspace", str(tmp_path / "none")])
    assert isinstance(result.exception, InputError)
    assert "is no workspace" in str(result.exception)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_files_of_a_stage_are_named_by_a_run_and_listed_without_one(tmp_path: Path, text: str) -> None:
    workspace = written(tmp_path)
    planner = Planner(workspace)
    values = Recipe.model_validate(recipes(tmp_path)["named"]).model_dump(mode="json")
    title = "train teacher resnet10t"
    finish(workspace, values, planner, title)
    (folder,) = (workspace.path / "artifacts").iterdir()
    (folder / "inputs.json").write_text(text)
    slower = {**values, "teachers": [{**values["teachers"][0], "lr": 0.5}]}
    assert next(one.reason for one in planner.plan(slower).stages if one.title == title) == "new"
    with pytest.raises(InputError, match=r"inputs\.json cannot be read .*: delete its folder"):
        workspace.versions(folder.name)
    (folder / "done.json").write_text(text)
    with pytest.raises(InputError, match=r"done\.json cannot be read .*: delete its folder"):
        planner.plan(values)
    assert [(one.title, one.finished) for one in list_stages(workspace.path)] == [("unknown", "")]


def test_nothing_is_pruned_where_it_is_unknown_what_a_needed_stage_is_made_of(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    trained = _stage(workspace, "distil", {}, "a" * 64)
    file = _stage(workspace, "export", {"network": {"sha256": "a" * 64}}, "b" * 64)
    Store(workspace.store).add([_row(file)], [])
    (workspace.path / "artifacts" / file / "inputs.json").write_text("{")
    with pytest.raises(InputError, match=r"inputs\.json cannot be read"):
        prune(workspace, dry_run=False)
    assert sorted(one.key for one in list_stages(workspace.path)) == sorted([trained, file])


def test_rows_that_were_filed_before_a_teams_server_was_set_keep_their_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "w")
    here, there = _stage(workspace, "export", {}, "a" * 64), _stage(workspace, "export", {"n": 1}, "b" * 64)
    Store(workspace.store).add([_row(here)], [])
    monkeypatch.setenv("TUTELAGE_STORE", f"sqlite:///{tmp_path / 'team.db'}")
    Store(workspace.store).add([_row(there)], [])
    assert prune(workspace, dry_run=False) == []


def test_the_stages_of_a_workspace_of_an_earlier_version_are_listed_when_it_is_migrated(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    key = _stage(workspace, "compress m", {}, "a" * 64)
    real_board(workspace.path / "leaderboard.db")
    with pytest.raises(InputError, match="leaderboard migrate"):
        list_stages(workspace.path)
    bring_up_to_date(workspace.store).close()
    assert [(one.key, one.title) for one in list_stages(workspace.path)] == [(key, "compress m")]
    assert (workspace.path / "leaderboard.version-5.db").is_file()  # a copy of before


def test_a_workspace_is_listed_while_a_run_writes_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run replaces between the listing of a folder and the reading of a size is not counted."""
    workspace = Workspace(tmp_path / "w")
    key = _stage(workspace, "distil", {}, "a" * 64)
    (workspace.path / "artifacts" / key / "checkpoint").write_bytes(b"1" * 1000)
    size = os.lstat

    def replaced(path: Path) -> os.stat_result:
        if str(path).endswith("checkpoint"):
            os.unlink(path)
        return size(path)

    before = list_stages(workspace.path)[0].size_bytes
    monkeypatch.setattr(os, "lstat", replaced)
    assert list_stages(workspace.path)[0].size_bytes == before - 1000


def test_a_stage_that_measured_a_file_did_not_write_it_and_is_kept_with_its_row(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    file = _stage(workspace, "export", {}, "a" * 64)
    measured = workspace.stage("measure", {"file": "a" * 64}, lambda _: {"a" * 64: {"p50_ms": 1.0}}).key
    converted = _stage(workspace, "convert", {"onnx": "a" * 64}, "c" * 64)
    other = workspace.stage("measure", {"file": "d" * 64}, lambda _: {"d" * 64: {"p50_ms": 1.0}}).key
    Store(workspace.store).add([_row(converted, "c" * 64), _row(file, "a" * 64)], [])
    listed = {one.key: one for one in list_stages(workspace.path)}
    assert listed[file].stages == tuple(sorted([converted, measured]))
    assert listed[measured].stages == ()
    assert listed[measured].rows == listed[file].rows
    assert [one.key for one in prune(workspace, dry_run=True)] == [other]


def test_a_measurement_names_the_stage_that_writes_another_file_and_no_place_in_a_list(tmp_path: Path) -> None:
    """Files are sorted by their hashes: one that is written anew moves the others."""
    workspace = Workspace(tmp_path / "w")
    planning = Planning(workspace)

    def inputs(*files: str) -> MeasureInputs:
        return MeasureInputs.model_construct(
            title="measure on box", versions={}, device=DeviceInput.model_construct(name="box"), channels=1,
            samples=100, tolerance=0.1, files={"32": tuple(FileInput(sha256=sha, path="") for sha in sorted(files))},
        )  # fmt: skip

    one, two, three = ("a" * 64, "b" * 64, "c" * 64)
    workspace.run(inputs(one, two, three), lambda _: {})
    exported = planning.run(Counted(title="export small", versions={}, number=1), lambda _: {}).key
    planning.run(inputs(two, three, f"of {exported}"), lambda _: {})
    planning.run(inputs(one, two), lambda _: {})
    reasons = [planned.reason for planned in planning.planned.values()]
    assert reasons[1:] == ["after export small", "the set of files changed"]
