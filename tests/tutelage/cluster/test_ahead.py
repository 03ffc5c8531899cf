"""The head of a run on workers: looks ahead, a slow cluster that is joined again, and what it waits for."""

import itertools
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.benchmarks.nothing_stage import NothingInputs, nothing
from tutelage.bench.boards import pool
from tutelage.bench.boards.address import STARTS
from tutelage.cluster import session, workspace
from tutelage.cluster.scoring import RemoteScorer, Scored
from tutelage.cluster.task import Outcome
from tutelage.cluster.tasks import Tasks
from tutelage.cluster.workspace import SpreadWorkspace
from tutelage.pipeline.keys.stage_inputs import Foreseen, Part
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import InputError, NotAvailableError, UnsteadyDeviceError


class Clock:
    """Seconds that pass when they are said to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class At(Part):
    """A device, by where it is."""

    host: str = "local"


class Timed(NothingInputs):
    """Stands for the timing of rows."""

    device: At = At()


class Finalists(NothingInputs):
    """Stands for the timing of a search's finalists."""

    devices: tuple[At, ...] = (At(), At())


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MeasureInputs", Timed), ("FinalistsInputs", Finalists)):
        monkeypatch.setattr(workspace, name, value)
    for name in ("_HERE", "_TIMED"):
        monkeypatch.setattr(workspace, name, (Timed, Finalists))


class Instant:
    """Stands for a cluster of two workers that needs half a second for what is going on."""

    def __init__(self, clock: Clock, disturbs: bool = True) -> None:
        self.clock, self.going, self.disturbs = clock, list[Foreseen](), disturbs

    @property
    def keys(self) -> set[str]:
        return {one.key for one in self.going}

    @property
    def num_free(self) -> int:
        return 2 - len(self.going)

    def disturb(self, hosts: list[str]) -> bool:
        return self.disturbs

    def submit(self, stage: Foreseen) -> None:
        self.going.append(stage)

    def wait(self) -> list[tuple[Foreseen, Outcome]]:
        self.clock.now += 0.5
        done, self.going = self.going, []
        return [(one, Outcome({"number": 1})) for one in done]


def test_a_look_ahead_takes_a_tenth_of_the_heads_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), list[float]()
    monkeypatch.setattr(workspace, "time", clock)
    tasks: Any = Instant(clock)
    spread = SpreadWorkspace(Workspace(tmp_path), tasks)

    def look() -> list[Foreseen]:
        looks.append(clock.now)
        clock.now += 1.0
        return []

    spread.look_ahead(look)
    for number in range(100):
        inputs = NothingInputs(title=f"nothing {number}", versions={}, number=number)
        spread.run(inputs, partial(nothing, inputs, None))
    assert len(looks) >= 3
    assert len(looks) <= 1 + clock.now / 10
    assert all(later - sooner >= 10 for sooner, later in itertools.pairwise(looks))


class Slow:
    """Stands for Ray where a cluster takes its time, or where it refuses."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.tries, self.ends = list(errors), 0, 0

    def init(self, **_: Any) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)

    def shutdown(self) -> None:
        self.ends += 1

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def is_initialized(self) -> bool:
        return False


def test_a_cluster_that_is_slow_is_joined_again_and_one_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(TimeoutError("timed out"), TimeoutError("it timed out, too"))
    monkeypatch.setattr(session, "load_ray", lambda: slow)
    with session.on_cluster("auto"):
        assert (slow.tries, slow.ends) == (3, 2)
    assert slow.ends == 3
    for errors, tries in (([TimeoutError("timed out")] * 4, STARTS), ([ConnectionError("no")] * 4, 1)):
        slow = Slow(*errors)
        monkeypatch.setattr(session, "load_ray", lambda found=slow: found)
        with pytest.raises(InputError, match=r"--cluster auto: no Ray cluster answers"), session.on_cluster("auto"):
            pass
        assert (slow.tries, slow.ends) == (tries, tries)


def test_a_client_that_the_head_could_not_start_is_tried_again_and_its_reason_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = (
        "Initialization failure from server:\nTraceback (most recent call last):\n  File proxier.py, line 772\n"
        "RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.\n"
    )
    slow = Slow(*[ConnectionAbortedError(said)] * STARTS)
    for module in (session, pool):
        monkeypatch.setattr(module, "load_ray", lambda: slow)
    reason = r"\(Initialization failure from server: RuntimeError: Starting Ray client server failed\. See .*\)"
    with pytest.raises(InputError, match=reason), session.on_cluster("auto"):
        pass
    assert slow.tries == STARTS
    slow.errors = [ConnectionAbortedError(said)]
    with pool.joined():
        assert slow.tries == STARTS + 2


class Handle:
    """Stands for what Ray gives: a remote function, an actor, or a reference."""

    def remote(self, *_: Any) -> Any:
        return Handle()

    def options(self, **_: Any) -> Any:
        return self

    take = property(lambda self: self)


class Lonely:
    """Stands for a cluster whose machines have left but for some; some looks later what was asked for is there."""

    exceptions = SimpleNamespace(GetTimeoutError=TimeoutError, RayError=ConnectionError)

    def __init__(self, machines: list[dict[str, float]], looks: int, answer: Any) -> None:
        self.machines, self.looks, self.answer = machines, looks, answer

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "Resources": one} for one in self.machines]

    def remote(self, **_: Any) -> Any:
        return lambda function: Handle()

    def put(self, value: Any) -> Any:
        return Handle()

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        self.looks -= 1
        return (references, []) if self.looks < 0 else ([], references)

    def get(self, reference: Any, **_: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("machines", "gpus", "words"),
    [
        ([], 0, r"has 2 CPUs \(none is up\): start one by `ray start --address=HEAD`"),
        ([{"CPU": 0.0, "device:pi4": 1.0}], 0, r"has 2 CPUs \(none is up\)"),
        ([{"CPU": 1.0}, {"CPU": 1.0}], 0, r"has 2 CPUs \(1 CPUs, 0 GPUs\)"),
        ([{"CPU": 8.0}], 1, r"has 2 CPUs and a GPU \(8 CPUs, 0 GPUs\)"),
        ([{"CPU": 8.0}], 0, ""),
        ([{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}], 1, ""),
    ],
)
def test_a_task_that_no_machine_could_take_is_said_once_a_minute(
    machines: list[dict[str, float]],
    gpus: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    monkeypatch.setattr(session, "time", clock)
    room = session.Room(Lonely(machines, 0, None))
    for _ in range(61):
        room.look("train it", 2, gpus)
        clock.now += 1.0
    assert len(caplog.records) == (2 if words else 0)
    assert re.search(words and f"train it waits: no machine of the cluster {words}", caplog.text)


def test_stages_and_evaluations_that_wait_for_a_machine_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ray: Any = Lonely([], 1, [])
    inputs, task = NothingInputs(title="nothing 1", versions={}, number=1), cast(Any, None)
    tasks = Tasks(ray, lambda stage: task, tmp_path, silent, 2)
    tasks.submit(Foreseen("key", inputs, cast(Any, nothing), None))
    assert tasks.wait() == []
    assert "nothing 1 waits: no machine of the cluster has 2 CPUs" in caplog.text

    ray = Lonely([], 2, Scored({"error": (0.5, 0.1)}))
    searched: Any = SimpleNamespace(inputs=SimpleNamespace(title="search it"))
    scorer = RemoteScorer(ray, searched, {"num_cpus": 1, "num_gpus": 1}, pytest.fail)
    scorer.submit(cast(Any, SimpleNamespace(number=3)))
    assert scorer.next() == (3, {"error": (0.5, 0.1)})
    assert caplog.text.count("search it waits: no machine of the cluster has 1 CPU and a GPU (none is up)") == 1


@pytest.mark.parametrize("error", [NotAvailableError("no board is up"), UnsteadyDeviceError("it drifts")])
def test_only_timing_the_rows_goes_on_without_its_device(tmp_path: Path, timed: None, error: Exception) -> None:
    """The finalists of a search must be timed; what is no fault of a device is raised."""
    tasks: Any = Instant(Clock())
    spread = SpreadWorkspace(Workspace(tmp_path), tasks)

    def fails(with_what: Exception) -> Any:
        def work(folder: Path) -> dict[str, Any]:
            raise with_what

        return work

    stage = spread.run(Timed(title="measure on box", versions={}, number=1), fails(error))
    assert stage.result == {}
    assert spread.lost(stage.key) == spread.failed["measure on box"] == f"measure on box failed: {error}"
    with pytest.raises(type(error)):
        spread.run(Finalists(title="measure finalists", versions={}, number=2), fails(error))
    with pytest.raises(ZeroDivisionError):
        spread.run(Timed(title="measure on box", versions={}, number=3), fails(ZeroDivisionError()))


@pytest.mark.parametrize("stage", [Timed, Finalists])
@pytest.mark.parametrize("disturbs", [True, False])
def test_workers_go_on_while_boards_are_timed_that_they_do_not_disturb(
    tmp_path: Path, timed: None, stage: type[NothingInputs], disturbs: bool
) -> None:
    tasks, going = Instant(Clock(), disturbs), list[int]()
    spread = SpreadWorkspace(Workspace(tmp_path), cast(Any, tasks))
    inputs = NothingInputs(title="train it", versions={}, number=1)
    spread._submit(Foreseen.of(spread.find(inputs)[0], inputs, partial(nothing, inputs, None), None))

    def time_it(folder: Path) -> dict[str, Any]:
        going.append(len(tasks.keys))
        return {}

    spread.run(stage(title="measure on it", versions={}, number=2), time_it)
    assert going == [0 if disturbs else 1]
    assert spread.run(inputs, partial(nothing, inputs, None)).result == {"number": 1}


def test_only_boards_on_machines_that_give_no_cpu_are_left_alone_by_tasks(tmp_path: Path) -> None:
    shelf = [{"CPU": 8.0}, {"CPU": 0.0, "device:pi4": 1.0}, {"CPU": 1.0, "device:pi5": 1.0}]
    tasks = Tasks(Lonely(shelf, 0, None), lambda stage: cast(Any, None), tmp_path, silent)
    found = {hosts: tasks.disturb(hosts) for hosts in (("ray:pi4",), ("ray:pi4", "local"), ("ray:pi5",), ("me@there",))}
    assert list(found.values()) == [False, True, True, True]
