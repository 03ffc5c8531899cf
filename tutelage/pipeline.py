"""The stages of a run in their order. Each is skipped where the workspace holds its result, so a stopped run goes on.

Enters: a recipe and a workspace. Leaves: rows on the leaderboard, a page, a plot and a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.progress import Report
from tutelage.recipe import Recipe
from tutelage.records import InputError, Student
from tutelage.stages.board import Published, publish
from tutelage.stages.compress import compress
from tutelage.stages.context import Context, open_context
from tutelage.stages.device import Device, check_rows, name_device, open_device
from tutelage.stages.evaluate import judge
from tutelage.stages.explain import explain_all
from tutelage.stages.measure import measure_all
from tutelage.stages.objectives import weighed_devices
from tutelage.stages.pruned import check_pruned, teach_pruned
from tutelage.stages.rounding import teach_rounding
from tutelage.stages.search import Found, check_budget, check_counted, search_winners
from tutelage.stages.students import named_students, teach_baselines, teach_named, teach_winners
from tutelage.stages.supernet import Supernet, space_of, train_the_supernet
from tutelage.stages.teach import teach_teacher
from tutelage.workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """What a run knows before its students: images, devices, teachers."""

    ctx: Context
    devices: tuple[Device, ...]
    teachers: tuple[Student, ...]


@dataclass(frozen=True)
class Searched(Prepared):
    """What a run knows after its search: enough to teach the winners."""

    supernet: Supernet
    found: Found


def run(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> tuple[Searched | None, Published]:
    """Run a recipe whole: data, devices, teachers, supernet, search, students, int8, measurements, leaderboard.

    A recipe that names its students has no supernet and no search: `None` stands for them.
    """
    check_rows(workspace, recipe.devices)
    with workspace.locked():
        prepared = _prepare(recipe, workspace, report, threads)
        students = _distill(prepared)
        searched = prepared if isinstance(prepared, Searched) else None
        baselines = teach_baselines(prepared.ctx, searched.supernet if searched else None, prepared.teachers)
        pruned = teach_pruned(prepared.ctx, [*students, *baselines], prepared.teachers)
        return searched, _score(prepared, searched, [*prepared.teachers, *students, *baselines, *pruned])


def search(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Searched:
    """Run a recipe up to its search; what a workspace already holds is not done again."""
    if recipe.students:
        names = ", ".join(student.name for student in recipe.students)
        raise InputError(f"recipe {recipe.name} names its students ({names}) and searches nothing: `tutelage run` it")
    with workspace.locked():
        return _search(recipe, workspace, report, threads)


def distill(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> list[Student]:
    """Run a recipe up to its taught students; the test split stays closed."""
    with workspace.locked():
        return _distill(_prepare(recipe, workspace, report, threads))


def _prepare(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Prepared:
    if not recipe.students:
        return _search(recipe, workspace, report, threads)
    ctx = open_context(recipe, workspace, report, threads)
    named_students(ctx)  # names and methods that cannot be used are told before a teacher is trained
    check_pruned(ctx)
    devices = tuple(name_device(workspace, section) for section in recipe.devices)
    return Prepared(ctx, devices, tuple(teach_teacher(ctx, section) for section in recipe.teachers))


def _search(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Searched:
    ctx = open_context(recipe, workspace, report, threads)
    space = space_of(ctx)
    check_counted(ctx, space)
    check_pruned(ctx)
    devices = tuple(
        open_device(
            workspace, section, space, ctx.num_classes, ctx.channels, report, tolerance=recipe.measure.tolerance
        )
        for section in recipe.devices
    )
    weighed = weighed_devices(ctx, space, devices)
    check_budget(ctx, space, weighed)
    teachers = tuple(teach_teacher(ctx, section) for section in recipe.teachers)
    supernet = train_the_supernet(ctx, teachers)
    return Searched(ctx, devices, teachers, supernet, search_winners(ctx, supernet, weighed))


def _distill(prepared: Prepared) -> list[Student]:
    if isinstance(prepared, Searched):
        return teach_winners(prepared.ctx, prepared.supernet, prepared.found.winners, prepared.teachers)
    return teach_named(prepared.ctx, prepared.teachers)


def _score(prepared: Prepared, searched: Searched | None, networks: Sequence[Student]) -> Published:
    """Judge every network in every form, but measure and explain each network's first seed alone."""
    ctx = prepared.ctx
    runtimes = sorted({device.profile.runtime for device in prepared.devices})
    variants = [
        variant
        for student in networks
        for variant in (
            *compress(ctx, student, runtimes),
            *teach_rounding(ctx, student, runtimes, prepared.teachers),
        )
    ]
    judged = [judge(ctx, variant) for variant in variants]
    shown = [variant for variant in variants if variant.student.seed == ctx.recipe.seed]
    measured = {device.name: measure_all(ctx, device, shown) for device in prepared.devices}
    explained = explain_all(ctx, shown)
    return publish(ctx, prepared.devices, judged, measured, searched.found if searched else None, explained)
