"""Search the supernet under the recipe's budgets, measure the finalists, and keep as winners those that hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.protocol.measure import measure
from tutelage.leaderboard.plots.curves import hypervolume_plot
from tutelage.leaderboard.plots.search import search_front_plot
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device
from tutelage.pipeline.objectives import (
    INT8,
    calibration_places,
    export_int8,
    latency_name,
    objectives_of,
    read_objectives,
    scorer,
)
from tutelage.pipeline.runtime_files import network_file
from tutelage.quantities import number, size_in_bytes
from tutelage.records import Arch, Budget, InfeasibleBudgetError, InputError
from tutelage.search import loop as evolve
from tutelage.search.objectives import Objective, Problem
from tutelage.search.result import SearchResult
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.presets import place
from tutelage.search.spaces.space import Space
from tutelage.search.supernet import extract

from .supernet import Supernet

# What is kept of a finalist's measurement; the second is on the scale of the latency model's predictions.
_FIGURES = ("p50_ms", "anchored_ms", "drift")
# Finalists are measured three to a winner: published searches miss 1 in 4 latency budgets when measured again.
FINALISTS_PER_WINNER = 3
# The two pictures of a search.
FRONT, HYPERVOLUME = "search-front.png", "search-hypervolume.png"


@dataclass(frozen=True)
class Winner:
    """An architecture that kept every budget when it was measured again, with its validation figures.

    Latencies are by device. `measured_ms` is without the host's drift, the quantity that `predicted_ms` predicts and
    budgets bound; `p50_ms` is the raw median of the same samples. A device out of reach is in neither.
    """

    name: str
    arch: Arch
    error: float
    measured_ms: dict[str, float]
    p50_ms: dict[str, float]
    predicted_ms: dict[str, float]
    drift: dict[str, float | None]  # of the device since its profile was made; None: unknown

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "arch": self.arch.to_dict()}


@dataclass(frozen=True)
class Found:
    """Result of the search stage: winners, how many finalists broke a budget, and the whole search."""

    winners: tuple[Winner, ...]
    broke: int
    finalists: int
    result: SearchResult
    folder: Path
    devices: tuple[Device, ...] = ()  # whose latency was an objective; one at int8 has its own profile

    def to_dict(self) -> dict[str, Any]:
        """Give what verifying the finalists came to, measured and predicted apart, as JSON-able values."""
        return {
            "winners": [winner.to_dict() for winner in self.winners],
            "finalists": self.finalists,
            "broke_budget": self.broke,
            "measured_on": [device.name for device in self.devices if device.reachable],
            "predicted_on": [device.name for device in self.devices if not device.reachable],
        }


def budget_of(ctx: Context, devices: Sequence[Device]) -> Budget:
    """Read the recipe's bounds: milliseconds on each device that has one, MACs, parameters and fp32 bytes."""
    section = ctx.recipe.search
    return Budget(
        latency_ms={device.name: device.max_latency_ms for device in devices if device.max_latency_ms is not None},
        macs=number(section.max_macs) if section.max_macs else None,
        params=number(section.max_params) if section.max_params else None,
        size_bytes=size_in_bytes(section.max_size) if section.max_size else None,
    )


def check_counted(ctx: Context, space: Space) -> None:
    """Refuse bounds on MACs, parameters or bytes that no architecture meets, before a device is measured for them.

    A strategy whose library is not installed is refused here too.
    """
    STRATEGIES.find(ctx.recipe.search.strategy).check()
    unscored = (Objective("error", "min", _not_scored, cheap=False),)
    Problem(space, unscored, dict(budget_of(ctx, ()).counted), ctx.num_classes, ctx.channels).check_bounds()


def check_budget(ctx: Context, space: Space, devices: Sequence[Device]) -> None:
    """Refuse a budget that no architecture meets, before anything is trained (InfeasibleBudgetError)."""
    objectives = objectives_of(ctx, devices, _not_scored)
    Problem(space, objectives, bounds_of(ctx, devices), ctx.num_classes, ctx.channels).check_bounds()


def _not_scored(archs: Sequence[Arch]) -> NDArray[np.float64]:
    raise AssertionError("checking bounds scores nothing")


def bounds_of(ctx: Context, devices: Sequence[Device]) -> dict[str, float]:
    """Give the budget as upper bounds by objective name."""
    names = {device.name: latency_name(device) for device in devices}
    budget = budget_of(ctx, devices)
    return {**budget.counted, **{names[name]: bound for name, bound in budget.latency_ms.items()}}


def presets_in(space: Space) -> dict[str, Arch]:
    """Place the published presets into the searched space; one of another width is named by its genes."""
    placed = {}
    for name, preset in space.family.presets.items():
        own = space.name.removesuffix("_stem1") == preset.space
        placed[name if own else f"{name} genes"] = place(preset, space, max(space.resolutions))
    return placed


def search_winners(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> Found:
    """Run the strategy, measure the finalists on every device in reach, and pick the winners by validation error."""
    section = ctx.recipe.search
    budget = budget_of(ctx, devices)
    inputs = {
        "supernet": supernet.key,
        "devices": [_device_key(device) for device in devices],
        "budget": budget.to_dict(),
        "search": section.model_dump(mode="json"),
        "seed": ctx.recipe.seed,
        "version": 2,  # draws under bounds are plain draws given the bounds; calibration weighs images, not batches
    }
    if any(one.int8 for one in read_objectives(ctx.recipe)):
        inputs["quantize"] = ctx.recipe.quantize.model_dump(mode="json")

    def work(folder: Path) -> dict[str, Any]:
        result = _search(ctx, supernet, devices, folder)
        result.to_json(folder / "search.json")
        draw_search(result, folder)
        return {"file": "search.json"}

    stage = ctx.workspace.stage(f"search {supernet.space.name}", inputs, work)
    result = SearchResult.from_json(stage.folder / "search.json")
    if not result.finalists:
        raise InfeasibleBudgetError(
            f"none of the {len(result.evaluated)} architectures that were scored keeps every bound: "
            f"raise --evals (now {section.evaluations}) or a bound"
        )
    verified = ctx.workspace.stage(
        "measure finalists",
        {"search": stage.key, "figures": list(_FIGURES)},
        lambda folder: _verify(ctx, supernet, devices, result, folder),
    )
    return _pick(ctx, result, devices, budget, verified.result, stage.folder)


def _search(ctx: Context, supernet: Supernet, devices: Sequence[Device], folder: Path) -> SearchResult:
    section = ctx.recipe.search
    space = supernet.space
    objectives = objectives_of(ctx, devices, scorer(ctx, supernet))
    initial = [space.smallest(), *presets_in(space).values(), space.largest()]  # a short search gets the first of them
    return evolve.search(
        space,
        objectives,
        bounds_of(ctx, devices),
        strategy=section.strategy,
        evaluations=section.evaluations,
        seed=ctx.seed("search"),
        initial=initial,
        checkpoint=folder / "search.partial.json",
        num_classes=ctx.num_classes,
        in_channels=ctx.channels,
        num_finalists=section.winners * FINALISTS_PER_WINNER,
        progress=lambda done, total: ctx.report(f"search {space.name}", done, total),
    )


def _verify(
    ctx: Context, supernet: Supernet, devices: Sequence[Device], result: SearchResult, folder: Path
) -> dict[str, Any]:
    """Measure the finalists, with their inherited weights, on every device in reach: figures by device and arch id.

    On a device that is weighed at int8 the files are quantized, as the students' will be. What is compared with a
    prediction or a budget is `anchored_ms`, on the scale of the anchors that the latency model was made with.
    """
    net = supernet.load(ctx)
    measured: dict[str, dict[str, dict[str, float | None]]] = {}
    converted = ctx.workspace.path / "cache" / "converted"
    for device in devices:
        if not device.reachable:
            ctx.report(f"finalists on {device.name}: predicted, not measured", 1, 1)
            continue
        by_side: dict[int, dict[str, Path]] = {}
        for arch in _finalists(result):
            if device.profile.precision == INT8:
                path = folder / f"{arch.id}.{INT8}.onnx"
                images, labels = ctx.split("train", arch.r)
                export_int8(ctx, extract(net, arch), arch.r, images[calibration_places(ctx, images, labels)], path)
            else:
                shape = (device.profile.batch, ctx.channels, arch.r, arch.r)
                path = network_file(extract(net, arch), device.profile.runtime, folder, arch.id, shape, converted)
            by_side.setdefault(arch.r, {})[arch.id] = path
        for side, models in by_side.items():
            found = measure(
                models,
                device.profile,
                (ctx.channels, side, side),
                samples=ctx.recipe.measure.samples,
                tolerance=ctx.recipe.measure.tolerance,
                anchor_ms=device.anchor_ms,
                progress=lambda text, done, total: ctx.report("measure finalists", done, total),
            )
            for arch_id, value in found.items():
                measured.setdefault(device.name, {})[arch_id] = {name: getattr(value, name) for name in _FIGURES}
    return {"measured": measured}


def _pick(
    ctx: Context,
    result: SearchResult,
    devices: Sequence[Device],
    budget: Budget,
    verified: dict[str, Any],
    folder: Path,
) -> Found:
    measured: dict[str, dict[str, dict[str, Any]]] = verified["measured"]
    predicted = {device.name: _mean_latency(device)(_finalists(result)) for device in devices}
    kept, broke = [], 0
    for place_, arch in enumerate(_finalists(result)):
        p50, times, drift = (
            {name: values[arch.id][figure] for name, values in measured.items()} for figure in _FIGURES
        )
        # A device out of reach is not in `times`: the search held its budget on the end of the predicted interval.
        if any(times[name] > bound for name, bound in budget.latency_ms.items() if name in times):
            broke += 1
            continue
        guess = {name: float(values[place_]) for name, values in predicted.items()}
        kept.append(Winner(f"ofa-{arch.id[:6]}", arch, _error(result, arch), times, p50, guess, drift))
    if not kept:
        raise InfeasibleBudgetError(
            f"all {broke} finalists break the latency budget when measured again "
            f"({', '.join(f'{name} {bound:.3g} ms' for name, bound in budget.latency_ms.items())}): raise it, "
            "or measure the device again with `tutelage device check`"
        )
    kept.sort(key=lambda winner: (winner.error, winner.arch.id))
    chosen = tuple(kept[: ctx.recipe.search.winners])
    return Found(chosen, broke, len(_finalists(result)), result, folder, tuple(devices))


def _finalists(result: SearchResult) -> list[Arch]:
    return [result.evaluated[index].arch for index in result.finalists]


def _error(result: SearchResult, arch: Arch) -> float:
    """Give the one scored objective: `error`, or `error@int8`."""
    return next(next(iter(row.measured.values())) for row in result.evaluated if row.arch == arch)


def _mean_latency(device: Device) -> Callable[[Sequence[Arch]], NDArray[np.float64]]:
    return lambda archs: device.model.predict(archs)[0]


def _device_key(device: Device) -> dict[str, Any]:
    model = device.folder / device.profile.latency_model
    if not model.is_file():
        raise InputError(f"{model} is missing: measure the device again with `tutelage device add {device.name}`")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return {"profile": device.profile.to_dict(), "model": digest, "risk": device.risk}


def draw_search(result: SearchResult, folder: Path) -> tuple[Path, Path]:
    """Draw both pictures into a folder and give their paths; costs are the objectives that were not scored."""
    front, volume = folder / FRONT, folder / HYPERVOLUME
    scored = next(name for name, cheap in result.cheap.items() if not cheap)
    search_front_plot(
        [row.value(scored) for row in result.evaluated],
        {name: [row.value(name) for row in result.evaluated] for name, cheap in result.cheap.items() if cheap},
        front,
        within=[row.feasible for row in result.evaluated],
        finalists=result.finalists,
        bounds=result.bounds,
        error_name=f"{scored}, validation",
    )
    hypervolume_plot({result.strategy: result.hypervolume}, volume)
    return front, volume
