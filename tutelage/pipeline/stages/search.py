"""Search the supernet under the recipe's budgets, measure the finalists, and keep as winners those that hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tutelage.bench.devices.profiles import load_latency_model
from tutelage.files import sha256_of
from tutelage.leaderboard.plots.curves import hypervolume_plot
from tutelage.leaderboard.plots.search import search_front_plot
from tutelage.pipeline.context import Context, Resources, derived_seed, run_stage
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.stage_inputs import FileInput, ImagesInput, Part, StageInputs, versions_of
from tutelage.pipeline.objectives import (
    ERROR,
    Subnets,
    int8_runtime,
    latency_name,
    named_objectives,
    objectives_by,
    objectives_of,
    read_objectives,
    upper_latency,
)
from tutelage.pipeline.workspace import Stage
from tutelage.quantities import number, size_in_bytes
from tutelage.records import Arch, Budget, DeviceProfile, InfeasibleBudgetError, InputError
from tutelage.search import loop as evolve
from tutelage.search.objectives import Objective, Problem
from tutelage.search.result import SearchResult
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.presets import place
from tutelage.search.spaces.space import Space, find_space

from .finalists import FIGURES, Measured, measure_finalists
from .quantization import Quantization, quantizers
from .supernet import Supernet
from .training import SupernetInput

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
    """Refuse bounds on MACs, parameters or bytes that no architecture meets, before a device is measured for them."""
    unscored = (Objective("error", "min", _not_scored, cheap=False),)
    Problem(space, unscored, dict(budget_of(ctx, ()).counted), ctx.num_classes, ctx.channels).check_bounds()


def check_budget(ctx: Context, space: Space, devices: Sequence[Device]) -> None:
    """Refuse a budget that no architecture meets, before anything is trained (InfeasibleBudgetError)."""
    objectives = objectives_of(read_objectives(ctx.recipe), devices, _not_scored)
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


class SearchedDevice(Part):
    """A device whose predicted latency is weighed: its objective, its latency model and the odds of a miss."""

    objective: str
    model: FileInput
    risk: float
    profile: DeviceProfile = Field(exclude=True)


class SearchInputs(StageInputs):
    """One search of a trained supernet under bounds."""

    STAGE: ClassVar[str] = "search"

    images: ImagesInput
    supernet: SupernetInput
    objectives: tuple[str, ...]
    devices: tuple[SearchedDevice, ...]
    bounds: dict[str, float]  # by objective
    strategy: str
    origin: str  # distribution and version of the plug-in that has the strategy; empty: built in
    evaluations: int
    num_finalists: int
    batch_size: int  # of the images that recalibrate BN
    calibration_batches: int
    int8: Quantization | None  # of `error@int8`
    int8_runtime: str
    seed: int

    @property
    def places(self) -> dict[str, str]:
        own = ("objectives", "strategy", "evaluations", "calibration_batches")
        return {
            **{name: f"search.{name}" for name in own},
            **{"num_finalists": "search.winners", "int8": "quantize", "batch_size": "supernet.batch_size"},
            **{"bounds": "the budget", "devices": "the latency model or risk of a device"},
        }


def search_inputs(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> SearchInputs:
    """Give what a search reads."""
    section, names = ctx.recipe.search, read_objectives(ctx.recipe)
    scored_int8 = any(one.int8 and one.figure == ERROR for one in names)
    runtime = int8_runtime(ctx.recipe, devices) if scored_int8 else ""
    strategy = STRATEGIES.find(section.strategy)
    libraries = ("torch", "ofa", "pymoo", "scikit-learn", *strategy.distributions)
    return SearchInputs(
        title=f"search {supernet.space.name}",
        versions=versions_of((*libraries, *(quantizers(runtime) if scored_int8 else ()))),
        images=ctx.images_input,
        supernet=supernet.part,
        objectives=tuple(one.name for one in names),
        devices=tuple(_searched(device) for device in devices),
        bounds=bounds_of(ctx, devices),
        strategy=section.strategy,
        origin=STRATEGIES.origin_name(section.strategy),
        evaluations=section.evaluations,
        num_finalists=section.winners * FINALISTS_PER_WINNER,
        batch_size=ctx.recipe.supernet.batch_size,
        calibration_batches=section.calibration_batches,
        int8=Quantization.of(ctx.recipe.quantize) if scored_int8 else None,
        int8_runtime=runtime,
        seed=ctx.recipe.seed,
    )


def search_stage(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> Stage:
    """Give the stage of a search, which files what it evaluated in `search.json`."""
    return run_stage(ctx, search_inputs(ctx, supernet, devices), _search)


def search_winners(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> Found:
    """Run the strategy, measure the finalists on every device in reach, and pick the winners by validation error."""
    stage = search_stage(ctx, supernet, devices)
    result = SearchResult.from_json(stage.folder / "search.json")
    if not result.finalists:
        raise InfeasibleBudgetError(
            f"none of the {len(result.evaluated)} architectures that were scored keeps every bound: "
            f"raise --evals (now {ctx.recipe.search.evaluations}) or a bound"
        )
    measured = measure_finalists(ctx, supernet, devices, _finalists(result))
    return _pick(ctx, result, devices, budget_of(ctx, devices), measured, stage.folder)


def _search(inputs: SearchInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Run the strategy and file what it evaluated."""
    space = find_space(inputs.supernet.space).with_resolutions(inputs.supernet.resolutions)
    subnets = Subnets(here, inputs.supernet, inputs.batch_size, inputs.calibration_batches, inputs.seed)
    how, runtime = inputs.int8, inputs.int8_runtime
    error = subnets.errors if how is None else lambda archs: subnets.int8_errors(archs, how, runtime)
    latencies = {
        one.objective: upper_latency(load_latency_model(one.profile, Path(one.model.path).parent), one.risk)
        for one in inputs.devices
    }
    initial = [space.smallest(), *presets_in(space).values(), space.largest()]  # a short search gets the first of them
    result = evolve.search(
        space,
        objectives_by(named_objectives(inputs.objectives), latencies, error),
        inputs.bounds,
        strategy=inputs.strategy,
        evaluations=inputs.evaluations,
        seed=derived_seed(inputs.seed, "search"),
        initial=initial,
        checkpoint=folder / "search.partial.json",
        num_classes=here.num_classes,
        in_channels=here.channels,
        num_finalists=inputs.num_finalists,
        progress=lambda done, total: here.report(inputs.title, done, total),
    )
    result.to_json(folder / "search.json")
    draw_search(result, folder)
    return {"file": "search.json"}


def _pick(
    ctx: Context,
    result: SearchResult,
    devices: Sequence[Device],
    budget: Budget,
    measured: Measured,
    folder: Path,
) -> Found:
    predicted = {device.name: _mean_latency(device)(_finalists(result)) for device in devices}
    kept, broke = [], 0
    for place_, arch in enumerate(_finalists(result)):
        p50, times, drift = ({name: values[arch.id][figure] for name, values in measured.items()} for figure in FIGURES)
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


def _searched(device: Device) -> SearchedDevice:
    model = device.folder / device.profile.latency_model
    if not model.is_file():
        raise InputError(f"{model} is missing: measure the device again with `tutelage device add {device.name}`")
    file = FileInput(sha256=sha256_of(model), path=str(model.absolute()))
    return SearchedDevice(objective=latency_name(device), model=file, risk=device.risk, profile=device.profile)


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
