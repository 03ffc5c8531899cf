"""The stages of a run in their order. Each is skipped where the workspace holds its result, so a stopped run goes on.

Enters: a recipe and a workspace. Leaves: rows on the leaderboard, a page, a plot and a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.progress import Report
from tutelage.recipe import Recipe
from tutelage.records import Student
from tutelage.stages.board import Published, publish
from tutelage.stages.compress import compress
from tutelage.stages.context import Context, open_context
from tutelage.stages.device import Device, open_device
from tutelage.stages.evaluate import judge
from tutelage.stages.explain import explain_network
from tutelage.stages.measure import measure_all
from tutelage.stages.search import Found, check_budget, search_winners
from tutelage.stages.students import teach_baselines, teach_winners
from tutelage.stages.supernet import Supernet, space_of, train_the_supernet
from tutelage.stages.teach import teach_teacher
from tutelage.workspace import Workspace


@dataclass(frozen=True)
class Searched:
    """What a run knows after its search: enough to teach the winners."""

    ctx: Context
    devices: tuple[Device, ...]
    teachers: tuple[Student, ...]
    supernet: Supernet
    found: Found


def run(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> tuple[Searched, Published]:
    """Run a recipe whole: data, devices, teachers, supernet, search, students, int8, measurements, leaderboard."""
    with workspace.locked():
        searched = _search(recipe, workspace, report, threads)
        students = _distill(searched)
        networks = [*searched.teachers, *students, *teach_baselines(searched.ctx, searched.supernet, searched.teachers)]
        return searched, _score(searched, networks)


def search(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Searched:
    """Run a recipe up to its search; what a workspace already holds is not done again."""
    with workspace.locked():
        return _search(recipe, workspace, report, threads)


def distill(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> list[Student]:
    """Run a recipe up to its taught students; the test split stays closed."""
    with workspace.locked():
        return _distill(_search(recipe, workspace, report, threads))


def _search(recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> Searched:
    ctx = open_context(recipe, workspace, report, threads)
    space = space_of(ctx)
    devices = tuple(
        open_device(
            workspace, section, space, ctx.num_classes, ctx.channels, report, tolerance=recipe.measure.tolerance
        )
        for section in recipe.devices
    )
    check_budget(ctx, space, devices)
    teachers = tuple(teach_teacher(ctx, section) for section in recipe.teachers)
    supernet = train_the_supernet(ctx, teachers)
    return Searched(ctx, devices, teachers, supernet, search_winners(ctx, supernet, devices))


def _distill(searched: Searched) -> list[Student]:
    return teach_winners(searched.ctx, searched.supernet, searched.found.winners, searched.teachers)


def _score(searched: Searched, networks: Sequence[Student]) -> Published:
    ctx = searched.ctx
    runtimes = sorted({device.profile.runtime for device in searched.devices})
    variants = [variant for student in networks for variant in compress(ctx, student, runtimes)]
    judged = [judge(ctx, variant) for variant in variants]
    measured = {device.name: measure_all(ctx, device, variants) for device in searched.devices}
    explained = {
        student.weights.sha256: explain_network(ctx, student) for student in networks if student.weights is not None
    }
    return publish(ctx, searched.devices, judged, measured, searched.found, explained)
