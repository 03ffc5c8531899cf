"""Workspaces: a finished stage is not done again, an unfinished one is, and a strange folder is refused."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tutelage.records import InputError
from tutelage.workspace import Workspace, write_json


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


def test_another_layout_is_refused(tmp_path: Path) -> None:
    Workspace(tmp_path)
    write_json(tmp_path / "workspace.json", {"layout": 99})
    with pytest.raises(InputError, match="layout 99"):
        Workspace(tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Workspace(tmp_path / "file")


def _hold(path: str, ready: "multiprocessing.synchronize.Event") -> None:
    with Workspace(Path(path)).locked():
        ready.set()
        signal.pause()


def test_a_second_run_is_kept_out_until_the_first_is_gone_even_by_sigkill(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(InputError, match="in use"), Workspace(tmp_path).locked():
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with Workspace(tmp_path).locked():
        pass


def test_a_torn_journal_line_is_left_out_and_the_next_starts_afresh(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.stage("one", {}, lambda folder: {})
    with (tmp_path / "journal.jsonl").open("a") as handle:
        handle.write('{"event": "sta')
    workspace.stage("two", {}, lambda folder: {})
    assert [event["stage"] for event in workspace.journal()] == ["one", "one", "two", "two"]
    json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
