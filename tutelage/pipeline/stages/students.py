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
from tutelage.pipeline.context import Context, TeacherSet, schedule_of
from tutelage.pipeline.sections import TrainSection
from tutelage.records import InputError, Student

from .named import NamedRole, NamedSection, beginning, epochs_of_fresh, named_network, start_kind
from .supernet import Supernet
from .teacher_sets import decided, note_chosen
from .train import take_student, train_student
from .training import PretrainedInput, Start, kd_of
from .winners import Winner

log = logging.getLogger(__name__)


def train_winners(
    ctx: Context,
    supernet: Supernet,
    winners: Sequence[Winner],
    wanted: Sequence[Sequence[Student]],
) -> list[Student]:
    """Train every winner on one schedule, alone and for each wanted set of teachers.

    Each begins with its weights in the supernet or, by `distill.start`, with fresh ones.
    """
    fresh = ctx.recipe.distill.start == "fresh"
    start, epochs = (None, epochs_of_fresh(ctx.recipe)) if fresh else (supernet.part, None)
    trained = []
    for winner in winners:
        student = Student(model=winner.name, role="student", arch=winner.arch)
        trained += train_choices(ctx, student, start, wanted, epochs=epochs)
    return trained


def train_named_students(
    ctx: Context, wanted: Sequence[Sequence[Student]], supernet: Supernet | None = None
) -> list[Student]:
    """Train the students that the recipe names, alone and for each wanted set of teachers."""
    return _train_named(ctx, ctx.recipe.students, "student", supernet, wanted)


def train_baselines(ctx: Context, supernet: Supernet | None, teachers: Sequence[Student]) -> list[Student]:
    """Train the recipe's baselines on the students' schedule, with all teachers (`distill.baselines`) and with none."""
    wanted = [tuple(teachers)] if teachers and ctx.recipe.distill.baselines else []
    return _train_named(ctx, ctx.recipe.baselines, "baseline", supernet, wanted)


def _train_named(
    ctx: Context,
    sections: Sequence[NamedSection],
    role: NamedRole,
    supernet: Supernet | None,
    wanted: Sequence[Sequence[Student]],
) -> list[Student]:
    """Train networks that the recipe names, each from its own start; one with `epochs: 0` is taken as it is, once."""
    trained = []
    for section in sections:
        begun = beginning(ctx, section, role, supernet)
        if isinstance(begun.start, PretrainedInput) and begun.epochs == 0:
            taken = take_student(ctx, begun.student, begun.start)
            ctx.trained([taken], [TeacherSet()])
            trained.append(taken)
            continue
        tuning = Tuning(section.freeze, section.layer_decay)
        trained += train_choices(ctx, begun.student, begun.start, wanted, tuning, begun.epochs)
    return trained


def training_checks(ctx: Context) -> Iterator[Callable[[], object]]:
    """Give what refuses, before any training, unknown networks, schedules that cannot be and options without effect."""
    recipe = ctx.recipe
    names = [teacher.name for teacher in recipe.teachers]
    for name in names:
        yield partial(timm_name, name)
    if recipe.trains_supernet:
        yield from (partial(_check_supernet_teacher, name, names) for name in recipe.supernet.teachers)
    named: list[tuple[NamedSection, NamedRole]] = [(section, "student") for section in recipe.students]
    named += [(section, "baseline") for section in recipe.baselines]
    yield from (partial(_check_named, ctx, section, role) for section, role in named)
    yield partial(_check_supernet_is_used, ctx, named)
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


def _check_named(ctx: Context, section: NamedSection, role: NamedRole) -> None:
    """Refuse a named network that is unknown, a start that it cannot have, and epochs that its schedule cannot have."""
    student = named_network(ctx, section, role)
    if section.epochs:
        place = f"{role}s.{student.model}"
        _check_schedule(place, ctx.recipe.distill.model_copy(update={"epochs": section.epochs}), warns=False)


def _check_supernet_is_used(ctx: Context, named: Sequence[tuple[NamedSection, NamedRole]]) -> None:
    """Refuse a supernet that nothing searches, starts from or is distilled by: its training would be for nothing."""
    if ctx.recipe.searches or not ctx.recipe.trains_supernet or ctx.recipe.distill.supernet_teacher:
        return
    for section, role in named:
        try:
            student = named_network(ctx, section, role)
        except InputError:  # that is refused by itself
            return
        if start_kind(ctx, section, student) == "supernet":
            return
    raise InputError(
        f"supernet: no student or baseline starts from {ctx.recipe.supernet.space}, and nothing searches it: leave the "
        "section out, name a subnet of it, or write a section `search`"
    )


def _check_schedule(name: str, schedule: TrainSection, warns: bool = True) -> None:
    """Refuse what the training loop cannot do; warn of a patience that ends a training before its plateau acts."""
    if schedule.epochs > 0:
        schedule_of(schedule)
    too_short = (schedule.patience or math.inf) <= TrainSchedule.plateau_patience + 1
    if warns and schedule.decay == "plateau" and too_short:
        log.warning(
            "%s: patience %d ends a training before its plateau of %d epochs lowers the learning rate",
            name, schedule.patience, TrainSchedule.plateau_patience,
        )  # fmt: skip


def _check_distillation(ctx: Context) -> None:
    """Refuse a method that these images or teachers do not allow."""
    recipe = ctx.recipe
    compared = bool(recipe.teachers) or recipe.distill.supernet_teacher
    # The best of labels alone and self is chosen, too; a student's own control has no weight beside itself.
    for name, value, has_effect in (
        ("teacher_weight", "validation", compared),
        ("teachers", "best", compared or recipe.distill.self_teacher),
    ):
        if not has_effect and getattr(recipe.distill, name) == value:
            raise InputError(f"distill.{name}: {value} has no effect: the recipe has no teachers; leave it out")
    if recipe.distill.start == "fresh" and not recipe.searches:
        raise InputError("distill.start: fresh is of a search's winners, and the recipe searches nothing: leave it out")
    if recipe.distill.supernet_teacher and not recipe.trains_supernet:
        names = ", ".join(student.name for student in recipe.students)
        raise InputError(
            f"distill.supernet_teacher: true needs a supernet, and this recipe names its students ({names}) and trains "
            "none: leave it out, or search beside them"
        )
    if not recipe.teachers and not recipe.distill.self_teacher and not recipe.distill.supernet_teacher:
        find_loss(recipe.distill.method, ctx.num_classes, ctx.dataset.multi_label)
        return
    # Baselines are distilled by all teachers, students as `teacher_mode` says; a control and the supernet distil alone.
    together = (recipe.baselines and recipe.distill.baselines) or recipe.distill.teacher_mode != "each"
    check_distillation(
        kd_of(recipe.distill),
        ctx.num_classes,
        ctx.dataset.multi_label,
        num_teachers=max(1, len(recipe.teachers)) if together else 1,
        mixing=recipe.distill.mixup > 0 or recipe.distill.cutmix > 0,
    )


def choices(ctx: Context, teachers: Sequence[Student]) -> list[tuple[Student, ...]]:
    """List the sets of teachers that a recipe wants: each teacher, all together, as `distill.teacher_mode` says."""
    how = ctx.recipe.distill.teacher_mode
    alone = [(teacher,) for teacher in teachers] if how != "together" or len(teachers) == 1 else []
    together = [tuple(teachers)] if how != "each" and len(teachers) > 1 else []
    return [*alone, *together]


def train_choices(
    ctx: Context,
    student: Student,
    start: Start,
    wanted: Sequence[Sequence[Student]],
    tuning: Tuning = Tuning(),  # noqa: B008 - frozen
    epochs: int | None = None,
) -> list[Student]:
    """Train one student on labels alone, its control, and then for each set of teachers that `decided` leaves.

    Each is trained with each of the recipe's seeds, and passed to `ctx.trained`. epochs: its own in place of those of
    `distill`.
    """
    controls = _train_seeds(ctx, student, start, (TeacherSet(),) * ctx.recipe.seeds, tuning, epochs)
    trained = [*controls]
    for choice in decided(ctx, student, controls, wanted):
        trained += _train_seeds(ctx, student, start, choice, tuning, epochs)
    note_chosen(ctx, student.model, trained)
    return trained


def _train_seeds(
    ctx: Context, student: Student, start: Start, choice: Sequence[TeacherSet], tuning: Tuning, epochs: int | None
) -> list[Student]:
    seeds = [train_student(ctx, student, start, one, repeat, tuning, epochs) for repeat, one in enumerate(choice)]
    ctx.trained(seeds, choice)
    return seeds
