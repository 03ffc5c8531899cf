"""Measure latency, memory and energy of models on a device by the interleaved protocol of this project: `measure`.

Every model runs in its own process, which sleeps while others are measured, as does the parent. In many short
rounds, each in a new order, every model and a few fixed anchor nets run a few inferences; input is from
memory. Drift of the host then affects all equally: a two-way median polish (model x round) removes it, and the anchors
carry the scale from one session to the next. Raw samples are kept. The rounds' two halves must agree; if they do not,
the measurement is tried again, at most five times, and then refused.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.boards.pool import on_boards
from tutelage.bench.converters.conversion import size_bytes
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.records import (
    DeviceProfile,
    DeviceState,
    InputError,
    Measurement,
    NotAvailableError,
    TurnReport,
    UnsteadyDeviceError,
    utc_now,
)  # fmt: skip

from .anchors import NUM_ANCHORS, STREAMING, Seat, anchor_names, seat_models
from .drift import THROTTLED, effects_of, halves_apart, slowdown
from .energy import Energy, measure_energy
from .host import load_average
from .lines import LostDeviceError, ModelRefusedError, RefusedError, WorkerError
from .remote import check_processor, check_reachable, launcher_of
from .worker import Board, ModelFile, Reached, Runner, launch_local, start_workers, stop_workers

Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# As MLPerf Mobile: two results within 5 % in at most five tries.
TOLERANCE = 0.05
MAX_TRIES = 5
WARM_SECONDS = 1.0
# A model of a millisecond would otherwise be over in a tenth of a second, within one state of the host.
MIN_SECONDS = 0.3
# A model of 20 microseconds would otherwise give ten thousand samples in the minimum time.
MAX_REPEATS = 32
MIN_ROUNDS = 8
# Inferences that are not counted each time, this long but no more than so many: after another model ran, the weights
# come from memory again (docs/measuring.md has the figures of this and of the copies).
SETTLE_MS = 12.0
MAX_SETTLE = 8
# Where its weights come to lie makes a small net faster or slower for as long as it is loaded. So a model with a
# process of its own is loaded several times and the copies alternate; large models (memory) and slow loaders are not.
COPIES = 4
COPIED_BYTES = 32 << 20
COPIED_LOAD_MS = 1500.0


@dataclass(frozen=True)
class Job:
    """One model to time: its file, its input `(batch, channels, height, width)` and its process group."""

    name: str
    path: Path
    shape: tuple[int, ...]
    group: str = ""  # models of one named group share a process; empty: a process of its own
    must_be_steady: bool = True  # whether its steadiness counts for the acceptance of the measurement


@dataclass(frozen=True)
class TimedJobs:
    """Results of a session: a measurement a job, and the relative difference of the two halves of its rounds."""

    measurements: dict[str, Measurement]
    unsteadiness: float
    anchor_ms: float
    tries: int
    cpu_model: str  # of the host that ran them
    system: str = ""  # its operating system


def measure(
    models: Mapping[str, Path],
    device: DeviceProfile,
    input_shape: tuple[int, int, int],
    *,
    rounds: int = 30,
    samples: int = 120,
    min_seconds: float | None = None,
    tolerance: float | None = None,
    anchor_ms: float | None = None,
    progress: Progress | None = None,
    workdir: Path | None = None,
    seed: int = 0,
    launcher: Reached | None = None,
) -> dict[str, Measurement]:
    """Measure model files on a device, single-stream at the profile's batch, threads and precision.

    `input_shape` is `(channels, height, width)`; each model gives at least `samples` samples over `rounds` rounds and
    at least `min_seconds` (by default `MIN_SECONDS`) of inference. `anchor_ms`, what the anchor nets took in an earlier
    session, puts `anchored_ms` on that session's scale and gives the drift since; without it the drift is unknown.
    Raises InputError for what cannot be run or reached, UnsteadyDeviceError if five tries were not steady.
    """
    shape = (device.batch, *input_shape)
    jobs = [Job(name, Path(path), shape) for name, path in models.items()]
    return measure_jobs(
        jobs, device, rounds=rounds, samples=samples, min_seconds=min_seconds, tolerance=tolerance,
        anchor_ms=anchor_ms, progress=progress, workdir=workdir, seed=seed, launcher=launcher,
    ).measurements  # fmt: skip


def measure_jobs(
    jobs: Sequence[Job],
    device: DeviceProfile,
    *,
    rounds: int = 30,
    samples: int = 120,
    min_seconds: float | None = None,
    max_round_seconds: float = math.inf,
    tolerance: float | None = None,
    anchor_ms: float | None = None,
    progress: Progress | None = None,
    workdir: Path | None = None,
    seed: int = 0,
    launcher: Reached | None = None,
    copied_load_ms: float = COPIED_LOAD_MS,
) -> TimedJobs:
    """Measure jobs in one interleaved session; see `measure`. Over `max_round_seconds` a try takes fewer rounds.

    copied_load_ms: a small model that loads within this time is loaded `COPIES` times. launcher: a way to the device
    that is open already; default: the profile's, and of a pool another board where one leaves. tolerance, min_seconds:
    by default `TOLERANCE` and `MIN_SECONDS`.
    """
    check_reachable(device)

    def session() -> TimedJobs:
        with contextlib.nullcontext(launcher) if launcher else launcher_of(device, workdir) as reached:
            return _measure_jobs(
                jobs, device, reached, rounds=max(MIN_ROUNDS, rounds), samples=samples,
                min_seconds=MIN_SECONDS if min_seconds is None else min_seconds,
                max_round_seconds=max_round_seconds, anchor_ms=anchor_ms, progress=progress,
                tolerance=TOLERANCE if tolerance is None else tolerance,
                workdir=workdir, seed=seed, copied_load_ms=copied_load_ms,
            )  # fmt: skip

    return session() if launcher else on_boards(device, session)


def _measure_jobs(
    jobs: Sequence[Job],
    device: DeviceProfile,
    launcher: Reached,
    *,
    rounds: int,
    samples: int,
    min_seconds: float,
    max_round_seconds: float,
    tolerance: float,
    anchor_ms: float | None,
    progress: Progress | None,
    workdir: Path | None,
    seed: int,
    copied_load_ms: float,
) -> TimedJobs:
    runtime = find_runtime(device.runtime)
    local = launcher is launch_local
    if not jobs:
        raise InputError("nothing to measure: no model was given")
    for job in jobs:
        runtime.check(device.precision, job.path, here=local)
    before = load_average() if local else None
    with tempfile.TemporaryDirectory(dir=workdir, prefix="anchors-") as folder:
        wanted = [(job.group, ModelFile(str(job.path), job.shape)) for job in jobs]
        seats, groups = seat_models(wanted, runtime, launcher, Path(folder))
        workers = start_workers(
            groups, threads=device.threads, precision=device.precision, launcher=launcher
        )  # fmt: skip
        try:
            check_processor(device, workers[0].cpu, "the machine reached for it")
            session = _Session([job.name for job in jobs], seats, workers, progress, isinstance(launcher, Board))
            session.load(runtime.load_seconds)
            alone = [len(groups[seat.worker][1]) == 1 for seat in seats[: len(jobs)]]
            small = [own and size_bytes(job.path) <= COPIED_BYTES for own, job in zip(alone, jobs, strict=True)]
            session.copy([*small, *[True] * NUM_ANCHORS], runtime.load_seconds, copied_load_ms)
            state_before = session.state()
            repeats = session.repeats(rounds, samples, min_seconds)
            rounds = max(MIN_ROUNDS, int(min(rounds, max_round_seconds / session.round_seconds(repeats))))
            must_be_steady = [job.must_be_steady for job in jobs]
            log_ms, unsteadiness, tries = session.time_until_steady(must_be_steady, rounds, repeats, tolerance, seed)
            state_after = session.state()
            session.check_clock(log_ms, throttled=state_after is not None and bool(state_after.throttled))
            energy = session.energy(len(jobs), runtime.name)
        finally:
            stop_workers(workers)
    effects = effects_of(log_ms, session.when, must_be_steady, len(STREAMING))
    here = float(np.exp(effects[-len(STREAMING) :].mean()))  # these anchors' geometric mean
    scale = anchor_ms / here if anchor_ms else 1.0
    measurements = {
        job.name: Measurement(
            device=device.name,
            runtime=runtime.name,
            runtime_version=workers[seats[index].worker].version,
            threads=device.threads,
            batch=job.shape[0],
            precision=device.precision,
            effective_precision=session.effective[index],
            samples_ms=tuple(session.samples[index]),
            runs_a_sample=session.runs[index],
            reported=tuple(session.reports[index]),
            anchored_ms=float(np.exp(effects[index])) * scale,
            peak_rss_bytes=session.peak_bytes[index] if alone[index] else None,
            runtime_rss_bytes=workers[seats[index].worker].rss if alone[index] else None,
            load_ms=session.load_ms[index],
            energy_mj=None if (mj := energy.mj[index]) is None else mj / job.shape[0],
            energy_method="" if energy.mj[index] is None else energy.method,
            energy_missing=energy.missing,
            host_load_before=before,
            host_load_after=load_average() if local else None,
            drift=here / anchor_ms - 1 if anchor_ms else None,
            processor=workers[seats[index].worker].processor,
            power_state=workers[seats[index].worker].power_state,
            state_before=state_before,
            state_after=state_after,
            created=utc_now(),
        )
        for index, job in enumerate(jobs)
    }
    return TimedJobs(measurements, unsteadiness, here, tries, workers[0].cpu, workers[0].system)


class _Session:
    """The worker processes of one measurement and the samples that they gave."""

    def __init__(
        self,
        names: Sequence[str],
        seats: Sequence[Seat],
        workers: Sequence[Runner],
        progress: Progress | None,
        own_clock: bool = False,  # nobody else runs there: anchors that slow down are throttled
    ) -> None:
        self.names = [*names, *(f"anchor {name}" for name in anchor_names())]
        self.seats, self.workers = seats, workers
        self.samples: list[list[float]] = []
        self.runs = [1] * len(seats)  # inferences whose mean a sample is, where a program reports no single ones
        self.reports: list[list[TurnReport]] = [[] for _ in seats]
        self._own_clock = own_clock
        self.effective: list[str] = []
        self.load_ms: list[float | None] = []
        self.peak_bytes: list[int | None] = []
        self.when: Ints = np.empty((len(seats), 0), dtype=np.int64)  # position of each timing in the session
        self._typical: list[float] = []
        self._progress = progress or (lambda stage, done, total: None)

    def load(self, seconds: float) -> None:
        """Load each model within so many seconds, and warm it up."""
        for index, seat in enumerate(self.seats):
            self._progress("loading", index, len(self.seats))
            loaded = self._ask(index, {"do": "load", "model": seat.model}, timeout=seconds)
            self.effective.append(loaded["effective"])
            self.load_ms.append(loaded["load_ms"])
            warm = self._ask(index, {"do": "warm", "model": seat.model, "seconds": WARM_SECONDS}, timeout=120)
            self._typical.append(warm["ms"])
            self.peak_bytes.append(self._ask(index, {"do": "memory"}, timeout=60)["peak"])

    def copy(self, wanted: Sequence[bool], seconds: float, slowest_ms: float) -> None:
        """Load models again that load within `slowest_ms`, to be timed alternately with their first copy."""
        for index, several in enumerate(wanted):
            self._progress("loading copies", index, len(wanted))
            load_ms = self.load_ms[index]
            if several and load_ms is not None and load_ms <= slowest_ms:
                for _ in range(COPIES - 1):
                    self._ask(index, {"do": "copy", "model": self.seats[index].model}, timeout=seconds)

    def repeats(self, rounds: int, samples: int, min_seconds: float) -> list[int]:
        """Give each model's inferences a round: enough for the samples and the minimum time over all rounds."""
        enough = math.ceil(samples / rounds)
        long = [math.ceil(min_seconds * 1000 / rounds / max(ms, 1e-3)) for ms in self._typical]
        return [max(enough, min(each, MAX_REPEATS)) for each in long]

    def round_seconds(self, repeats: Sequence[int]) -> float:
        """Estimate one round in seconds, with uncounted first inferences and what a turn takes beside them."""
        counted = zip(self.seats, repeats, self._typical, strict=True)
        return sum(
            self.workers[seat.worker].turn_seconds + (each + _settle(ms)) * ms / 1000 for seat, each, ms in counted
        )

    def state(self) -> DeviceState | None:
        """Ask the device for its thermal state, governor, clock and power supply; None where it says nothing."""
        state = DeviceState.from_dict(self._ask(len(self.seats) - 1, {"do": "state"}, timeout=60))
        return None if state == DeviceState() else state

    def check_clock(self, log_ms: Floats, *, throttled: bool) -> None:
        """Refuse times of a clock that fell: the anchors slowed down on a device of its own, or one that says why."""
        slower = slowdown(log_ms[-len(STREAMING) :])
        if not (throttled or self._own_clock) or slower <= THROTTLED:
            return
        state = self.state()
        raise UnsteadyDeviceError(
            f"the device throttles: the anchor nets' times changed by {slower:.0%} within the session (allowed "
            f"{THROTTLED:.0%}{f'; {state.heat}' if state and state.heat else ''}): let it cool down, take it off the "
            "charger, close what runs there, and measure again"
        )

    def time_until_steady(
        self, must_be_steady: Sequence[bool], rounds: int, repeats: Sequence[int], tolerance: float, seed: int
    ) -> tuple[Floats, float, int]:
        """Time rounds until their halves agree. Returns the log times `(models, rounds)`, how far apart, the tries.

        A try that is not steady is not thrown away: the next adds as many rounds, and the halves of all are compared.
        The polish takes medians over rounds, so a burst of load in one try weighs less with every further one.
        """
        chosen = np.flatnonzero(np.array(must_be_steady))
        apart = math.inf
        log_ms = np.empty((len(self.seats), 0))
        self.when = np.empty((len(self.seats), 0), dtype=np.int64)
        self.samples = [[] for _ in self.seats]
        for attempt in range(1, MAX_TRIES + 1):
            more = self._rounds(rounds, repeats, np.random.default_rng((seed, attempt)), attempt)
            log_ms = np.concatenate([log_ms, more], axis=1)
            if self._own_clock:
                self.check_clock(log_ms, throttled=False)  # more rounds only make it hotter
            compared = [*range(len(must_be_steady)), *range(len(log_ms) - len(STREAMING), len(log_ms))]
            each = halves_apart(log_ms[compared], len(STREAMING))[chosen]
            apart = float(np.percentile(each, 95)) if len(each) else 0.0
            if apart <= tolerance:
                return log_ms, apart, attempt
        worst = self.names[int(chosen[int(np.argmax(each))])]
        raise UnsteadyDeviceError(
            f"not steady: after {MAX_TRIES} tries the two halves of the rounds still differ by {apart:.1%} at p95 "
            f"(worst {worst}, {each.max():.1%}; allowed {tolerance:.0%}): quiet the host and try again"
        )

    def energy(self, num: int, runtime: str) -> Energy:
        """Measure what an inference of each of the first `num` models takes, where it runs."""
        return measure_energy(
            self._typical[:num], _settle,
            resting=lambda what: self._ask(len(self.seats) - 1, {**what, "runtime": runtime}, timeout=60),
            busy=lambda index, repeats: self._request(index, repeats, do="energy", runtime=runtime),
        )  # fmt: skip

    def _rounds(self, rounds: int, repeats: Sequence[int], rng: np.random.Generator, attempt: int) -> Floats:
        num = len(self.seats)
        log_ms = np.empty((num, rounds))
        when = np.empty((num, rounds), dtype=np.int64)
        start = self.when.size
        stage = "measuring" if attempt == 1 else f"measuring, try {attempt}"
        for turn in range(rounds):
            self._progress(stage, turn, rounds)
            for place, index in enumerate(rng.permutation(num)):
                when[index, turn] = start + turn * num + place
                times = self._turn(int(index), repeats[index])
                self.samples[index] += times
                log_ms[index, turn] = np.log(np.median(times))
        self._progress(stage, rounds, rounds)
        self.when = np.concatenate([self.when, when], axis=1)
        return log_ms

    def _turn(self, index: int, repeats: int) -> list[float]:
        reply = self._request(index, repeats, do="time")
        times: list[float] = reply["ms"]
        self.runs[index] = reply.get("runs", 1)
        if "report" in reply:
            self.reports[index].append(TurnReport.from_dict(reply["report"]))
        return times

    def _request(self, index: int, repeats: int, **what: str) -> dict[str, Any]:
        settle = _settle(self._typical[index])
        # A hundred times the expected time is a hang, not noise.
        limit = max(30.0, 100 * repeats * self._typical[index] / 1000)
        return self._ask(
            index, {**what, "model": self.seats[index].model, "settle": settle, "repeats": repeats}, timeout=limit
        )

    def _ask(self, index: int, request: dict[str, object], timeout: float) -> dict[str, Any]:
        try:
            return self.workers[self.seats[index].worker].ask(request, timeout)
        except WorkerError as error:
            if isinstance(error, RefusedError):
                raise ModelRefusedError(self.names[index], str(error)) from error
            kind = NotAvailableError if isinstance(error, LostDeviceError) else InputError
            raise kind(f"cannot measure {self.names[index]}: {error}") from error


def _settle(typical_ms: float) -> int:
    """Give the number of uncounted inferences before a timing."""
    return max(1, min(MAX_SETTLE, math.ceil(SETTLE_MS / max(typical_ms, 1e-3))))
