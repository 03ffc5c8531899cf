"""A machine of a cluster is killed, or the command: the run ends with the bytes of one process."""

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tutelage.cluster.small_run import (
    SMALL,
    Machines,
    changed,
    files,
    interrupt,
    result_in,
    rows_of,
    searching,
    this_machine,
    wait_for,
)
from tutelage.cluster import scoring
from tutelage.cluster.files import open_share
from tutelage.cluster.scoring import Scored
from tutelage.cluster.session import on_cluster
from tutelage.cluster.spread import LOGS, spread_by_files
from tutelage.cluster.task import Task
from tutelage.files import write_text
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.search.replies import Evaluation

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]  # whole runs, and machines that start
SCORING = "scoring"  # the file that names the machine to be killed while subnets are scored
_score = scoring.score


def hang(mark: Path) -> None:
    """Say which machine is to be killed, and wait for that."""
    write_text(mark, this_machine().name)
    time.sleep(1800)


def hang_on(machine: str, mark: Path, *_: object) -> None:
    """Hang on one machine; elsewhere wait until that is so, or the other machine had done all before."""
    if this_machine().name == machine:
        hang(mark)
    wait_for(mark.exists, f"nothing was done on machine {machine}, which is to be killed")


def hang_once(share: Path, mark: Path, title: str, folder: Path) -> None:
    """Hang when the share holds a whole checkpoint of this stage, on the first machine that comes here."""
    if not mark.exists():
        listed = f"checkpoints/*-{folder.name}/files.json"
        wait_for(lambda: list(share.glob(listed)), f"no checkpoint of {title} came to the share")
        hang(mark)


def test_a_run_whose_machine_is_killed_ends_with_the_bytes_of_one_process(
    machines: Machines, recipe: Recipe, alone: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
    machines.add("b")
    place, mark = tmp_path / "spread", tmp_path / "mark"
    trainings = ("train teacher resnet10t", "train small on labels", "train other on labels")
    with on_cluster(machines.cluster.address) as (ray, threads), machines.losing(mark):
        assert threads == 1
        workspace = spread_by_files(ray, recipe, Workspace(place), silent, threads)
        interrupt(monkeypatch, workspace, trainings, partial(hang_on, "b", mark))
        _, published = pipeline.run(recipe, workspace, silent, threads)
    assert not workspace.failed
    assert "b" not in machines.nodes  # one of the trainings that ran beside each other was on it
    assert rows_of(published) == rows_of(alone[1])
    mine, theirs = files(place), files(alone[0])
    assert len(mine) > 20
    assert mine == theirs
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    assert "failed: its worker was lost" in logs
    # What one machine made was read by another from its own folder, never from this one.
    for name in ("a", "b"):
        assert list((machines.folder / name / "workspaces").glob("*/artifacts/*"))
    assert list((machines.folder / "a" / "files").iterdir())


def disturbed(machines: Machines, one: Recipe, title: str, tmp_path: Path) -> tuple[Path, str]:
    """Do a recipe's trainings and search, and take the machine of a stage away when it left a checkpoint in the share.

    Gives the workspace, and what the logs hold.
    """
    extra = tmp_path.name
    machines.add(extra)
    place, share, mark = tmp_path / "spread", tmp_path / "share", tmp_path / "mark"
    with (
        on_cluster(machines.cluster.address) as (ray, threads),
        machines.losing(mark),
        pytest.MonkeyPatch.context() as patch,
    ):
        share_of_run = open_share(str(share))
        workspace = spread_by_files(ray, one, Workspace(place), silent, threads, share_of_run, checkpoint_s=0)
        interrupt(patch, workspace, [title], partial(hang_once, share, mark))
        go: Any = pipeline.search if one.searches else pipeline.distill
        go(one, workspace, silent, threads)
    killed = mark.read_text()
    if killed == "a":
        machines.add("a")
        machines.cluster.remove(machines.nodes.pop(extra))
    assert not workspace.failed
    assert not list(share.glob("checkpoints/*"))
    return place, "".join(path.read_text() for path in (place / LOGS).glob("*.log"))


def test_a_training_whose_machine_is_killed_goes_on_elsewhere_from_its_checkpoint(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    """Every file is that of a training that nobody disturbed, and the share holds no checkpoint at the end."""
    one = changed(recipe, teachers=[{**SMALL, "epochs": 6, "batch_size": 8}], baselines=[])
    pipeline.distill(one, Workspace(tmp_path / "alone"), silent, 1)
    place, logs = disturbed(machines, one, "train teacher resnet10t", tmp_path)
    assert re.search(r"attempt 2 of 3\n(?:.*\n)*?.*goes on from epoch-\d{5}, which another machine left", logs), logs
    mine, theirs = files(place), files(tmp_path / "alone")
    assert len(mine) > 4
    assert mine == theirs


def test_a_search_whose_machine_is_killed_goes_on_elsewhere_from_its_evaluations(
    machines: Machines, recipe: Recipe, tmp_path: Path
) -> None:
    one = searching(recipe, evaluations=40, strategy="default")
    pipeline.search(one, Workspace(tmp_path / "alone"), silent, 1)
    place, logs = disturbed(machines, one, "search mbconv_micro_w0.25", tmp_path)
    assert re.search(r"attempt 2 of 3\n(?:.*\n)*?.*goes on from checkpoint, which another machine left", logs), logs
    untimed = {"search_seconds": 0, "scoring_seconds": 0}
    found, undisturbed = (result_in(at)[0].model_copy(update=untimed) for at in (place, tmp_path / "alone"))
    assert found == undisturbed


def score_and_hang(task: Task, evaluation: Evaluation) -> Scored:
    """Score as a worker does, but on the machine that will be killed."""
    hang_on("doomed", this_machine().with_name(SCORING))
    return _score(task, evaluation)


def test_a_machine_is_killed_while_subnets_are_scored_and_the_order_replayed_without_workers(
    machines: Machines, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine was scoring is scored by the other one, and the recorded order gives the same result."""
    machines.add("doomed")
    place, mark, searched = tmp_path / "spread", machines.folder / SCORING, searching(recipe, parallel=3)
    monkeypatch.setattr(scoring, "score", score_and_hang)
    with on_cluster(machines.cluster.address) as (ray, threads), machines.losing(mark):
        workspace = spread_by_files(ray, searched, Workspace(place), silent, threads)
        there = pipeline.search(searched, workspace, silent, threads)
    found, file = result_in(place)
    assert sorted(found.order) == list(range(16))
    assert not found.failed
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    assert re.search(r"evaluation \d+ \(\w+\), attempt 1 of 3 failed: its worker was lost", logs)

    again = searching(recipe, parallel=3, replay=str(file))
    here = pipeline.search(again, Workspace(tmp_path / "alone"), silent, 1)
    assert here.found.winners == there.found.winners
    untimed = {"search_seconds": 0, "scoring_seconds": 0}
    mine, replayed = (result_in(at)[0].model_copy(update=untimed) for at in (place, tmp_path / "alone"))
    assert mine == replayed


# `tutelage` that is killed at the first progress message of a training.
KILLED = """
import os, re, signal
from tutelage.cli.app import main
from tutelage.cluster.tasks import Tasks
write = Tasks._write
def write_and_die(tasks, key, text):
    write(tasks, key, text)
    if re.search(r": [0-9]+/", text):
        os.kill(os.getpid(), signal.SIGKILL)
Tasks._write = write_and_die
main()
"""


def test_a_command_that_is_killed_goes_on_from_its_workspace(
    machines: Machines, recipe: Recipe, alone: tuple[Path, Any], tmp_path: Path
) -> None:
    place, written = tmp_path / "spread", tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    words = [
        *("run", str(written), "-w", str(place)),
        *("--cluster", machines.cluster.address, "--share", str(tmp_path / "share")),
    ]
    first = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    again = subprocess.run([sys.executable, "-m", "tutelage", *words], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    mine, theirs = files(place), files(alone[0])
    assert theirs.items() <= mine.items()
    assert len([path for path in (tmp_path / "share").rglob("*") if path.is_file()]) > 10
    assert not list((tmp_path / "share").glob("checkpoints/*"))  # of stages that are done
