"""Teach the winners by each teacher, by all together and by none, and the baselines beside them."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.records import Arch, InputError, Student
from tutelage.search.space import PRESETS, SPACES, place
from tutelage.search.supernet import extract

from .context import Context
from .search import Winner
from .supernet import Supernet
from .teach import teach_student


def teach_winners(
    ctx: Context, supernet: Supernet, winners: Sequence[Winner], teachers: Sequence[Student]
) -> list[Student]:
    """Train every winner from its inherited weights once for each choice of teachers, on one schedule."""
    return [
        _from_supernet(ctx, supernet, Student(model=winner.name, role="student", arch=winner.arch), choice)
        for winner in winners
        for choice in choices(teachers)
    ]


def teach_baselines(ctx: Context, supernet: Supernet, teachers: Sequence[Student]) -> list[Student]:
    """Train the recipe's baselines on the students' schedule, with all teachers and with none.

    A preset that is a subnet of the searched supernet starts from its inherited weights, as the winners do; others
    start from fresh weights.
    """
    taught = []
    for name in ctx.recipe.baselines:
        for choice in ((), tuple(teachers)) if teachers else ((),):
            if name not in PRESETS:
                student = Student(model=name, role="baseline", library_name=name)
                taught.append(teach_student(ctx, student, None, "fresh", choice))
                continue
            arch = preset_arch(ctx, supernet, name)
            student = Student(model=name, role="baseline", arch=arch)
            if arch.space == supernet.space.name:
                taught.append(_from_supernet(ctx, supernet, student, choice))
            else:
                taught.append(teach_student(ctx, student, None, "fresh", choice))
    return taught


def choices(teachers: Sequence[Student]) -> list[tuple[Student, ...]]:
    """List who may teach: nobody, each teacher alone, and all together."""
    alone = [(teacher,) for teacher in teachers]
    together = [tuple(teachers)] if len(teachers) > 1 else []
    return [(), *alone, *together]


def preset_arch(ctx: Context, supernet: Supernet, name: str) -> Arch:
    """Place a preset at the run's resolution and, where the searched space keeps stride 1 in the stem, that too."""
    preset = PRESETS[name]
    stem = "_stem1" if supernet.space.name.endswith("_stem1") else ""
    space = SPACES.get(f"{preset.space}{stem}")
    if space is None:
        raise InputError(f"baseline {name}: no space {preset.space}{stem}; leave it out of `baselines`")
    side = max(supernet.space.resolutions)
    return place(preset, space.with_resolutions((side,)), side)


def _from_supernet(ctx: Context, supernet: Supernet, student: Student, choice: Sequence[Student]) -> Student:
    if student.arch is None:
        raise InputError(f"{student.model} is not an architecture of {supernet.space.name}")
    start = extract(supernet.load(ctx), student.arch)
    return teach_student(ctx, student, start, supernet.key, choice)
