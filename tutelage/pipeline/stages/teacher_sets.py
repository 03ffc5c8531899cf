"""Which teachers distil a student: each is compared with the student's control on validation before it is used.

`decided` gives the choices of teachers of one student, with their weights; `chosen` the one that validation chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.distill.evaluation.paired import FileFigures, compare_files, mean_figures
from tutelage.leaderboard.best import Candidate, choose, verdict_among
from tutelage.pipeline.context import Context, TeacherSet
from tutelage.pipeline.sections import DistillSection
from tutelage.records import Comparison, Student

from .validation import validation_figures

# What rows call the teacher of a student that its own control distils.
SELF = "self"


@dataclass(frozen=True)
class Compared:
    """A teacher and the control of a student on the same validation images; `test` is teacher less control."""

    teacher: str
    student: str
    values: tuple[float, float]  # of the teacher and of the control
    test: Comparison

    @property
    def weight(self) -> float:
        """Give the teacher's weight, in hundredths: max(0, 1 + difference / half the 95 % interval), at most 1.

        It is 1 where the teacher is at least as good, and 0 where the whole interval lies below 0. Where the interval
        is not defined nothing shows that the teacher is weaker, and it is 1.
        """
        found = self.test
        if found.difference is None or found.high is None or found.difference >= 0:
            return 1.0
        return round(max(0.0, 1 + found.difference / (found.high - found.difference)), 2)

    @property
    def is_weaker(self) -> bool:
        """Say whether the teacher's figure is the lower one, by however little."""
        return self.test.difference is not None and self.test.difference < 0

    @property
    def is_surely_weaker(self) -> bool:
        """Say whether the whole 95 % interval lies below 0."""
        return self.test.high is not None and self.test.high < 0

    @property
    def text(self) -> str:
        """Say it in one line, e.g. `teacher a: validation AUC .905, below .969 of its student b alone: -.064 [...]`."""
        figure = "AUC" if self.test.figure == "auc" else "accuracy"
        mine, control = (f"{value:.3f}".removeprefix("0") for value in self.values)
        low, high = self.test.low, self.test.high
        ends = "not defined" if low is None or high is None else f"{low:+.3f} to {high:+.3f}".replace("0.", ".")
        sure = "surely weaker" if self.is_surely_weaker else "weaker, not beyond the noise"
        return (
            f"teacher {self.teacher}: validation {figure} {mine}, below its student {self.student} alone {control}; "
            f"95 % interval of the difference {ends}: {sure}"
        )


def decided(
    ctx: Context, student: Student, controls: Sequence[Student], wanted: Sequence[Sequence[Student]]
) -> list[tuple[TeacherSet, ...]]:
    """Decide by validation which of the wanted sets of teachers distil a student; give a choice a seed for each set.

    controls: the student trained on labels alone, one a seed. A teacher that is weaker than they are on average is
    reported. Those without weight, and of `teachers: best` those that are surely weaker, are dropped from every set.
    In a plan, what depends on comparisons that are not made yet is left out and reported as undecided.
    """
    section, seeds = ctx.recipe.distill, len(controls)
    choices: list[tuple[TeacherSet, ...]] = []
    teachers = {teacher.model: teacher for some in wanted for teacher in some}
    compared = {name: _compare(ctx, student, teacher, controls) for name, teacher in teachers.items()}
    if _reads_validation(section) and any(found is None for found in compared.values()):
        ctx.undecided(f"what distils {student.model}")
    else:
        known = [found for found in compared.values() if found is not None]
        dropped = {found.teacher for found in known if _drops(section, found)}
        for found in known:
            if found.is_weaker:
                ctx.note(f"{found.text}; {_consequence(section, found)}")
        left = dict.fromkeys(tuple(one.model for one in some if one.model not in dropped) for some in wanted)
        choices += [(_choice(section, [teachers[name] for name in names], known),) * seeds for names in left if names]
    if section.self_teacher and student.role == "student":
        own = [control.model_copy(update={"model": SELF, "role": "teacher"}) for control in controls]
        choices.append(tuple(TeacherSet((teacher,)) for teacher in own))
    return choices


def chosen(ctx: Context, student: str, trained: Sequence[Student]) -> str | None:
    """Name the teachers of the best of a student's trainings by validation; None in a plan, before they are predicted.

    It is the leaderboard's rule: a distilled student is chosen where it has surely gained over its control.
    """
    names = list(dict.fromkeys(one.teacher for one in trained if one.model == student))
    figures = [_figures(ctx, [one for one in trained if (one.model, one.teacher) == (student, name)]) for name in names]
    known = [found for found in figures if found is not None]
    if len(known) < len(names):
        return None
    margin, alone = ctx.recipe.measure.margin, names.index("")
    name = _figure(known)

    def verdict(first: int, second: int, times: int) -> str:
        return verdict_among(compare_files(known[first], known[second], margin=margin)[name], margin, times)

    candidates = [
        Candidate(getattr(found, name).value, None, None, bool(teachers), alone if teachers else None)
        for teachers, found in zip(names, known, strict=True)
    ]
    place = choose(
        candidates,
        lambda place, best: verdict(place, best, 1) == "equivalent",
        margin,
        lambda place, control: verdict(place, control, len(names) - 1) == "gained",
    )
    return names[place]


def note_chosen(ctx: Context, student: str, trained: Sequence[Student]) -> None:
    """Say which training of a student validation chooses, where the recipe wants the best of its teachers."""
    names = list(dict.fromkeys(one.teacher or "labels alone" for one in trained))
    if ctx.recipe.distill.teachers == "best" and len(names) > 1:
        ctx.note(
            f"{student}: validation chooses {chosen(ctx, student, trained) or 'labels alone'} of {', '.join(names)}"
        )


def _reads_validation(section: DistillSection) -> bool:
    return section.teacher_weight == "validation" or section.teachers == "best"


def _drops(section: DistillSection, found: Compared) -> bool:
    no_weight = section.teacher_weight == "validation" and found.weight == 0
    return no_weight or (section.teachers == "best" and found.is_surely_weaker)


def _consequence(section: DistillSection, found: Compared) -> str:
    """Say what follows of a teacher that is weaker than the control."""
    if _drops(section, found):
        return "it is dropped"
    if section.teacher_weight == "validation":
        return f"its weight is {found.weight:.2f}"
    if found.is_surely_weaker:
        return "it distils all the same; distill.teacher_weight=validation or distill.teachers=best would drop it"
    return "it distils with its full weight"


def _choice(section: DistillSection, teachers: Sequence[Student], known: Sequence[Compared]) -> TeacherSet:
    found = {one.teacher: one for one in known}
    weights: tuple[float, ...] = ()
    if section.teacher_weight == "validation":
        weights = tuple(found[teacher.model].weight for teacher in teachers)
    weaker = [found[one.model] for one in teachers if one.model in found and found[one.model].is_weaker]
    notes = tuple(f"{one.text}; {_consequence(section, one)}" for one in weaker)
    return TeacherSet(tuple(teachers), weights, notes)


def _compare(ctx: Context, student: Student, teacher: Student, controls: Sequence[Student]) -> Compared | None:
    """Compare a teacher with a student's controls of all seeds; None in a plan, before they are predicted."""
    own = _figures(ctx, controls)
    theirs = validation_figures(ctx, teacher, f"teacher {teacher.model}")
    if own is None or theirs is None:
        return None
    name = _figure([theirs, own])
    test = compare_files(theirs, own, margin=ctx.recipe.measure.margin, num_seeds=len(controls))[name]
    values = (float(getattr(theirs, name).value), float(getattr(own, name).value))
    return Compared(teacher.model, student.model, values, test)


def _figures(ctx: Context, seeds: Sequence[Student]) -> FileFigures | None:
    """Give the mean figures of one network's seeds on validation; None in a plan, before they are predicted."""
    found = [validation_figures(ctx, one, _title(one)) for one in seeds]
    known = [one for one in found if one is not None]
    return mean_figures(known) if len(known) == len(found) else None


def _title(student: Student) -> str:
    by = f" from {student.teacher}" if student.teacher else " alone"
    return f"{student.model}{by}, seed {student.seed}"


def _figure(figures: Sequence[FileFigures]) -> str:
    """Name the figure that decides: AUC, or accuracy where an AUC is undefined."""
    return "auc" if all(math.isfinite(one.auc.value) for one in figures) else "accuracy"
