"""Run the stages of a recipe in their order: `run` (all, up to the leaderboard and its page), `search`, `distill`.

A stage is skipped where the workspace holds its result, so a stopped run can be resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tutelage.leaderboard.store import Store
from tutelage.live import note_plan
from tutelage.pipeline.operations.board import open_for_run
from tutelage.pipeline.stages.bundle import bundle_rows
from tutelage.pipeline.stages.compress import Variant, left_out
from tutelage.pipeline.stages.evaluate import Evaluated, evaluate_stage, evaluate_variant
from tutelage.pipeline.stages.fits import over_lines
from tutelage.pipeline.stages.gains import gains
from tutelage.pipeline.stages.publish import Published, file_refused, file_rows, publish
from tutelage.pipeline.stages.search import Found, check_budget, search_winners
from tutelage.pipeline.stages.supernet import Supernet, space_of
from tutelage.pipeline.stages.winners import Winner
from tutelage.progress import Report
from tutelage.records import InputError, Measurement, Student

from .context import Context, Refused, TeacherSet
from .device import Device, known_device, name_device, open_device
from .keys.foreseen import foreseen
from .keys.order import Until, evaluate_network, finish, train_networks
from .keys.plan import Plan, plan, walk
from .objectives import weighed_devices, weighed_sections
from .operations.remembered import remember
from .preflight import open_checked
from .recipe import Recipe
from .workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run before its students are trained: images, devices, teachers."""

    ctx: Context
    devices: tuple[Device, ...]
    teachers: tuple[Student, ...]


# Called with the plan before a device is opened.
Announce = Callable[[Plan], None]
# What the caller does with the students afterwards, for the plan.
Also = Callable[[Context, Sequence[Student]], object]


@dataclass(frozen=True)
class Searched(Prepared):
    """A run after its search: what training the winners needs."""

    supernet: Supernet
    found: Found


def run(
    recipe: Recipe, workspace: Workspace, report: Report, threads: int, announce: Announce | None = None
) -> tuple[Searched | None, Published]:
    """Run a recipe whole: data, devices, teachers, supernet, search, students, int8, measurements, leaderboard.

    Where a recipe names its students and searches nothing, `None` stands for the search. `announce` is given the
    plan of the run before anything is measured or trained.
    """
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "run")
        remember(recipe, workspace.path)
        # Opened first: a store that cannot be written fails before anything is trained.
        scoring = _Scoring(open_for_run(workspace.store))
        opened = _open(ctx, Until.END, announce)
        noting = replace(ctx, trained=scoring.trained, note=scoring.note, refused=scoring.refused)
        opened = replace(opened, ctx=noting)
        searched, _ = _train(opened, Until.END, scoring.begin)
        return searched, scoring.finish(searched.found if searched else None)


def rehearse(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Plan:
    """Check a recipe as `run` does and plan its stages; nothing is trained, measured or filed."""
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "run")
        if ctx.earlier is not None:
            ctx.earlier.files = False
        return _planned(ctx, Until.END)


def search(
    recipe: Recipe, workspace: Workspace, report: Report, threads: int, announce: Announce | None = None
) -> Searched:
    """Run a recipe up to its search; what a workspace already holds is not done again."""
    if not recipe.searches:
        names = ", ".join(student.name for student in recipe.students)
        raise InputError(
            f"recipe {recipe.name} names its students ({names}) and searches nothing: `tutelage run` it, or give it a "
            "search, e.g. --set search.evaluations=100"
        )
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "search")
        remember(recipe, workspace.path)
        searched, _ = _train(_open(ctx, Until.SEARCH, announce), Until.SEARCH)
        assert searched is not None, "this recipe searches"
        searched.found.draw()
        return searched


def distill(
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    announce: Announce | None = None,
    also: Also = lambda ctx, students: None,
) -> list[Student]:
    """Run a recipe up to its trained students; the test split is not used. `also`: what the plan names besides."""
    with workspace.locked():
        ctx = open_checked(recipe, workspace, report, threads, "distill")
        return _train(_open(ctx, Until.STUDENTS, announce, also), Until.STUDENTS)[1]


@dataclass(frozen=True)
class _Opened:
    """A run before its first stage: images and devices; `weighed` are those of its search."""

    ctx: Context
    devices: tuple[Device, ...]
    weighed: tuple[Device, ...] = ()


def _open(
    ctx: Context, until: Until, announce: Announce | None = None, also: Also = lambda ctx, students: None
) -> _Opened:
    """Announce the plan, and open the devices of the recipe, which measures new ones."""
    recipe = ctx.recipe
    if announce is not None:
        planned = _planned(ctx, until, also)
        note_plan(ctx.workspace.path, recipe.name, [(one.title, one.key) for one in planned.computed])
        announce(planned)
    if not recipe.searches:
        return _Opened(ctx, tuple(name_device(ctx.workspace, section) for section in recipe.devices))
    space = space_of(ctx)
    devices = tuple(
        open_device(
            ctx.workspace, section, space, ctx.num_classes, ctx.channels, ctx.report, tolerance=recipe.measure.tolerance
        )
        for section in recipe.devices
    )
    weighed = weighed_devices(ctx, space, devices)
    check_budget(ctx, space, weighed)  # known now of devices that were measured just now
    return _Opened(ctx, devices, weighed)


def _planned(ctx: Context, until: Until, also: Also = lambda ctx, students: None) -> Plan:
    """Plan what is done until then, on the devices that have a profile."""
    recipe = ctx.recipe
    if not recipe.searches:
        named = [name_device(ctx.workspace, section, write=False) for section in recipe.devices]
        return plan(ctx, named, until=until, also=also)
    space = space_of(ctx)
    sections = {one.name: one for one in (*recipe.devices, *weighed_sections(recipe))}
    known = {name: known_device(ctx.workspace.path, section, space) for name, section in sections.items()}
    devices = [device for device in map(known.get, (one.name for one in recipe.devices)) if device is not None]
    unmeasured = tuple(name for name, device in known.items() if device is None)
    weighed = None if unmeasured else weighed_devices(ctx, space, devices)
    return replace(plan(ctx, devices, weighed, until=until, also=also), unmeasured=unmeasured)


def _train(
    opened: _Opened, until: Until, begin: Callable[[Prepared], None] = lambda prepared: None
) -> tuple[Searched | None, list[Student]]:
    """Train the networks of a run, and search where the recipe does; `begin` is called with the teachers."""
    found: list[Found] = []

    def search(supernet: Supernet) -> Sequence[Winner]:
        found.append(search_winners(opened.ctx, supernet, opened.weighed))
        return found[0].winners

    stages = partial(walk, devices=opened.devices, weighed=opened.weighed, until=until)
    opened.ctx.workspace.look_ahead(partial(foreseen, opened.ctx, stages))
    networks = train_networks(
        opened.ctx, until, search, lambda teachers: begin(Prepared(opened.ctx, opened.devices, tuple(teachers)))
    )
    searched = None
    if networks.supernet is not None and found:
        searched = Searched(opened.ctx, opened.devices, networks.teachers, networks.supernet, found[0])
    return searched, list(networks.students)


def _evaluated(ctx: Context, variant: Variant) -> Evaluated | None:
    """Evaluate a file; None where it, or what it is made of, was lost, or where the runtime does not run it."""
    stage = evaluate_stage(ctx, variant)
    if ctx.workspace.lost(stage.key):
        return None
    if "left_out" in stage.result:
        reason = str(stage.result["left_out"])
        left_out(ctx, f"no row of {variant.title}: {reason}")
        ctx.refused(Refused(variant.student, variant.scheme, variant.runtime, reason))
        return None
    return evaluate_variant(ctx, variant)


class _Scoring:
    """File the rows of a run: a network is evaluated when it is trained, all are measured together at the end.

    Every network is evaluated in every form and seed; only its first seed is measured, explained and shown.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prepared: Prepared | None = None
        self._evaluated: list[Evaluated] = []
        self._notes: list[str] = []
        self._refused: list[Refused] = []

    def note(self, text: str) -> None:
        """Say what the user should know now, and again at the end of the run."""
        log.warning(text)
        self._notes.append(text)

    def refused(self, one: Refused) -> None:
        """Keep what a runtime refused; the run goes on without it."""
        if one not in self._refused:
            self._refused.append(one)

    def begin(self, prepared: Prepared) -> None:
        """Take the prepared run and evaluate its teachers."""
        self._prepared = prepared
        for teacher in prepared.teachers:
            self.trained([teacher], [TeacherSet()])

    def trained(self, seeds: Sequence[Student], choices: Sequence[TeacherSet]) -> None:
        """Evaluate one network, trained with each seed, in all its forms, and file the rows that it has so far."""
        ctx, devices = self._run.ctx, self._run.devices
        found = evaluate_network(ctx, seeds, devices, choices, _evaluated)
        evaluated = [one for one in found if one is not None]
        file_refused(ctx, self._store, devices, self._refused, state="evaluated")
        if not evaluated:  # what it is made of was lost, or every runtime refused it
            return
        self._evaluated += evaluated
        worth = gains(ctx, evaluated)  # of one network: its figures over the seeds
        file_rows(ctx, self._store, devices, evaluated, {}, worth, state="evaluated")

    def finish(self, found: Found | None) -> Published:
        """Measure, compare and explain what was evaluated, complete the rows and draw what they show."""
        ctx, devices, evaluated = self._run.ctx, self._run.devices, self._evaluated
        if not evaluated:
            raise InputError(f"recipe {ctx.recipe.name}: every network failed, see the messages before")
        worth = gains(ctx, evaluated)
        measured: dict[str, Mapping[str, Measurement]] = {}

        def file_measured(device: Device, latencies: Mapping[str, Measurement]) -> None:
            measured[device.name] = latencies
            file_rows(
                ctx, self._store, [device], evaluated, measured, worth, state="measured", found=found,
                refused=self._refused,
            )  # fmt: skip

        explained = finish(ctx, devices, [one.variant for one in evaluated], file_measured)
        rows = file_rows(
            ctx, self._store, devices, evaluated, measured, worth, state="complete", found=found, explained=explained,
            refused=self._refused,
        )  # fmt: skip
        file_refused(ctx, self._store, devices, self._refused, state="complete")
        published = publish(ctx, rows, found)
        refused, over = tuple(map(str, self._refused)), tuple(over_lines(rows, ctx.recipe))
        bundles = tuple(bundle_rows(ctx, rows))
        return replace(published, bundles=bundles, notes=tuple(self._notes), refused=refused, over=over)

    @property
    def _run(self) -> Prepared:
        assert self._prepared is not None, "a network was trained before the run began"
        return self._prepared
