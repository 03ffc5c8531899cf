"""Fit a latency model to a device by measuring blocks once and a few whole nets in several sessions: `calibrate`.

The result is a `Calibration`: the model, the measured nets and the noise of their times. Every session loads every net
again: the same file takes another time in another process (where its weights lie in memory), and only fresh loads
average that out.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.protocol.anchors import NUM_ANCHORS
from tutelage.bench.protocol.measure import Job, Progress, TimedJobs, measure_jobs
from tutelage.bench.protocol.remote import launcher_of
from tutelage.bench.protocol.worker import Reached
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.records import Arch, DeviceProfile, InputError, UnsteadyDeviceError
from tutelage.search.costs.counts import BlockSpec, block_specs
from tutelage.search.spaces.space import Space

from .blocks import chosen_blocks, completed_table
from .features import count_features, design, typical
from .model import LatencyModel
from .sessions import session_noise

Floats = NDArray[np.float64]
ExportArch = Callable[[Arch, Path], object]
ExportBlock = Callable[[BlockSpec, Path], object]

# Block models run in shared processes: a process each would multiply the runtime's memory by a hundred.
BLOCKS_A_PROCESS = 24
# Random archs whose blocks make the table, until this many in a row bring nothing new.
_ARCHS_WITHOUT_NEWS = 200
# Candidates from which the nets to measure are chosen, and how many are added where the error is not small yet.
_POOL = 300
_STEP = 4
MIN_SESSIONS, MAX_SESSIONS = 2, 12
_ROUNDS, _SAMPLES, _MIN_SECONDS = 24, 120, 0.1
# Copies of a net that loads slowly (OpenVINO: 200 ms) cost as much as timing it, and the next session loads it anew.
_COPIED_LOAD_MS = 100.0


@dataclass(frozen=True)
class Calibration:
    """A fitted model and what it was fitted on; `held_out_ms` are the labels of nets that the fit never saw."""

    model: LatencyModel
    nets: list[Arch]
    net_ms: Floats
    held_out_ms: Floats
    label_noise: float  # relative standard error of a label: standard deviation over its sessions / sqrt(their number)
    unsteadiness: float  # the same of the worst net but 5 %
    sessions: int
    seconds: float
    timed: TimedJobs  # the first session
    own_seconds: float = 0.0  # without the time of the held-out nets, which a device that is only added does not need
    held_out_noise: float = math.nan  # as `label_noise`, of the held-out nets only: no model can do better


def calibrate(
    profile: DeviceProfile,
    space: Space,
    *,
    num_classes: int,
    in_channels: int,
    export: ExportArch,
    export_block: ExportBlock | None,
    minutes: float = 3.0,
    num_nets: int = 10,
    max_nets: int = 10,
    small_error: float = 0.02,
    tolerance: float = math.inf,
    held_out: Sequence[Arch] = (),
    typical_nets: bool = False,
    all_blocks: bool = False,
    kept: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Measure and fit until the held-out error is known to be small, or until the time is over.

    Starts with `num_nets` nets chosen by design; while the error (plus its standard error) is above `small_error`,
    four nets are added, those with the widest prediction interval, up to `max_nets`. `space` has the resolutions.
    Without `export_block` the model is fitted on counts only and needs more nets. `held_out` nets are measured
    beside them, in time that is not counted as the model's. Converted files (LiteRT, ncnn) are kept in `kept`.
    `typical_nets`: in place of a design's extremes, for a model that is transferred.
    `all_blocks`: the whole table is measured, and no block computed from others.
    Raises UnsteadyDeviceError if labels are still off by more than `tolerance` (95 % of them within it) at the end.
    """
    with launcher_of(profile) as launcher:
        return _calibrate(
            profile, space, launcher, num_classes=num_classes, in_channels=in_channels, export=export,
            export_block=export_block, minutes=minutes, num_nets=num_nets, max_nets=max_nets, small_error=small_error,
            tolerance=tolerance, held_out=held_out, typical_nets=typical_nets, all_blocks=all_blocks,
            kept=kept, seed=seed, progress=progress,
        )  # fmt: skip


def _calibrate(
    profile: DeviceProfile,
    space: Space,
    launcher: Reached,
    *,
    num_classes: int,
    in_channels: int,
    export: ExportArch,
    export_block: ExportBlock | None,
    minutes: float,
    num_nets: int,
    max_nets: int,
    small_error: float,
    tolerance: float,
    held_out: Sequence[Arch],
    typical_nets: bool,
    all_blocks: bool,
    kept: Path | None,
    seed: int,
    progress: Progress | None,
) -> Calibration:
    """Calibrate over one way to the device, which keeps what was copied there from one session to the next."""
    clock = _Clock(minutes * 60, time.monotonic())
    rng = np.random.default_rng(seed)
    pool = [space.smallest(), space.largest(), *space.decode(space.random(_POOL, rng))]
    features = count_features(pool, num_classes, in_channels)
    chosen = typical(*features, num_nets) if typical_nets else design(*features, num_nets, first=(0, 1))
    specs = block_table_specs(space, num_classes, in_channels) if export_block else []
    timed_specs = specs if all_blocks else chosen_blocks(specs)
    with tempfile.TemporaryDirectory(prefix="tutelage-device-") as scratch:
        expected = len(chosen) + len(held_out) + len(timed_specs)
        files = _Files(Path(scratch), profile, in_channels, export, export_block, progress, expected, kept)
        held = [files.net(arch, f"held {index}") for index, arch in enumerate(held_out)]
        clock.lend(time.monotonic() - clock.start)
        blocks = files.blocks(timed_specs)
        log_ms: list[dict[str, float]] = []
        first: TimedJobs | None = None
        while True:
            begun = time.monotonic()
            jobs = [files.net(pool[index], f"net {index}") for index in chosen] + held + (blocks if not log_ms else [])
            files.convert()
            if not log_ms:  # some formats take minutes to make: half of the time is for measuring all the same
                clock.seconds += max(0.0, clock.seconds / 2 - clock.left())
            # Nets loaded first measure slower: each session has another order, and the first one's anchor scale.
            jobs = [jobs[index] for index in rng.permutation(len(jobs))]
            anchor_ms = first.anchor_ms if first else None
            seconds = max(5.0, clock.left() / 2)
            timed = _session(jobs, profile, seconds, seed + len(log_ms), progress, anchor_ms, launcher)
            if first is None:
                first = timed
                table = completed_table(specs, {spec.key: _ms(timed, f"block {spec.key}") for spec in timed_specs})
            log_ms.append({job.name: math.log(_ms(timed, job.name)) for job in jobs if job.must_be_steady})
            took = clock.share(begun, len(held) / (len(jobs) + NUM_ANCHORS))
            labels, noise = combine_sessions(log_ms)
            nets, net_ms = [pool[i] for i in chosen], np.array([labels[f"net {i}"] for i in chosen])
            model = LatencyModel.fit(nets, net_ms, blocks=table, num_classes=num_classes, in_channels=in_channels)
            unsteadiness = float(np.percentile(list(noise.values()), 95)) if len(log_ms) > 1 else math.inf
            small = model.error + model.error_se <= small_error and unsteadiness <= tolerance
            if len(log_ms) >= MIN_SESSIONS:
                if small or clock.left() < took or len(log_ms) >= MAX_SESSIONS:
                    break
                chosen += _unsure(model, pool, chosen, min(_STEP, max_nets - len(chosen)))
    _check_steady(unsteadiness, tolerance, len(log_ms))
    held_ms, model.anchor_ms = np.array([labels[job.name] for job in held]), first.anchor_ms
    model.session = session_noise(log_ms)
    seconds = time.monotonic() - clock.start
    return Calibration(
        model, nets, net_ms, held_ms, _typical(noise.values()), unsteadiness, len(log_ms), seconds, first,
        seconds - clock.lent, _typical(noise[job.name] for job in held),
    )  # fmt: skip


@dataclass
class _Clock:
    """The seconds a calibration may take, and those that are lent: spent on what does not count as its own."""

    seconds: float
    start: float
    lent: float = 0.0

    def left(self) -> float:
        return self.start + self.seconds + self.lent - time.monotonic()

    def lend(self, seconds: float) -> None:
        self.lent += max(0.0, seconds)

    def share(self, begun: float, lent: float) -> float:
        """Lend the fraction `lent` of the time since `begun`; returns the seconds that remain the calibration's own."""
        took = time.monotonic() - begun
        self.lend(took * lent)
        return took * (1 - lent)


def _check_steady(unsteadiness: float, tolerance: float, sessions: int) -> None:
    if unsteadiness > tolerance:
        raise UnsteadyDeviceError(
            f"not steady: after {sessions} sessions the nets' times are known to {unsteadiness:.1%} at p95 "
            f"(allowed {tolerance:.0%}): quiet the host and try again, or give it more minutes"
        )


def _typical(errors: Iterable[float]) -> float:
    """Give the root mean square of standard errors, nan of none."""
    squares = [error**2 for error in errors]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


def measure_nets(
    profile: DeviceProfile,
    archs: Sequence[Arch],
    *,
    in_channels: int,
    export: ExportArch,
    anchor_ms: float | None = None,
    seconds: float = 20.0,
    kept: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[TimedJobs, Floats]:
    """Measure whole nets once, in one session; returns it and their times in ms, on the scale of `anchor_ms`."""
    with tempfile.TemporaryDirectory(prefix="tutelage-nets-") as scratch:
        files = _Files(Path(scratch), profile, in_channels, export, None, progress, len(archs), kept)
        jobs = [files.net(arch, f"net {index}") for index, arch in enumerate(archs)]
        files.convert()
        timed = _session(jobs, profile, seconds, seed, progress, anchor_ms)
    return timed, np.array([_ms(timed, job.name) for job in jobs])


def combine_sessions(log_ms: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Average each net's log time over the sessions it was in; returns ms and relative standard errors by name.

    The effect that all nets of a session have in common is removed by its median.
    """
    names = list(dict.fromkeys(name for session in log_ms for name in session))
    table = np.array([[session.get(name, np.nan) for session in log_ms] for name in names])
    shift = np.zeros(len(log_ms))
    for _ in range(20):
        level = np.nanmean(table - shift, axis=1)
        shift = np.nanmedian(table - level[:, None], axis=0)
        shift -= shift.mean()
    residual = table - shift - level[:, None]
    count = np.isfinite(table).sum(axis=1)
    # One pooled spread: two or three sessions of one net say little about its own.
    freedom = max(1.0, float((count - 1).sum()) * (1 - 1 / len(names)))
    pooled = math.sqrt(float(np.nansum(residual**2)) / freedom)
    own = np.sqrt(np.nansum(residual**2, axis=1) / np.maximum(count - 1, 1))
    errors = np.sqrt((own**2 + pooled**2) / 2) / np.sqrt(count)
    return dict(zip(names, np.exp(level).tolist(), strict=True)), dict(zip(names, errors.tolist(), strict=True))


def block_table_specs(space: Space, num_classes: int, in_channels: int) -> list[BlockSpec]:
    """List every distinct block of a space at its resolutions: drawn from archs until no new one appears."""
    rng = np.random.default_rng(0)
    specs: dict[str, BlockSpec] = {}
    for side in space.resolutions:
        here = space.with_resolutions((side,))
        quiet = 0
        archs = [here.smallest(), here.largest()]
        while quiet < _ARCHS_WITHOUT_NEWS:
            for arch in archs:
                before = len(specs)
                for spec in block_specs(arch, num_classes, in_channels):
                    specs.setdefault(spec.key, spec)
                quiet = 0 if len(specs) > before else quiet + 1
            archs = here.decode(here.random(50, rng))
    return list(specs.values())


@dataclass
class _Files:
    """The model files of a calibration, each exported once, as the jobs that time them."""

    folder: Path
    profile: DeviceProfile
    in_channels: int
    export: ExportArch
    export_block: ExportBlock | None
    progress: Progress | None
    total: int  # how many are expected, for the progress report
    kept: Path | None = None  # where conversions are kept for the next time
    jobs: dict[str, Job] = field(default_factory=dict)
    unconverted: list[tuple[Path, Job]] = field(default_factory=list)

    def net(self, arch: Arch, name: str) -> Job:
        """Export a whole net."""
        if name not in self.jobs:
            path = self._path()
            self.export(arch, path)
            self._add(path, Job(name, path, (self.profile.batch, self.in_channels, arch.r, arch.r)))
        return self.jobs[name]

    def blocks(self, specs: Sequence[BlockSpec]) -> list[Job]:
        """Export the table's blocks; they run in shared processes and do not count for steadiness."""
        jobs = []
        for index, spec in enumerate(specs):
            assert self.export_block is not None
            path = self._path()
            self.export_block(spec, path)
            shape = (self.profile.batch, spec.in_channels, spec.in_hw, spec.in_hw)
            group = f"blocks {index // BLOCKS_A_PROCESS}"
            jobs.append(self._add(path, Job(f"block {spec.key}", path, shape, group, must_be_steady=False)))
        return jobs

    def convert(self) -> None:
        """Bring what was exported since into the runtime's own format, all at once: starting a converter is slow."""
        if not self.unconverted:
            return
        from tutelage.bench.converters.conversion import Conversion
        from tutelage.bench.converters.convert import convert

        def done(number: int, total: int) -> None:
            if self.progress:
                self.progress("converting", number, total)

        conversions = [Conversion(path, job.path, job.shape) for path, job in self.unconverted]
        convert(find_runtime(self.profile.runtime), conversions, self.kept, done)
        self.unconverted.clear()

    def _path(self) -> Path:
        if self.progress:
            self.progress("exporting", len(self.jobs), max(self.total, len(self.jobs) + 1))
        runtime = find_runtime(self.profile.runtime)
        suffix = runtime.exported if runtime.converter else runtime.suffixes[0]
        return self.folder / f"model-{len(self.jobs)}{suffix}"

    def _add(self, exported: Path, job: Job) -> Job:
        if exported.suffix != self._suffix():
            job = replace(job, path=exported.with_suffix(self._suffix()))
            self.unconverted.append((exported, job))
        self.jobs[job.name] = job
        return job

    def _suffix(self) -> str:
        return find_runtime(self.profile.runtime).suffixes[0]


def _unsure(model: LatencyModel, pool: Sequence[Arch], chosen: Sequence[int], num: int) -> list[int]:
    """Choose the nets whose predicted intervals are the widest for their time, well apart from each other."""
    if num <= 0:
        return []
    mean, low, high = model.predict(pool)
    order = np.argsort(-(high - low) / mean)
    # The widest few hundred are much alike: take them at a stride through the widest third.
    fresh = [int(index) for index in order if index not in chosen][: len(pool) // 3]
    return fresh[:: max(1, len(fresh) // num)][:num]


def _session(
    jobs: Sequence[Job],
    profile: DeviceProfile,
    seconds: float,
    seed: int,
    progress: Progress | None,
    anchor_ms: float | None = None,
    launcher: Reached | None = None,
) -> TimedJobs:
    """Measure every job once more, freshly loaded; steadiness is computed over the sessions, not in this one."""
    return measure_jobs(
        jobs, profile, rounds=_ROUNDS, samples=_SAMPLES, min_seconds=_MIN_SECONDS, max_round_seconds=seconds,
        tolerance=math.inf, anchor_ms=anchor_ms, progress=progress, seed=seed, copied_load_ms=_COPIED_LOAD_MS,
        launcher=launcher,
    )  # fmt: skip


def _ms(timed: TimedJobs, name: str) -> float:
    value = timed.measurements[name].anchored_ms
    if value is None:
        raise InputError(f"{name} was not measured")
    return value
