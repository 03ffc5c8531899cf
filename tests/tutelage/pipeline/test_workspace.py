"""Workspaces: a finished stage is not done again, an unfinished one is, and a strange folder is refused."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.cli import app as cli
from tutelage.files import whole_file, write_json
from tutelage.pipeline.workspace import Stage, Workspace
from tutelage.records import InputError, content_id


def test_a_finished_stage_is_not_done_twice(tmp_path: Path) -> None:
    calls = []

    def work(folder: Path) -> dict[str, int]:
        calls.append(folder)
        return {"value": 7}

    workspace = Workspace(tmp_path)
    first = workspace.stage("count", {"n": 1}, work)
    again = Workspace(tmp_path).stage("count", {"n": 1}, work)
    other = workspace.stage("count", {"n": 2}, work)
    assert len(calls) == 2
    assert first == again
    assert first.key != other.key
    assert [event["event"] for event in workspace.journal()] == ["start", "done"] * 2


def test_a_stage_that_failed_is_done_again_and_finds_its_checkpoint(tmp_path: Path) -> None:
    def broken(folder: Path) -> dict[str, int]:
        (folder / "checkpoint").write_text("half")
        raise RuntimeError("power")

    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError):
        workspace.stage("train", {}, broken)
    stage = workspace.stage("train", {}, lambda folder: {"found": (folder / "checkpoint").read_text()})
    assert stage.result == {"found": "half"}


@pytest.mark.parametrize("folders", [True, False])
def test_the_checkpoint_of_a_stage_goes_when_it_is_done(tmp_path: Path, folders: bool) -> None:
    def work(folder: Path) -> dict[str, int]:
        checkpoint = folder / "checkpoint"
        if folders:
            (checkpoint / "epoch-00003").mkdir(parents=True)
            checkpoint = checkpoint / "epoch-00003" / "optimizer.pt"
        checkpoint.write_bytes(b"moments")
        (folder / "weights.safetensors").write_bytes(b"weights")
        return {}

    stage = Workspace(tmp_path).stage("train", {}, work)
    assert sorted(path.name for path in stage.folder.iterdir()) == ["done.json", "inputs.json", "weights.safetensors"]


def test_another_layout_is_refused(tmp_path: Path) -> None:
    Workspace(tmp_path)
    write_json(tmp_path / "workspace.json", {"layout": 99})
    with pytest.raises(InputError, match="layout 99"):
        Workspace(tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Workspace(tmp_path / "file")


def test_a_torn_journal_line_is_left_out_and_the_next_starts_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(tmp_path)
    workspace.stage("one", {}, lambda folder: {})
    with (tmp_path / "journal.jsonl").open("a") as handle:
        handle.write('{"event": "sta')
    workspace.stage("two", {}, lambda folder: {})
    assert [event["stage"] for event in workspace.journal()] == ["one", "one", "two", "two"]
    assert f"{tmp_path / 'journal.jsonl'}: skipped a torn line" in caplog.text
    json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])


def test_an_empty_journal_has_no_torn_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    workspace.stage("one", {}, lambda folder: {})
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["start", "done"]


def test_what_cannot_be_removed_does_not_stop_a_start_over(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / ".removed.1").write_text("rmtree takes no file")
    (tmp_path / ".removed.2").mkdir()
    workspace.start_over("mine")
    assert [path.name for path in tmp_path.glob(".removed*")] == [".removed.1"]
    assert workspace.for_recipe("mine").attempt == 1


def _record_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is synced to disk and what gets its final name, in order: real files, real calls."""
    events: list[str] = []
    sync, rename = os.fsync, os.replace

    def noted_sync(handle: int) -> None:
        events.append(f"sync {os.readlink(f'/proc/self/fd/{handle}')}")
        sync(handle)

    def noted_rename(source: str | os.PathLike[str], target: str | os.PathLike[str], **more: int) -> None:
        events.append(f"name {os.fspath(target)}")
        rename(source, target, **more)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    monkeypatch.setattr(os, "rename", noted_rename)
    return events


def test_all_of_a_stage_is_on_the_disk_before_it_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(folder: Path) -> dict[str, int]:
        (folder / "weights.safetensors").write_bytes(b"weights")
        (folder / "parts" / "deep").mkdir(parents=True)
        (folder / "parts" / "deep" / "model.onnx").write_bytes(b"graph")
        return {}

    workspace = Workspace(tmp_path)
    events = _record_syncs(monkeypatch)
    stage = workspace.stage("train", {}, work)
    filed = events.index(f"name {stage.folder / 'done.json'}")
    before, after = events[:filed], events[filed + 1 :]
    paths = ["weights.safetensors", "parts/deep/model.onnx", "parts/deep", "parts", "", "..", "../.."]
    for path in paths:
        assert f"sync {(stage.folder / path).resolve()}" in before, path
    # The result's bytes before its name, and its name before the stage is given.
    assert any(event.startswith(f"sync {stage.folder}/.done.json.") for event in before)
    assert f"sync {stage.folder}" in after


def _killed_while_syncing(path: str, ready: "multiprocessing.synchronize.Event") -> None:
    """Do a stage and stop for good where its second file is about to be synced."""
    sync = os.fsync

    def stuck(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith("model.onnx"):
            ready.set()
            signal.pause()
        sync(handle)

    os.fsync = stuck
    Workspace(Path(path)).stage("train", {}, lambda folder: {"bytes": (folder / "model.onnx").write_bytes(b"first")})


def test_a_stage_that_is_killed_before_its_files_are_on_the_disk_is_done_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_killed_while_syncing, args=(str(tmp_path), ready), daemon=True)
    process.start()
    assert ready.wait(500)
    assert not list(tmp_path.glob("artifacts/*/done.json"))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    again = Workspace(tmp_path).stage("train", {}, lambda folder: {"bytes": (folder / "model.onnx").write_bytes(b"b")})
    assert again.result == {"bytes": 1}


def test_starting_over_redoes_one_recipe_and_keeps_what_rows_refer_to(tmp_path: Path) -> None:
    calls: list[str] = []

    def stage(recipe: str, name: str) -> Stage:
        def work(folder: Path) -> dict[str, str]:
            calls.append(f"{recipe} {name}")
            (folder / "model.onnx").write_text(f"{recipe} {len(calls)}")
            return {"by": recipe}

        return Workspace(tmp_path).for_recipe(recipe).stage(name, {}, work)

    first = stage("mine", "teacher")
    other = stage("other", "student")
    (tmp_path / "cache").mkdir()
    Workspace(tmp_path).start_over("mine")
    again = stage("mine", "teacher")
    assert calls == ["mine teacher", "other student", "mine teacher"]
    assert (first.folder / "model.onnx").read_text() == "mine 1"  # a row's bundle still finds it
    assert again.folder != first.folder
    assert again.key != first.key, "what follows from the new attempt would be taken for the old one's"
    assert stage("mine", "teacher") == again
    assert stage("other", "student") == other
    assert stage("other", "teacher") == first, "another recipe's results changed under it"
    assert len(calls) == 3
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".removed*"))


def test_a_start_over_that_is_stopped_goes_on_in_its_own_attempt(tmp_path: Path) -> None:
    def stop(folder: Path) -> dict[str, int]:
        (folder / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    def stage(name: str, work: Callable[[Path], dict[str, int]]) -> Stage:
        return Workspace(tmp_path).for_recipe("mine").stage(name, {}, work)

    before = [stage(name, lambda folder: {"run": 1}) for name in ("teacher", "student")]
    Workspace(tmp_path).start_over("mine")
    teacher = stage("teacher", lambda folder: {"run": 2})
    with pytest.raises(KeyboardInterrupt):
        stage("student", stop)
    # Without another start over: the teacher is not done a third time, the student goes on from its checkpoint.
    assert stage("teacher", lambda folder: {"run": 3}) == teacher
    student = stage("student", lambda folder: {"run": len((folder / "checkpoint").read_text())})
    assert student.result == {"run": 4}
    assert [json.loads((one.folder / "done.json").read_text())["result"] for one in before] == [{"run": 1}] * 2


def test_a_stage_is_known_by_its_name_its_inputs_and_nothing_else(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stage = workspace.stage("train", {"lr": 0.1, "epochs": 3}, lambda folder: {"pair": (1, 2)})
    assert stage.key == content_id({"stage": "train", "inputs": {"epochs": 3, "lr": 0.1}, "layout": 1})
    assert (stage.name, stage.folder) == ("train", tmp_path / "artifacts" / stage.key)
    assert stage.result == {"pair": [1, 2]}  # as it is read back
    assert json.loads((stage.folder / "inputs.json").read_text())["inputs"] == {"lr": 0.1, "epochs": 3}
    assert json.loads((stage.folder / "inputs.json").read_text())["stage"] == "train"
    done = json.loads((stage.folder / "done.json").read_text())
    assert (done["stage"], done["result"]) == ("train", {"pair": [1, 2]})
    other = workspace.stage("test", {"lr": 0.1, "epochs": 3}, lambda folder: {})
    assert other.key != stage.key
    events = workspace.journal()
    assert [(event["event"], event["stage"], event["key"]) for event in events] == [
        ("start", "train", stage.key), ("done", "train", stage.key),
        ("start", "test", other.key), ("done", "test", other.key),
    ]  # fmt: skip
    assert events[0]["time"] <= done["finished"] <= events[1]["time"]
    assert workspace.relative(stage.folder / "a.onnx") == f"artifacts/{stage.key}/a.onnx"
    assert Workspace(tmp_path / "new" / "deep").journal() == []


def test_attempts_are_counted_over_all_recipes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for pid in (1, os.getpid()):  # of starts over that were killed, in a container by one with this number
        (tmp_path / f".removed.{pid}").mkdir()
        (tmp_path / f".removed.{pid}" / "left").touch()
    (tmp_path / "cache").mkdir()
    keys = []
    for recipe, attempt in (("a", 1), ("b", 2), ("a", 3), ("a", 4)):
        workspace.start_over(recipe)
        seen = workspace.for_recipe(recipe)
        assert (seen.attempt, workspace.attempt) == (attempt, 0)
        keys.append(seen.stage("train", {}, lambda folder: {}).key)
    assert [key.partition("-")[2] for key in keys] == ["1", "2", "3", "4"]
    assert workspace.for_recipe("c").attempt == 0
    assert not list(tmp_path.glob(".removed*"))
    # Of attempts that are done, a recipe takes the first that is not older than its own.
    assert workspace.for_recipe("b").stage("train", {}, lambda folder: {}).key == keys[1]
    workspace.for_recipe("b").stage("eval", {}, lambda folder: {"by": "b"})
    workspace.for_recipe("a").stage("eval", {}, lambda folder: {"by": "a"})
    assert workspace.for_recipe("b").stage("eval", {}, lambda folder: {}).result == {"by": "b"}
    assert workspace.stage("eval", {}, lambda folder: {}).result == {"by": "b"}


def test_where_the_leaderboard_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTELAGE_STORE", raising=False)
    workspace = Workspace(tmp_path)
    assert workspace.store == tmp_path / "leaderboard.db"
    for url in ("postgresql://me@host/name", "postgresql+psycopg://host/name", "sqlite:///file.db"):
        monkeypatch.setenv("TUTELAGE_STORE", f" {url} ")
        assert workspace.store == url
    for url in ("mysql://host/name", "host/name"):
        monkeypatch.setenv("TUTELAGE_STORE", url)
        with pytest.raises(InputError, match="TUTELAGE_STORE is no postgresql:// URL"):
            _ = workspace.store


def test_a_workspace_may_lie_under_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Workspace(Path("~/work")).path == Workspace(Path("work")).path == tmp_path / "work"
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["workspace.json"]
    assert json.loads((tmp_path / "work" / "workspace.json").read_text())["layout"] == 1


def test_a_result_that_cannot_be_read_names_its_remedy(tmp_path: Path) -> None:
    stage = Workspace(tmp_path).stage("train", {}, lambda folder: {})
    (stage.folder / "done.json").write_text("{")
    with pytest.raises(InputError, match=r"done\.json cannot be read .*delete its folder and the stage is done again"):
        Workspace(tmp_path).stage("train", {}, lambda folder: {})
    write_json(tmp_path / "workspace.json", {"layout": 0})
    with pytest.raises(InputError, match="layout 0, this version of tutelage reads 1"):
        Workspace(tmp_path)
    for text in ("{", "3", "{}", '{"layout": [1]}'):
        (tmp_path / "workspace.json").write_text(text)
        with pytest.raises(InputError, match=r"workspace\.json cannot be read .*: restore it, or choose another"):
            Workspace(tmp_path)


def test_a_file_is_whole_or_absent_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "profile.yaml"
    target.write_text("old")

    def cut_off() -> None:
        with whole_file(target) as aside:
            assert aside.suffix == ".yaml"
            aside.write_text("half")
            assert list(tmp_path.glob("*.yaml")) == [target], "a kill now would leave a file that a listing finds"
            raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        cut_off()
    assert target.read_text() == "old"
    with whole_file(target) as aside:
        aside.write_text("new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["profile.yaml"]


@pytest.mark.parametrize(("option", "words"), [([], "the same command goes on"), (["--fresh"], "without --fresh goes")])
def test_who_interrupts_is_reported_which_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list[str], words: str
) -> None:
    def interrupted(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_carry_out", interrupted)
    monkeypatch.setattr(cli, "_tidy_when_terminated", lambda: None)
    monkeypatch.setattr("sys.argv", ["tutelage", "run", "demo", *option])
    with pytest.raises(SystemExit):
        cli.main()
    assert words in capsys.readouterr().err
