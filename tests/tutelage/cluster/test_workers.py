"""A run on workers: the same bytes as in one process, killed workers, and what goes on without a stage that failed."""

import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ray_cluster import patient
from tests.tutelage.cluster.small_run import files, interrupt, rows_of
from tutelage.bench.devices.profiles import write_profile
from tutelage.cluster.session import on_this_host
from tutelage.cluster.spread import LOGS, spread, spread_over
from tutelage.cluster.task import Message, Outcome, Task, perform
from tutelage.cluster.tasks import Tasks, _Running
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import open_context
from tutelage.pipeline.keys.foreseen import foreseen, waits_for
from tutelage.pipeline.keys.order import Until
from tutelage.pipeline.keys.plan import walk
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import DeviceProfile, InputError


def ready(recipe: Recipe, workspace: Workspace) -> list[Foreseen]:
    ctx = open_context(recipe, workspace, silent, 1)
    return foreseen(ctx, lambda ctx: walk(ctx, devices=(), weighed=(), until=Until.END))


def test_stages_that_read_no_file_to_come_are_foreseen_in_their_order(recipe: Recipe, tmp_path: Path) -> None:
    found = ready(recipe, Workspace(tmp_path))
    titles = [one.inputs.title for one in found]
    assert titles == ["train teacher resnet10t", "train small on labels", "train other on labels"]
    assert all(not waits_for(one.inputs) for one in found)
    assert not list((tmp_path / "artifacts").glob("*"))


def outcome(recipe: Recipe, workspace: Workspace, stage: Foreseen) -> tuple[Outcome, list[str]]:
    """Do a stage in this process as a worker does; give what it said, too."""
    ctx, said = open_context(recipe, workspace, silent, 1), list[str]()
    task = Task(recipe, workspace.path, 1, ctx.accelerator, stage.key, stage.inputs, stage.compute)
    return perform(task, lambda message: said.append(message.text)), said


def test_a_worker_with_other_libraries_or_images_computes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stage = ready(recipe, workspace)[0]
    older = stage.inputs.model_copy(update={"versions": {"torch": "1.0"}})
    found, _ = outcome(recipe, workspace, Foreseen(stage.key, older, stage.compute, None))
    assert found.final
    assert re.search(r"has torch [\d.]+\S*, the run has 1.0: install the same", found.reason)
    images = {"images": stage.inputs.images.model_copy(update={"digest": "x"})}  # type: ignore[attr-defined]
    other = stage.inputs.model_copy(update=images)
    found, _ = outcome(recipe, workspace, Foreseen(stage.key, other, stage.compute, None))
    assert found.final
    assert "reads other images than the run" in found.reason


def _broken(*_: Any) -> dict[str, Any]:
    raise ZeroDivisionError("a fault of ours")


def test_a_fault_in_a_stage_is_an_outcome_that_is_tried_again(recipe: Recipe, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stage = ready(recipe, workspace)[0]
    found, said = outcome(recipe, workspace, Foreseen(stage.key, stage.inputs, _broken, None))
    assert (found.result, found.final) == (None, False)
    assert found.reason == "ZeroDivisionError: a fault of ours"
    assert "in _broken" in found.trace
    assert said[0].endswith(f"process {os.getpid()}")


def test_boards_of_a_cluster_are_refused_beside_workers_of_this_host(recipe: Recipe, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_profile(DeviceProfile(name="box", runtime="onnxruntime", host="ray:pi4"), tmp_path / "devices")
    with pytest.raises(InputError, match=r"--workers 1 starts .* no board of device box \(ray:pi4\): give --cluster"):
        spread(recipe, workspace, silent, 1).__enter__()


def test_more_workers_than_cores_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--workers 999: this machine has \d+ core"):
        spread(recipe, Workspace(tmp_path), silent, 999).__enter__()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with patient(), on_this_host(2, 1) as started:
        yield started


@pytest.mark.slow
@pytest.mark.long
def test_what_workers_say_is_read_however_late_it_comes(
    tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(ray, lambda stage: pytest.fail("nothing is submitted"), tmp_path, silent)
    monkeypatch.setattr("tutelage.cluster.tasks._LOOK_S", 0)
    for number in range(20):
        tasks._mail.post.remote(Message("key", f"message {number}"))
        tasks._read_mail()
    monkeypatch.setattr("tutelage.cluster.tasks._LOOK_S", 50)
    for _ in range(2):  # what was asked for before, and what came after it
        tasks._read_mail()
    said = [line.partition(" ")[2] for line in (tmp_path / "key.log").read_text().splitlines()]
    assert said == [f"message {number}" for number in range(20)]


def hold(mail: Any, until: str) -> None:
    """Keep what holds the mail busy until there is a file."""
    while not Path(until).exists():
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.long
def test_the_last_words_of_the_last_stage_are_read_from_a_mail_that_was_busy(
    recipe: Recipe, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.cluster.tasks._LOOK_S", 0)
    stage, go = ready(recipe, Workspace(tmp_path / "w"))[0], tmp_path / "go"
    tasks = Tasks(ray, lambda stage: pytest.fail("nothing is submitted"), tmp_path / "logs", silent)
    write = tasks._write

    def write_and_let_go(key: str, text: str) -> None:
        write(key, text)
        go.touch()

    monkeypatch.setattr(tasks, "_write", write_and_let_go)
    tasks._mail.__ray_call__.remote(hold, str(go))
    tasks._running[ray.put(Outcome({}))] = _Running(stage, 1)
    tasks._mail.post.remote(Message(stage.key, "before"))
    tasks._read_mail()  # which is asked for, and not given
    tasks._mail.post.remote(Message(stage.key, "after"))
    while not tasks.wait():
        pass
    lines = (tmp_path / "logs" / f"{stage.key}.log").read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["done", "before", "after"]


def die(times: dict[str, int], marks: Path, title: str, _: Path) -> None:
    """Kill this worker, the first so many times that a stage comes here."""
    for number in range(times[title]):
        mark = marks / f"{title} {number}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)  # three runs, and workers that start three times more
def test_a_run_on_workers_that_are_killed_ends_with_the_bytes_of_one_process(
    recipe: Recipe, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.cluster.tasks._LOOK_S", 0.05)
    monkeypatch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
    _, alone = pipeline.run(recipe, Workspace(tmp_path / "alone"), silent, 1)

    place = tmp_path / "spread"
    workspace = spread_over(ray, recipe, Workspace(place), silent, 1)
    deaths, marks = {"train teacher resnet10t": 1, "train other on labels": 3}, tmp_path / "marks"
    marks.mkdir()
    interrupt(monkeypatch, workspace, deaths, partial(die, deaths, marks))
    _, published = pipeline.run(recipe, workspace, silent, 1)
    assert len(list(marks.iterdir())) == 4

    # The baseline's control failed three times; all else has its rows, and every file is that of one process.
    (reason,) = workspace.failed.values()
    assert reason.startswith("train other on labels failed 3 times, the last time: its worker was lost (WorkerCrashed")
    wanted = rows_of(alone)
    assert rows_of(published) == {key: value for key, value in wanted.items() if key[:2] != ("other", "")}
    mine, theirs = files(place), files(tmp_path / "alone")
    assert len(mine) > 20
    assert mine.items() <= theirs.items()
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    assert "train teacher resnet10t, attempt 2 of 3" in logs
    assert "failed: its worker was lost" in logs

    # The same command, here without workers, does what is left.
    _, whole = pipeline.run(recipe, Workspace(place), silent, 1)
    assert rows_of(whole) == wanted
    assert files(place).keys() == theirs.keys()
