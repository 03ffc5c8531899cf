"""Train the students with each teacher, with all together and with none, and the baselines beside them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tutelage.distill.losses.methods import check_distillation, find_loss
from tutelage.distill.teachers.zoo import timm_name
from tutelage.distill.training.schedule import TrainSchedule
from tutelage.distill.training.tuning import Tuning
from tutelage.pipeline.context import Context, schedule_of
from tutelage.pipeline.sections import StudentSection, TrainSection
from tutelage.records import Arch, InputError, Student
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES, Space

from .supernet import Supernet
from .train import take_student, train_student
from .training import Start, kd_of, pretrained
from .winners import Winner

log = logging.getLogger(__name__)


def train_winners(
    ctx: Context, supernet: Supernet, winners: Sequence[Winner], teachers: Sequence[Student]
) -> list[Student]:
    """Train every winner from its inherited weights once for each choice of teachers, on one schedule."""
    trained = []
    for winner in winners:
        for choice in choices(ctx, teachers):
            student = Student(model=winner.name, role="student", arch=winner.arch)
            trained += _from_supernet(ctx, supernet, student, choice)
    return trained


def train_named_students(ctx: Context, teachers: Sequence[Student]) -> list[Student]:
    """Train the students that the recipe names, from fresh weights or a weights file, for each choice of teachers."""
    trained = []
    for student, section in zip(named_students(ctx), ctx.recipe.students, strict=True):
        own, start = pretrained(ctx, section.weights, student)
        if start is not None and section.epochs == 0:
            taken = take_student(ctx, own, start)
            ctx.trained([taken])
            trained.append(taken)
            continue
        tuning = Tuning(section.freeze, section.layer_decay)
        for choice in choices(ctx, teachers):
            trained += train_seeds(ctx, own, start, choice, tuning)
    return trained


def training_checks(ctx: Context) -> Iterator[Callable[[], object]]:
    """Give what refuses, before any training, unknown networks, schedules that cannot be and options without effect."""
    recipe = ctx.recipe
    names = [teacher.name for teacher in recipe.teachers]
    for name in names:
        yield partial(timm_name, name)
    if not recipe.students:
        yield from (partial(_check_supernet_teacher, name, names) for name in recipe.supernet.teachers)
    yield from (partial(named_student, ctx, section) for section in recipe.students)
    yield from (partial(timm_name, one.name) for one in recipe.baselines if one.name not in PRESETS)
    for name, schedule in (*((teacher.name, teacher) for teacher in recipe.teachers), ("distill", recipe.distill)):
        yield partial(_check_schedule, name, schedule)
    yield partial(_check_distillation, ctx)


def check_training(ctx: Context) -> None:
    """Raise the first of the `training_checks` that refuses."""
    for check in training_checks(ctx):
        check()


def _check_supernet_teacher(name: str, names: Sequence[str]) -> None:
    if name not in names:
        known = ", ".join(names) or "none"
        raise InputError(f"supernet.teachers: {name!r} is none of the recipe's teachers ({known})")


def _check_schedule(name: str, schedule: TrainSection) -> None:
    """Refuse what the training loop cannot do; warn of a patience that ends a training before its plateau acts."""
    if schedule.epochs > 0:
        schedule_of(schedule)
    too_short = (schedule.patience or math.inf) <= TrainSchedule.plateau_patience + 1
    if schedule.decay == "plateau" and too_short:
        log.warning(
            "%s: patience %d ends a training before its plateau of %d epochs lowers the learning rate",
            name, schedule.patience, TrainSchedule.plateau_patience,
        )  # fmt: skip


def _check_distillation(ctx: Context) -> None:
    """Refuse a method that these images or teachers do not allow."""
    recipe = ctx.recipe
    if not recipe.teachers:
        find_loss(recipe.distill.method, ctx.num_classes, ctx.dataset.multi_label)
        return
    # Baselines are distilled by all teachers, students as `teacher_mode` says.
    together = recipe.baselines or recipe.distill.teacher_mode != "each"
    check_distillation(
        kd_of(recipe.distill),
        ctx.num_classes,
        ctx.dataset.multi_label,
        num_teachers=len(recipe.teachers) if together else 1,
        mixing=recipe.distill.mixup > 0 or recipe.distill.cutmix > 0,
    )


def named_students(ctx: Context) -> list[Student]:
    """Give the records of the students that a recipe names; an unknown name is an error."""
    return [named_student(ctx, section) for section in ctx.recipe.students]


def named_student(ctx: Context, section: StudentSection) -> Student:
    """Give the record of a student that the recipe names; an unknown name is an error."""
    student = _named(ctx, section.name, section.options, section.arch)
    return student.model_copy(update={"model": section.title or student.model})


def _named(ctx: Context, name: str, options: dict[str, object], genes: Arch | None = None) -> Student:
    genes = genes or PRESETS.get(name)
    if genes is None:
        timm_name(name)
        return Student(model=name, role="student", library_name=name, options=options)
    if options:
        raise InputError(f"student {name} is a subnet of a space and takes no options, got {', '.join(options)}")
    if genes.space not in SPACES:
        raise InputError(f"student {name}: no space {genes.space!r}; known are {', '.join(SPACES)}")
    return Student(
        model=name, role="student", arch=place(genes, SPACES[genes.space].with_resolutions((ctx.size,)), ctx.size)
    )


def train_baselines(ctx: Context, supernet: Supernet | None, teachers: Sequence[Student]) -> list[Student]:
    """Train the recipe's baselines on the students' schedule, with all teachers and with none.

    One that names weights starts from those. Otherwise a preset that is a subnet of the searched supernet starts from
    its inherited weights, as the winners do; others start from fresh weights.
    """
    trained = []
    for section in ctx.recipe.baselines:
        student = baseline(ctx, section.name, None if supernet is None else supernet.space)
        own, start = pretrained(ctx, section.weights, student)
        of_the_space = supernet is not None and own.arch is not None and own.arch.space == supernet.space.name
        begin: Start = supernet.part if supernet is not None and start is None and of_the_space else start
        tuning = Tuning(section.freeze, section.layer_decay)
        for choice in ((), tuple(teachers)) if teachers else ((),):
            trained += train_seeds(ctx, own, begin, choice, tuning)
    return trained


def baseline(ctx: Context, name: str, searched: Space | None) -> Student:
    """Give the record of a baseline; a preset is placed as the searched space is, where there is one."""
    if searched is None or name not in PRESETS:
        return _named(ctx, name, {}).model_copy(update={"role": "baseline"})
    return Student(model=name, role="baseline", arch=preset_arch(searched, name))


def choices(ctx: Context, teachers: Sequence[Student]) -> list[tuple[Student, ...]]:
    """List the sets of teachers to train with: none, each teacher, all together, as `distill.teacher_mode` says."""
    how = ctx.recipe.distill.teacher_mode
    alone = [(teacher,) for teacher in teachers] if how != "together" or len(teachers) == 1 else []
    together = [tuple(teachers)] if how != "each" and len(teachers) > 1 else []
    return [(), *alone, *together]


def preset_arch(searched: Space, name: str) -> Arch:
    """Place a preset at the largest resolution of the searched space, with a stem of stride 1 where that has one."""
    preset = PRESETS[name]
    stem = "_stem1" if searched.name.endswith("_stem1") else ""
    space = SPACES.get(f"{preset.space}{stem}")
    if space is None:
        raise InputError(f"baseline {name}: no space {preset.space}{stem}; leave it out of `baselines`")
    side = max(searched.resolutions)
    return place(preset, space.with_resolutions((side,)), side)


def _from_supernet(ctx: Context, supernet: Supernet, student: Student, choice: Sequence[Student]) -> list[Student]:
    if student.arch is None:
        raise InputError(f"{student.model} is not an architecture of {supernet.space.name}")
    return train_seeds(ctx, student, supernet.part, choice)


def train_seeds(
    ctx: Context,
    student: Student,
    start: Start,
    choice: Sequence[Student],
    tuning: Tuning = Tuning(),  # noqa: B008 - frozen
) -> list[Student]:
    """Train one student by one choice of teachers with each of the recipe's seeds, and pass them to `ctx.trained`."""
    seeds = [train_student(ctx, student, start, choice, repeat, tuning) for repeat in range(ctx.recipe.seeds)]
    ctx.trained(seeds)
    return seeds
