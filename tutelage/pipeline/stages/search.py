"""Search the supernet under the recipe's budgets, measure the finalists, and keep as winners those that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tutelage.bench.devices.profiles import load_latency_model
from tutelage.files import sha256_of, write_json
from tutelage.leaderboard.plots.curves import hypervolume_plot
from tutelage.leaderboard.plots.search import search_front_plot, search_trials_plot
from tutelage.pipeline.context import Context, Resources, derived_seed, run_stage
from tutelage.pipeline.device import Device
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import (
    ComputedOn,
    FileInput,
    ImagesInput,
    Part,
    StageInputs,
    versions_of,
)
from tutelage.pipeline.objectives import (
    ERROR,
    Subnets,
    int8_runtime,
    latency_name,
    named_objectives,
    objectives_by,
    objectives_of,
    read_objectives,
    scored_name,
    upper_latency,
)
from tutelage.pipeline.sections import SearchSection
from tutelage.pipeline.workspace import CHECKPOINT, Stage
from tutelage.records import Arch, DeviceProfile, InfeasibleBudgetError, InputError
from tutelage.search import loop as evolve
from tutelage.search.family import Slicing
from tutelage.search.importances import parameter_importances
from tutelage.search.objectives import Objective, Problem, Scores
from tutelage.search.parallel import check_replay, search_in_parallel
from tutelage.search.result import SearchResult
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.space import Space, find_space

from .budgets import bounds_of, budget_of, not_scored
from .finalists import Measured, measure_finalists
from .quantization import Quantization, quantizers
from .seeds import seed_names
from .supernet import Supernet
from .training import SupernetInput
from .winners import ChosenWinners, Winner, choose_winners, slicing_of

# The two pictures of a search.
FRONT, HYPERVOLUME, TRIALS = "search-front.png", "search-hypervolume.png", "search-trials.png"
WINNERS = "search-winners.json"
RESULT = "search.json"


@dataclass(frozen=True)
class Found:
    """Result of the search stage: winners, how many finalists broke a budget, and the whole search."""

    choice: ChosenWinners
    result: SearchResult
    folder: Path
    devices: tuple[Device, ...]  # whose latency was an objective; one at int8 has its own profile
    slicing: Slicing
    drawn: Path  # the folder of the pictures

    @property
    def picture(self) -> Path:
        """Give the picture with the winners; that of the stage was drawn before they were measured."""
        return self.drawn / FRONT

    @property
    def record(self) -> Path:
        """Give the file that holds the winners' figures and what corrected the latency models."""
        return self.drawn / WINNERS

    @property
    def winners(self) -> tuple[Winner, ...]:
        return self.choice.winners

    @property
    def finalists(self) -> int:
        """Count the architectures that were measured to find the winners."""
        return self.choice.finalists

    @property
    def broke(self) -> int:
        """Count the finalists that broke a budget when they were measured."""
        return self.choice.broke

    def draw(self, folder: Path | None = None) -> None:
        """Draw the pictures with the winners, and file what verifying the finalists came to beside them."""
        folder = folder or self.drawn
        draw_search(self.result, folder, self.choice, self.slicing)
        write_json(folder / WINNERS, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Give what verifying the finalists came to, measured and predicted apart, as JSON-able values."""
        return {
            "winners": [winner.to_dict() for winner in self.winners],
            "finalists": self.finalists,
            "broke_budget": self.broke,
            "spread_over": self.slicing.cost,
            "slices": [vars(one) for one in self.choice.slices],
            "notes": list(self.choice.notes),
            "corrections": {name: one.to_dict() for name, one in self.choice.corrections.items()},
            "measured_on": [device.name for device in self.devices if device.reachable],
            "predicted_on": [device.name for device in self.devices if not device.reachable],
        }


def check_budget(ctx: Context, space: Space, devices: Sequence[Device]) -> None:
    """Refuse a budget that no architecture meets, before anything is trained (InfeasibleBudgetError)."""
    objectives = objectives_of(read_objectives(ctx.recipe), devices, not_scored)
    bounds = bounds_of(ctx, devices)
    Problem(space, objectives, bounds, ctx.num_classes, ctx.channels).check_bounds()
    section = ctx.recipe.search
    if section.replay is not None:
        slicing = slicing_of(ctx, devices, [one.name for one in objectives]) if section.images is not None else None
        settings = _settings(section, space, ctx.recipe.seed, ctx.num_classes, ctx.channels, slicing)
        replay = replayed(section.replay)
        try:
            check_replay(replay, space, objectives, bounds, slots=section.parallel, **settings)
        except InputError as error:
            raise InputError(f"search.replay: {section.replay} is of another search ({error})") from None


def replayed(path: str) -> SearchResult:
    """Read a search to replay. Raises InputError."""
    try:
        found = SearchResult.from_json(Path(path).expanduser())
    except InputError as error:
        raise InputError(f"search.replay: {error}") from None
    if not found.order:
        raise InputError(f"search.replay: {path} holds no order: it is of a search with search.parallel: 1")
    return found


def _settings(
    given: SearchSection | SearchInputs,
    space: Space,
    seed: int,
    num_classes: int,
    in_channels: int,
    slicing: Slicing | None,
) -> dict[str, Any]:
    """Give the settings of the strategy that change its result."""
    return {
        "strategy": given.strategy,
        "evaluations": given.evaluations,
        "seed": derived_seed(seed, "search"),
        "initial": [*seed_names(space)],  # a short search gets the first of them
        "num_classes": num_classes,
        "in_channels": in_channels,
        "slicing": slicing,
    }


class SearchedDevice(Part):
    """A device whose predicted latency is weighed: its objective, its latency model and the odds of a miss."""

    objective: str
    model: FileInput
    risk: float
    profile: DeviceProfile = Field(exclude=True)


class SearchInputs(StageInputs):
    """One search of a trained supernet under bounds."""

    STAGE: ClassVar[str] = "search"
    VERSION: ClassVar[int] = 2  # scored and chosen by posteriors

    images: ImagesInput
    accelerator: ComputedOn
    supernet: SupernetInput
    objectives: tuple[str, ...]
    devices: tuple[SearchedDevice, ...]
    bounds: dict[str, float]  # by objective
    strategy: str
    origin: str  # distribution and version of the plug-in that has the strategy; empty: built in
    evaluations: int
    images_each: int | None  # validation images an evaluation; None: all
    slicing: Slicing | None  # whose contenders are evaluated again; None: an evaluation is on all images
    batch_size: int  # of the images that recalibrate BN
    calibration_batches: int
    int8: Quantization | None  # of `error@int8`
    int8_runtime: str
    seed: int
    parallel: Annotated[int, Former(1)]  # evaluations that go on at once
    replay: Annotated[FileInput | None, Former(None)]  # a search whose order of replies is taken

    @property
    def places(self) -> dict[str, str]:
        """Give the places of fields in a recipe; several are read from more than one, and are named in words."""
        own = ("objectives", "strategy", "evaluations", "calibration_batches", "parallel", "replay")
        return {
            **{name: f"search.{name}" for name in own},
            **{
                "images_each": "search.images",
                "slicing": "search.winners or the budgets of a device",
                "int8": "quantize",
                "batch_size": "supernet.batch_size",
            },
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
        accelerator=ctx.accelerator_input(),
        supernet=supernet.part,
        objectives=tuple(one.name for one in names),
        devices=tuple(_searched(device) for device in devices),
        bounds=bounds_of(ctx, devices),
        strategy=section.strategy,
        origin=STRATEGIES.origin_name(section.strategy),
        evaluations=section.evaluations,
        images_each=section.images,
        slicing=slicing_of(ctx, devices, [one.name for one in names]) if section.images is not None else None,
        batch_size=ctx.recipe.supernet.batch_size,
        calibration_batches=section.calibration_batches,
        int8=Quantization.of(ctx.recipe.quantize) if scored_int8 else None,
        int8_runtime=runtime,
        seed=ctx.recipe.seed,
        parallel=section.parallel,
        replay=None if section.replay is None else _given(Path(section.replay).expanduser()),
    )


def search_stage(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> Stage:
    """Give the stage of a search, which files what it evaluated in `search.json`."""
    return run_stage(ctx, search_inputs(ctx, supernet, devices), _search)


def search_winners(ctx: Context, supernet: Supernet, devices: Sequence[Device]) -> Found:
    """Run the strategy, measure the finalists on every device in reach, and pick the winners by validation error."""
    stage = search_stage(ctx, supernet, devices)
    result = SearchResult.from_json(stage.folder / RESULT)
    if result.failed:
        last = list(result.failed.values())[-1]
        ctx.note(f"{stage.name}: {len(result.failed)} of {len(result.order)} evaluations left out; the last: {last}")
    if not result.finalists:
        raise InfeasibleBudgetError(
            f"none of the {len(result.evaluated)} architectures that were scored keeps every bound: "
            f"raise --evals (now {ctx.recipe.search.evaluations}) or a bound"
        )
    slicing = slicing_of(ctx, devices, tuple(result.objectives))

    def measure(archs: Sequence[Arch]) -> Measured:
        return measure_finalists(ctx, supernet, devices, archs)

    # The sandwich rule trains the smallest subnet in each step, the others now and then.
    trained_most = {supernet.space.smallest()} if ctx.recipe.supernet.method == "sandwich" else set()
    choice = choose_winners(result, supernet.space, devices, budget_of(ctx, devices), slicing, measure, trained_most)
    drawn = ctx.workspace.path / "runs" / ctx.recipe.name
    return Found(choice, result, stage.folder, tuple(devices), slicing, drawn)


def search_objectives(inputs: SearchInputs, here: Resources) -> tuple[Objective, ...]:
    """Give what a search weighs, ready to be scored in this process."""
    subnets = Subnets(
        here, inputs.supernet, inputs.batch_size, inputs.calibration_batches, inputs.seed, inputs.images_each
    )
    how, runtime, names = inputs.int8, inputs.int8_runtime, named_objectives(inputs.objectives)
    figure, most = scored_name(names).figure, len(subnets.parts)

    def again(archs: Sequence[Arch], before: Sequence[int] | None) -> Scores:
        if how is not None:
            return subnets.int8_errors(archs, how, runtime, before)
        return subnets.score(archs, figure, before)

    latencies = {
        one.objective: upper_latency(load_latency_model(one.profile, Path(one.model.path).parent), one.risk)
        for one in inputs.devices
    }
    return objectives_by(names, latencies, lambda archs: again(archs, None), again if most > 1 else None, most)


def _search(inputs: SearchInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Run the strategy and file what it evaluated."""
    space = find_space(inputs.supernet.space).with_resolutions(inputs.supernet.resolutions)
    objectives = search_objectives(inputs, here)
    settings = _settings(inputs, space, inputs.seed, here.num_classes, here.channels, inputs.slicing)
    settings["progress"] = lambda done, total: here.report(inputs.title, done, total)
    if inputs.parallel > 1:
        scorer = None if here.scorer is None else here.scorer(inputs)
        result = search_in_parallel(
            space, objectives, inputs.bounds, slots=inputs.parallel, scorer=scorer,
            replay=None if inputs.replay is None else replayed(inputs.replay.path),
            record=folder / CHECKPOINT, **settings,
        )  # fmt: skip
    else:
        result = evolve.search(space, objectives, inputs.bounds, checkpoint=folder / CHECKPOINT, **settings)
    scored = next(name for name, cheap in result.cheap.items() if not cheap)
    archs, values = [row.arch for row in result.evaluated], [row.value(scored) for row in result.evaluated]
    decided = parameter_importances(archs, values, seed=derived_seed(inputs.seed, "importances"))
    result = result.model_copy(update={"importances": decided})
    result.to_json(folder / RESULT)
    draw_search(result, folder)
    return {"file": RESULT}


def _searched(device: Device) -> SearchedDevice:
    model = device.folder / device.profile.latency_model
    if not model.is_file():
        raise InputError(f"{model} is missing: measure the device again with `tutelage device add {device.name}`")
    return SearchedDevice(objective=latency_name(device), model=_given(model), risk=device.risk, profile=device.profile)


def _given(file: Path) -> FileInput:
    return FileInput(sha256=sha256_of(file), path=str(file.absolute()))


def draw_search(
    result: SearchResult, folder: Path, choice: ChosenWinners | None = None, slicing: Slicing | None = None
) -> tuple[Path, Path]:
    """Draw the pictures into a folder; give the paths of the front and the hypervolume.

    Costs are the objectives that were not scored; TRIALS shows these in the order of the search, and what decided them.

    choice: the winners and the slices of `slicing.cost`, where they are known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    front, volume = folder / FRONT, folder / HYPERVOLUME
    scored = next(name for name, cheap in result.cheap.items() if not cheap)
    edges = sorted({end for one in choice.slices for end in (one.low, one.high)}) if choice is not None else []
    errors = [row.value(scored) for row in result.evaluated]
    costs = {name: [row.value(name) for row in result.evaluated] for name, cheap in result.cheap.items() if cheap}
    search_trials_plot(errors, costs, folder / TRIALS, result.importances, scored=scored)
    search_front_plot(
        errors,
        costs,
        front,
        within=[row.feasible for row in result.evaluated],
        finalists=() if choice is not None else result.finalists,
        bounds=result.bounds,
        scored=scored,
        winners=dict(zip(choice.rows, (one.name for one in choice.winners), strict=True)) if choice is not None else {},
        slices={slicing.cost: edges[1:-1]} if slicing is not None else {},
        higher_is_better=result.objectives[scored] == "max",
    )
    hypervolume_plot({result.strategy: result.hypervolume}, volume)
    return front, volume
