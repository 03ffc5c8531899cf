"""Make a device profile: measure a block table and some whole nets in one session, fit the latency model, write both.

Enters: a runtime, a space, and callables that export an arch or a block to a model file. Leaves: `NAME.yaml` and
`NAME.latency.json` in a folder. Finding and reading profiles is in `profiles.py`, given on here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage.records import Arch, DeviceProfile, InputError, utc_now
from tutelage.search.counts import BlockSpec, block_specs
from tutelage.search.space import Space

from .features import count_features, design
from .host import cpu_model
from .latency import LatencyModel
from .measure import TOLERANCE, Job, Progress, TimedJobs, measure_jobs
from .profiles import (
    check_name,
    check_profile_values,
    find_profile,
    list_profiles,
    load_latency_model,
    profile_folders,
    read_profile,
    remove_profile,
    user_folder,
    write_profile,
)
from .runtimes import RunnerRuntime, find_runtime
from .worker import launch_local

__all__ = [
    "DeviceCheck", "block_table_specs", "check_profile", "find_profile", "list_profiles", "load_latency_model",
    "make_profile", "profile_folders", "read_profile", "remove_profile", "user_folder", "write_profile",
]  # fmt: skip

ExportArch = Callable[[Arch, Path], object]
ExportBlock = Callable[[BlockSpec, Path], object]

# Block models share processes, so that a hundred of them do not take a hundred times a runtime's memory.
BLOCKS_A_PROCESS = 24
# Random archs whose blocks make the table, until this many in a row bring nothing new.
_ARCHS_WITHOUT_NEWS = 200
# Candidates from which the nets to measure are chosen.
_POOL = 300
# Exporting many resolutions' blocks would take longer than the measurement is worth.
MAX_RESOLUTIONS = 4


def make_profile(
    name: str,
    runtime: str,
    *,
    threads: int = 1,
    batch: int = 1,
    precision: str = "fp32",
    space: Space,
    resolutions: Sequence[int],
    num_classes: int,
    in_channels: int,
    export: ExportArch,
    export_block: ExportBlock | None,
    folder: Path,
    minutes: float = 3.0,
    num_nets: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
    ssh: str = "",
    command: str = "",
    tolerance: float = TOLERANCE,
) -> DeviceProfile:
    """Measure a device, fit its latency model and write both into `folder`; returns the profile.

    `export(arch, path)` and `export_block(spec, path)` write a model file whose suffix says the format. Without
    `export_block` the model is fitted on counts alone and wants more nets. `minutes` bounds the rounds measured.
    Raises InputError for what cannot be run, UnsteadyDeviceError for a device that is not steady.
    """
    check_name(name)
    found = find_runtime(runtime)
    found.check(precision, here=not (ssh or command))
    sides = tuple(sorted(set(resolutions)))
    if not 1 <= len(sides) <= MAX_RESOLUTIONS:
        raise InputError(f"a profile covers 1 to {MAX_RESOLUTIONS} resolutions, got {list(sides)}")
    profile = DeviceProfile.from_dict(
        {"name": name, "runtime": runtime, "threads": threads, "batch": batch, "precision": precision,
         "host": ssh or "local", "command": command}
    )  # fmt: skip
    check_profile_values(profile)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tutelage-device-") as scratch:
        plan = _plan(space.with_resolutions(sides), num_classes, in_channels, num_nets, seed, export_block is not None)
        jobs = _export_all(plan, found, Path(scratch), batch, in_channels, export, export_block, progress)
        left = max(10.0, minutes * 60 - (time.monotonic() - start))
        timed = _measure_plan(jobs, profile, left, tolerance, seed, progress)
    blocks = {spec.key: _ms(timed, f"block {spec.key}") for spec in plan.blocks}
    nets = [_ms(timed, f"net {index}") for index in range(len(plan.nets))]
    model = LatencyModel.fit(plan.nets, nets, blocks=blocks, num_classes=num_classes, in_channels=in_channels)
    model.anchor_ms = timed.anchor_ms
    first = timed.measurements["net 0"]
    profile = DeviceProfile.from_dict(
        {
            **profile.to_dict(),
            "runtime_version": first.runtime_version,
            "effective_precision": first.effective_precision,
            "cpu_model": cpu_model() if profile.host == "local" and not command else "",
            "latency_model": f"{name}.latency.json",
            "spaces": (space.name,),
            "resolutions": sides,
            "steadiness": round(timed.unsteadiness, 5),
            "model_error": round(model.error, 5),
            "created": utc_now(),
        }
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    model.save(Path(folder) / profile.latency_model)
    write_profile(profile, folder)
    return profile


@dataclass(frozen=True)
class DeviceCheck:
    """What measuring a device again showed: the drift of its scale, and how far the model's predictions are off."""

    profile: DeviceProfile
    drift: float  # anchors now over anchors then, minus 1
    error: float  # mean relative error of the predictions on freshly measured nets, at the scale of then
    covered: float  # share of fresh nets inside their 90 % interval
    holds: bool


def check_profile(
    profile: DeviceProfile,
    folder: Path,
    *,
    space: Space,
    export: ExportArch,
    num_nets: int = 6,
    seed: int = 1,
    progress: Progress | None = None,
    max_drift: float = 0.15,
) -> DeviceCheck:
    """Measure some other nets and compare with the predictions. The profile holds if the scale and the errors do.

    Errors may be three times the model's own (at least 5 %) before the profile is said not to hold.
    """
    model = load_latency_model(profile, folder)
    rng = np.random.default_rng(seed)
    covered_space = space.with_resolutions(profile.resolutions)
    archs = covered_space.decode(covered_space.random(num_nets, rng))
    runtime = find_runtime(profile.runtime)
    with tempfile.TemporaryDirectory(prefix="tutelage-check-") as scratch:
        jobs: list[Job] = []
        for index, arch in enumerate(archs):
            path = Path(scratch) / f"net-{index}{runtime.suffixes[0]}"
            export(arch, path)
            jobs.append(Job(f"net {index}", path, (profile.batch, model.in_channels, arch.r, arch.r)))
        timed = _measure_plan(jobs, profile, 60.0, TOLERANCE, seed, progress, anchor_ms=model.anchor_ms)
    measured = np.array([_ms(timed, f"net {index}") for index in range(num_nets)])
    mean, low, high = model.predict(archs)
    drift = timed.anchor_ms / model.anchor_ms - 1 if model.anchor_ms else 0.0
    error = float(np.mean(np.abs(mean / measured - 1)))
    covered = float(np.mean((low <= measured) & (measured <= high)))
    holds = abs(drift) <= max_drift and error <= max(0.05, 3 * (profile.model_error or 0.0))
    return DeviceCheck(profile, drift, error, covered, holds)


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


@dataclass(frozen=True)
class _Plan:
    """What is to be measured."""

    nets: list[Arch]
    blocks: list[BlockSpec]


def _plan(space: Space, num_classes: int, in_channels: int, num_nets: int, seed: int, with_blocks: bool) -> _Plan:
    """Choose the nets by design among random ones, the smallest and the largest at the ends of the sizes included."""
    rng = np.random.default_rng(seed)
    pool = [space.smallest(), space.largest(), *space.decode(space.random(_POOL, rng))]
    chosen = design(*count_features(pool, num_classes, in_channels), num_nets, first=(0, 1))
    blocks = block_table_specs(space, num_classes, in_channels) if with_blocks else []
    return _Plan([pool[index] for index in chosen], blocks)


def _export_all(
    plan: _Plan,
    runtime: RunnerRuntime,
    scratch: Path,
    batch: int,
    in_channels: int,
    export: ExportArch,
    export_block: ExportBlock | None,
    progress: Progress | None,
) -> list[Job]:
    """Write every model of the plan; blocks share processes and do not decide about steadiness."""
    jobs: list[Job] = []
    total = len(plan.nets) + len(plan.blocks)
    for index, arch in enumerate(plan.nets):
        if progress:
            progress("exporting", len(jobs), total)
        path = scratch / f"net-{index}{runtime.suffixes[0]}"
        export(arch, path)
        jobs.append(Job(f"net {index}", path, (batch, in_channels, arch.r, arch.r)))
    for index, spec in enumerate(plan.blocks):
        if progress:
            progress("exporting", len(jobs), total)
        assert export_block is not None
        path = scratch / f"block-{index}{runtime.suffixes[0]}"
        export_block(spec, path)
        shape = (batch, spec.in_channels, spec.in_hw, spec.in_hw)
        jobs.append(Job(f"block {spec.key}", path, shape, group=f"blocks {index // BLOCKS_A_PROCESS}", judged=False))
    return jobs


def _measure_plan(
    jobs: Sequence[Job],
    profile: DeviceProfile,
    seconds: float,
    tolerance: float,
    seed: int,
    progress: Progress | None,
    anchor_ms: float | None = None,
) -> TimedJobs:
    """Measure within the time: the rounds of one try may take a third of it, as loading and a retry need the rest."""
    if profile.host != "local" or profile.command:
        from .remote import open_launcher

        with open_launcher(profile) as launcher:
            return measure_jobs(
                jobs, profile, rounds=24, samples=120, min_seconds=0.1, max_round_seconds=seconds / 3,
                tolerance=tolerance, anchor_ms=anchor_ms, progress=progress, seed=seed, launcher=launcher,
            )  # fmt: skip
    return measure_jobs(
        jobs, profile, rounds=24, samples=120, min_seconds=0.1, max_round_seconds=seconds / 3,
        tolerance=tolerance, anchor_ms=anchor_ms, progress=progress, seed=seed, launcher=launch_local,
    )  # fmt: skip


def _ms(timed: TimedJobs, name: str) -> float:
    value = timed.measurements[name].anchored_ms
    assert value is not None
    return value
