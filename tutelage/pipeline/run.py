"""Run the stages of a recipe in their order: `run` (all, up to the leaderboard and its page), `search`, `distill`.

A stage is skipped where the workspace holds its result, so a stopped run can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tutelage.leaderboard.store import Store
from tutelage.pipeline.stages.evaluate import Evaluated, evaluate_variant
from tutelage.pipeline.stages.explain import explain_all
from tutelage.pipeline.stages.gains import gains
from tutelage.pipeline.stages.measure import measure_all
from tutelage.pipeline.stages.pruned import train_pruned
from tutelage.pipeline.stages.publish import Published, file_rows, publish
from tutelage.pipeline.stages.qat import compress_all
from tutelage.pipeline.stages.search import Found, check_budget, search_winners
from tutelage.pipeline.stages.students import train_baselines, train_named_students, train_winners
from tutelage.pipeline.stages.supernet import Supernet, space_of, train_the_supernet
from tutelage.pipeline.stages.train import train_teacher
from tutelage.progress import Report
from tutelage.records import InputError, Measurement, Student

from .context import Context
from .device import Device, known_device, name_device, open_device
from .keys.plan import Plan, plan
from .objectives import weighed_devices, weighed_sections
from .preflight import open_checked
from .recipe import Recipe
from .workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """A run before its students are trained: images, devices, teachers."""

    ctx: Context
    devices: tuple[Device, ...]
    teachers: tuple[Student, ...]


# What is called when the teachers are trained, and when it is known what is going to be done.
Begin = Callable[[Prepared], None]
Announce = Callable[[Plan], None]


@dataclass(frozen=True)
class Searched(Prepared):
    """A run after its search: what training the winners needs."""

    supernet: Supernet
    found: Found


def run(
    recipe: Recipe, workspace: Workspace, report: Report, threads: int, announce: Announce | None = None
) -> tuple[Searched | None, Published]:
    """Run a recipe whole: data, devices, teachers, supernet, search, students, int8, measurements, leaderboard.

    A recipe that names its students has no supernet and no search: `None` stands for them. `announce` is given the
    plan of the run before anything is trained.
    """
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "run")
        # Opened first: a store that cannot be written fails before anything is trained.
        scoring = _Scoring(Store(workspace.store))
        prepared = _prepare(ctx, scoring.begin, announce)
        ctx = replace(prepared.ctx, trained=scoring.trained)
        prepared = replace(prepared, ctx=ctx)
        students = _distill(prepared)
        searched = prepared if isinstance(prepared, Searched) else None
        baselines = train_baselines(ctx, searched.supernet if searched else None, prepared.teachers)
        train_pruned(ctx, [*students, *baselines], prepared.teachers)
        return searched, scoring.finish(searched.found if searched else None)


@dataclass(frozen=True)
class Rehearsal:
    """What a run would do: its plan, or the devices that it would measure first, on which the plan depends."""

    plan: Plan | None
    unmeasured: tuple[str, ...] = ()


def rehearse(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Rehearsal:
    """Check a recipe as `run` does and plan its stages; nothing is trained, measured or filed."""
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "run")
        if recipe.students:
            named = tuple(name_device(ctx.workspace, section, write=False) for section in recipe.devices)
            return Rehearsal(plan(ctx, named))
        space = space_of(ctx)
        sections = {one.name: one for one in (*recipe.devices, *weighed_sections(recipe))}
        known = {name: known_device(workspace.path, section, space) for name, section in sections.items()}
        if unmeasured := tuple(name for name, device in known.items() if device is None):
            return Rehearsal(None, unmeasured)
        devices = tuple(device for device in map(known.get, (one.name for one in recipe.devices)) if device)
        return Rehearsal(plan(ctx, devices, weighed_devices(ctx, space, devices)))


def search(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Searched:
    """Run a recipe up to its search; what a workspace already holds is not done again."""
    if recipe.students:
        names = ", ".join(student.name for student in recipe.students)
        raise InputError(f"recipe {recipe.name} names its students ({names}) and searches nothing: `tutelage run` it")
    with workspace.locked():
        return _search(open_checked(recipe, workspace, report, threads, "search"))


def distill(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> list[Student]:
    """Run a recipe up to its trained students; the test split is not used."""
    with workspace.locked():
        return _distill(_prepare(open_checked(recipe, workspace, report, threads, "distill")))


def _nothing(_: Prepared) -> None:
    """Do nothing when the teachers are trained: a search files no rows."""


def _prepare(ctx: Context, begin: Begin = _nothing, announce: Announce | None = None) -> Prepared:
    """Open devices, train the teachers, pass them to `begin`, and search where the recipe has a space."""
    recipe = ctx.recipe
    if not recipe.students:
        return _search(ctx, begin, announce)
    devices = tuple(name_device(ctx.workspace, section) for section in recipe.devices)
    if announce is not None:
        announce(plan(ctx, devices))
    prepared = Prepared(ctx, devices, tuple(train_teacher(ctx, section) for section in recipe.teachers))
    begin(prepared)
    return prepared


def _search(ctx: Context, begin: Begin = _nothing, announce: Announce | None = None) -> Searched:
    recipe, space = ctx.recipe, space_of(ctx)
    devices = tuple(
        open_device(
            ctx.workspace, section, space, ctx.num_classes, ctx.channels, ctx.report, tolerance=recipe.measure.tolerance
        )
        for section in recipe.devices
    )
    weighed = weighed_devices(ctx, space, devices)
    check_budget(ctx, space, weighed)  # known now of devices that were measured just now
    if announce is not None:
        announce(plan(ctx, devices, weighed))
    teachers = tuple(train_teacher(ctx, section) for section in recipe.teachers)
    begin(Prepared(ctx, devices, teachers))
    supernet = train_the_supernet(ctx, teachers)
    return Searched(ctx, devices, teachers, supernet, search_winners(ctx, supernet, weighed))


def _distill(prepared: Prepared) -> list[Student]:
    if isinstance(prepared, Searched):
        return train_winners(prepared.ctx, prepared.supernet, prepared.found.winners, prepared.teachers)
    return train_named_students(prepared.ctx, prepared.teachers)


class _Scoring:
    """File the rows of a run: a network is evaluated when it is trained, all are measured together at the end.

    Every network is evaluated in every form and seed; only its first seed is measured, explained and shown.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prepared: Prepared | None = None
        self._judged: list[Evaluated] = []

    def begin(self, prepared: Prepared) -> None:
        """Take the prepared run and evaluate its teachers."""
        self._prepared = prepared
        for teacher in prepared.teachers:
            self.trained([teacher])

    def trained(self, seeds: Sequence[Student]) -> None:
        """Evaluate one network, trained with each seed, in all its forms, and file the rows that it has so far."""
        prepared = self._run
        ctx, runtimes = prepared.ctx, sorted({device.profile.runtime for device in prepared.devices})
        variants = [variant for student in seeds for variant in compress_all(ctx, student, runtimes, prepared.teachers)]
        evaluated = [evaluate_variant(ctx, variant) for variant in variants]
        self._judged += evaluated
        worth = gains(ctx, evaluated)  # of one network: its figures over the seeds
        file_rows(ctx, self._store, prepared.devices, evaluated, {}, worth, state="evaluated")

    def finish(self, found: Found | None) -> Published:
        """Measure, compare and explain what was evaluated, complete the rows and draw what they show."""
        prepared, evaluated = self._run, self._judged
        ctx = prepared.ctx
        shown = [one.variant for one in evaluated if one.variant.student.seed == ctx.recipe.seed]
        worth = gains(ctx, evaluated)
        measured: dict[str, dict[str, Measurement]] = {}
        for device in prepared.devices:
            measured[device.name] = measure_all(ctx, device, shown)
            file_rows(ctx, self._store, [device], evaluated, measured, worth, state="measured", found=found)
        rows = file_rows(
            ctx,
            self._store,
            prepared.devices,
            evaluated,
            measured,
            worth,
            state="complete",
            found=found,
            explained=explain_all(ctx, shown),
        )
        return publish(ctx, rows, found)

    @property
    def _run(self) -> Prepared:
        assert self._prepared is not None, "a network was trained before the run began"
        return self._prepared
