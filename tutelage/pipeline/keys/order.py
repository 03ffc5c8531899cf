"""The order of a recipe's stages, for runs and for their plans: `train_networks`, `evaluate_network`, `finish`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from tutelage.pipeline.context import Context, TeacherSet
from tutelage.pipeline.device import Device
from tutelage.pipeline.stages.compress import Variant
from tutelage.pipeline.stages.explain import explain_all
from tutelage.pipeline.stages.fits import held_to_memories
from tutelage.pipeline.stages.largest import supernet_teacher
from tutelage.pipeline.stages.measure import measure_all
from tutelage.pipeline.stages.pruned import train_pruned
from tutelage.pipeline.stages.qat import compress_all
from tutelage.pipeline.stages.students import choices, train_baselines, train_named_students, train_winners
from tutelage.pipeline.stages.supernet import Supernet, train_the_supernet
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.stages.winners import Winner
from tutelage.records import Measurement, Student

Result = TypeVar("Result")


class Until(IntEnum):
    """How far a verb goes: `search`, `distill`, `run`."""

    SEARCH = 1
    STUDENTS = 2
    END = 3


@dataclass(frozen=True)
class Networks:
    """What was trained; a recipe that names its students may have no supernet."""

    teachers: tuple[Student, ...]
    supernet: Supernet | None
    students: tuple[Student, ...] = ()


def train_networks(
    ctx: Context,
    until: Until,
    search: Callable[[Supernet], Sequence[Winner]],
    begin: Callable[[Sequence[Student]], object] = lambda teachers: None,
) -> Networks:
    """Train the networks of a recipe: teachers, supernet, winners, named students, baselines, pruned students.

    `search` gives the winners of a supernet, where the recipe searches; `begin` is given the teachers.
    """
    teachers = tuple(train_teacher(ctx, section) for section in ctx.recipe.teachers)
    begin(teachers)
    supernet = train_the_supernet(ctx, teachers) if ctx.recipe.trains_supernet else None
    winners = search(supernet) if supernet is not None and ctx.recipe.searches else ()
    if until is Until.SEARCH:
        return Networks(teachers, supernet)
    largest = [supernet_teacher(ctx, supernet)] if supernet is not None and ctx.recipe.distill.supernet_teacher else []
    for teacher in largest:
        ctx.trained([teacher], [TeacherSet()])
    wanted = [*choices(ctx, teachers), *((teacher,) for teacher in largest)]
    found = [] if supernet is None else train_winners(ctx, supernet, winners, wanted)
    students = [*found, *train_named_students(ctx, wanted, supernet)]
    if until is Until.END:
        baselines = train_baselines(ctx, supernet, teachers)
        train_pruned(ctx, found, [*students, *baselines], teachers)
    return Networks(teachers, supernet, tuple(students))


def evaluate_network(
    ctx: Context,
    seeds: Sequence[Student],
    devices: Sequence[Device],
    by: Sequence[TeacherSet],
    evaluate: Callable[[Context, Variant], Result],
) -> list[Result]:
    """Make every file of one network, trained with each seed by the teachers of `by`, and `evaluate` it."""
    runtimes = sorted({device.profile.runtime for device in devices})
    trained = zip(seeds, by, strict=True)
    variants = [variant for student, choice in trained for variant in compress_all(ctx, student, runtimes, choice)]
    return [evaluate(ctx, variant) for variant in variants]


def finish(
    ctx: Context,
    devices: Sequence[Device],
    variants: Sequence[Variant],
    measured: Callable[[Device, Mapping[str, Measurement]], object] = lambda device, found: None,
) -> dict[str, dict[str, Any]]:
    """Measure the files of each first seed on every device, compare them with the memory limits, and explain them.

    Gives details of rows by the file's hash.
    """
    shown = [variant for variant in variants if variant.student.seed == ctx.recipe.seed]
    for device in devices:
        measured(device, measure_all(ctx, device, shown))
    found = held_to_memories(ctx, shown)
    for file, details in explain_all(ctx, shown).items():
        found[file] = {**found.get(file, {}), **details}
    return found
