"""What a run is doing, in a file of its workspace, for who looks at its leaderboard meanwhile.

`recording` wraps a report of progress so that it is written there, at most once a second; `note_plan` writes which
stages the run will do; `state_of` puts both and the journal together. The files say nothing that a run reads.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from .files import write_json
from .progress import Report
from .records import utc_now

_PROGRESS, _PLAN, _JOURNAL = "progress.json", "plan.json", "journal.jsonl"
_SECONDS = 1.0  # between two writings
_JOURNAL_BYTES = 200_000  # of its end that are read
_BORN_SECONDS = 60.0  # two readings of a process's start differ by less: the host's clock may have been set


@contextmanager
def recording(report: Report, workspace: Path) -> Iterator[Report]:
    """Give a report that also writes what goes on into the workspace; at the end, that it ended."""
    running: dict[str, dict[str, Any]] = {}
    said: dict[str, Any] = {"started": utc_now(), "host": platform.node(), **_process()}
    last = -_SECONDS

    def write(**more: Any) -> None:
        with suppress(OSError):  # a full disk fails the run where it needs it, not here
            tasks = [{"text": text, **task} for text, task in running.items()]
            write_json(workspace / _PROGRESS, {**said, "updated": utc_now(), "running": tasks, **more})

    def recorded(text: str, done: int, total: int) -> None:
        nonlocal last
        report(text, done, total)
        now = time.monotonic()
        began = running.setdefault(text, {"began": now})["began"]
        running[text] = {"began": began, "seconds": round(now - began, 1), "done": done, "total": total}
        if done >= total:
            del running[text]
        if done >= total or now - last >= _SECONDS:
            last = now
            write()

    try:
        yield recorded
    finally:
        if last >= 0:  # a command that was refused before its work is no run
            running.clear()
            write(ended=utc_now())


def _process() -> dict[str, Any]:
    """Give this process by its number and its start: another one may have the number after a restart."""
    return {"pid": os.getpid(), "born": psutil.Process().create_time()}


def note_plan(workspace: Path, recipe: str, stages: Sequence[tuple[str, str]]) -> None:
    """Write the stages that a run will compute, as (title, key), in their order."""
    planned = [{"title": title, "key": key} for title, key in stages]
    with suppress(OSError):
        write_json(workspace / _PLAN, {"recipe": recipe, "made": utc_now(), "stages": planned})


def state_of(workspace: Path) -> dict[str, Any]:
    """Say what runs in a workspace: tasks with their progress, and the stages that are done, running and waiting.

    folders: of the stages that run, the names of their folders of artifacts, by title. Empty where nothing runs: never
    did, ended, or was killed on this machine.
    """
    progress = _read(workspace / _PROGRESS)
    if not progress or "ended" in progress or not _is_alive(progress):
        return {}
    plan = _read(workspace / _PLAN)
    events = _journal(workspace / _JOURNAL, str(progress.get("started", "")))
    last = {(str(one.get("key")), str(one.get("stage"))): str(one.get("event")) for one in events}
    keys = {title: key for key, title in last}
    of_now = str(plan.get("made", "")) >= str(progress.get("started", ""))
    planned = [(str(one.get("key")), str(one.get("title"))) for one in plan.get("stages", ()) if of_now]
    # A search has no key before its devices are measured: its title is known.
    planned = [(key or keys.get(title, ""), title) for key, title in planned]
    names = {"start": "running", "done": "done"}
    return {
        "recipe": plan.get("recipe", "") if of_now else "",
        "tasks": [_task(one) for one in progress.get("running", ())],
        "stages": [[one[1], names.get(last.get(one, ""), "waiting")] for one in dict.fromkeys([*planned, *last])],
        "folders": {title: key for (key, title), event in last.items() if event == "start"},
    }


def _task(one: dict[str, Any]) -> dict[str, Any]:
    done, total, seconds = int(one["done"]), int(one["total"]), float(one["seconds"])
    left = seconds * (total - done) / done if done else None
    return {"text": one["text"], "done": done, "total": total, "seconds": round(seconds), "left": left and round(left)}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(progress: dict[str, Any]) -> bool:
    """Say whether the process may still run: on another machine nobody here knows."""
    if progress.get("host") != platform.node():
        return True
    try:
        born = psutil.Process(int(progress["pid"])).create_time()
        return abs(born - float(progress["born"])) < _BORN_SECONDS
    except (psutil.Error, LookupError, TypeError, ValueError, OverflowError):
        return False


def _journal(path: Path, since: str) -> list[dict[str, Any]]:
    """Read the last events of a journal, from a time on; a torn line is left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _JOURNAL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and str(found.get("time", "")) >= since:
                events.append(found)
    return events
