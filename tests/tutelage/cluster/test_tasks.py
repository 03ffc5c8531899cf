"""Every kind of task on workers of this host: deaths while a search scores, stages that fail three times, folds."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ray_cluster import patient
from tests.tutelage.cluster.small_run import SMALL, changed, files, result_in, rows_of, searching
from tutelage.bench.devices.profiles import write_profile
from tutelage.cluster import scoring
from tutelage.cluster.scoring import Scored
from tutelage.cluster.session import on_this_host
from tutelage.cluster.spread import LOGS, spread_over
from tutelage.cluster.task import Task
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import DeviceProfile
from tutelage.search.replies import Evaluation

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]
FATAL = 5  # the evaluation whose worker dies at every attempt
ONCE = (2, 9)  # those whose worker dies at the first one


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with patient(), on_this_host(2, 1) as started:
        yield started


def score_or_die(task: Task, evaluation: Evaluation) -> Scored:
    """Score as a worker does, but for an evaluation that no process survives and the first attempts of some."""
    died = task.workspace.with_name(f"died {evaluation.number}")
    if evaluation.number == FATAL or (evaluation.number in ONCE and not died.exists()):
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _score(task, evaluation)


_score = scoring.score


def test_workers_that_die_while_a_search_scores_and_its_order_replayed_without_workers(
    recipe: Recipe, ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, place = searching(recipe, parallel=3), tmp_path / "spread"
    monkeypatch.setattr(scoring, "score", score_or_die)
    searched = pipeline.search(recipe, spread_over(ray, recipe, Workspace(place), silent, 1), silent, 1)
    found, file = result_in(place)
    assert sorted(found.order) == list(range(16))
    assert list(found.failed) == [FATAL]
    assert "failed 3 times, the last time: its worker was lost (WorkerCrashedError)" in found.failed[FATAL]
    logs = "".join(path.read_text() for path in (place / LOGS).glob("*.log"))
    for number, times in ((FATAL, 3), *((one, 1) for one in ONCE)):
        lost = rf"evaluation {number} \(\w+\), attempt \d of 3 failed: its worker was lost"
        assert len(re.findall(lost, logs)) == times

    again = searching(recipe, parallel=3, replay=str(file))
    replayed = pipeline.search(again, Workspace(tmp_path / "alone"), silent, 1)
    assert replayed.found.winners == searched.found.winners
    same = [one.model_copy(update={"search_seconds": 0, "scoring_seconds": 0}) for one in
            (found, result_in(tmp_path / "alone")[0])]  # fmt: skip
    assert same[0] == same[1]


def test_a_search_on_a_worker_gives_the_file_of_one_process(recipe: Recipe, ray: Any, tmp_path: Path) -> None:
    recipe = searching(recipe, evaluations=8)
    pipeline.search(recipe, spread_over(ray, recipe, Workspace(tmp_path / "spread"), silent, 1), silent, 1)
    pipeline.search(recipe, Workspace(tmp_path / "alone"), silent, 1)
    mine, theirs = (json.loads(result_in(tmp_path / name)[1].read_text()) for name in ("spread", "alone"))
    for one in (mine, theirs):
        assert one.pop("search_seconds") > 0
        one.pop("scoring_seconds")
    assert mine == theirs
    assert len(list((tmp_path / "spread" / LOGS).glob("*.log"))) == 2  # supernet and search


def test_folds_on_workers_give_the_bytes_of_one_process(recipe: Recipe, ray: Any, tmp_path: Path) -> None:
    for fold in (0, 1):
        teachers = [{**SMALL, "epochs": 1, "batch_size": 8}]
        data = recipe.data.model_dump(mode="json") | {"folds": 3, "fold": fold}
        one = changed(recipe, data=data, teachers=teachers, baselines=[])
        spread = spread_over(ray, one, Workspace(tmp_path / "spread"), silent, 1)
        pipeline.distill(one, spread, silent, 1)
        pipeline.distill(one, Workspace(tmp_path / "alone"), silent, 1)
        assert not spread.failed
    mine, theirs = files(tmp_path / "spread"), files(tmp_path / "alone")
    assert len(mine) > 8
    assert mine == theirs


def die(*_: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was killed")


def test_each_kind_of_task_that_fails_three_times_is_reported_and_the_rest_goes_on(
    recipe: Recipe, ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.cluster.tasks._LOOK_S", 0.05)
    monkeypatch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
    monkeypatch.setenv("TUTELAGE_BOARD_WAIT", "0")
    place = Workspace(tmp_path)
    write_profile(DeviceProfile(name="far", runtime="onnxruntime", host="ray:nowhere"), place.path / "devices")
    teachers = [{**SMALL, "epochs": 1, "batch_size": 8}]
    baselines = [
        {**SMALL, "title": title, "options": {"channels": [4, 4, width, 8]}}
        for title, width in (("untrained", 4), ("unexported", 8), ("unquantized", 12), ("unexplained", 16))
    ]
    devices = [{"name": name, "runtime": "onnxruntime"} for name in ("box", "far")]
    recipe = changed(
        recipe, teachers=teachers, baselines=baselines, devices=devices, explain={"images": 2},
        distill={"epochs": 1, "batch_size": 8, "baselines": False},
    )  # fmt: skip
    dying = ("train untrained", "export unexported", "quantize unquantized", "explain unexplained")
    fatal = (*dying, "evaluate unquantized fp32")
    workspace = spread_over(ray, recipe, place, silent, 1)
    usual = workspace._tasks._task_of

    def task_of(stage: Foreseen) -> Task:
        dies = stage.inputs.title.startswith(fatal)
        return replace(usual(stage), compute=die) if dies else usual(stage)

    monkeypatch.setattr(workspace._tasks, "_task_of", task_of)
    _, published = pipeline.run(recipe, workspace, silent, 1)
    for title in fatal:
        (reason,) = (why for what, why in workspace.failed.items() if what.startswith(title))
        assert " failed 3 times, the last time: its worker was lost (WorkerCrashedError)" in reason
    assert "no board of the pool nowhere is up" in workspace.failed["measure on far"]
    assert len(workspace.failed) == len(fatal) + 1
    rows = {(row.model, row.teacher, row.scheme) for row in published.rows if row.device == "box"}
    assert {("unexplained", "", "fp32"), ("unexplained", "", "int8-ptq"),
            ("small", "resnet10t", "fp32"), ("resnet10t", "", "int8-ptq")} <= rows  # fmt: skip
    lost = {
        ("untrained", "fp32"),
        ("untrained", "int8-ptq"),
        ("unexported", "fp32"),
        ("unquantized", "fp32"),
        ("unquantized", "int8-ptq"),
    }
    assert not lost & {(model, scheme) for model, _, scheme in rows}
    assert all(row.latency_p50_ms for row in published.rows if row.device == "box")
    assert not any(row.latency_p50_ms for row in published.rows if row.device == "far")
    assert rows_of(published)
