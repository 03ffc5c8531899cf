"""Effect of a teacher: every distilled student against its control without a teacher, and against its teachers.

`gains` gives the details that rows show, p values adjusted over the run; the claim about a teacher (over seeds) and
the one about the files at hand are kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.distill.evaluation.gain import compare_labels, compare_trainings, over_seeds
from tutelage.distill.evaluation.paired import (
    FIGURES,
    FileFigures,
    compare_files,
    correct,
    file_figures,
    mean_figures,
)
from tutelage.pipeline.context import Context
from tutelage.records import Comparison

from .evaluate import Evaluated

Details = dict[str, dict[str, Any]]
Tests = Mapping[str, Comparison]  # by figure


@dataclass(frozen=True)
class _Seeds:
    """The files of one network, one a seed, with what the tests need of each."""

    evaluated: list[Evaluated]
    figures: list[FileFigures]


# (is a teacher, model, teacher) -> its seeds: a student may have its teacher's architecture, and its name
Series = dict[tuple[bool, str, str], _Seeds]


def gains(ctx: Context, evaluated: Sequence[Evaluated]) -> Details:
    """Give `gain_over_control`, `against_teachers` and `seeds` for the rows, by the id of each file of the first seed.

    Comparisons of one kind, in one scheme on one runtime, are corrected together: int8 rows repeat the fp32 ones.
    """
    details: Details = {_name(one): {} for one in evaluated if one.variant.student.seed == ctx.recipe.seed}
    for scheme, runtime in sorted({(one.variant.scheme, one.variant.runtime) for one in evaluated}):
        here = [one for one in evaluated if (one.variant.scheme, one.variant.runtime) == (scheme, runtime)]
        series = _series(ctx, here)
        for seeds in series.values():
            if ctx.recipe.seeds > 1 and len(seeds.evaluated) > 1:
                details[_name(seeds.evaluated[0])]["seeds"] = seeds_of(seeds.evaluated, seeds.figures)
        _against_controls(ctx, series, details)
        _teachers(ctx, series, details)
    return details


def seeds_of(evaluated: Sequence[Evaluated], figures: Sequence[FileFigures]) -> dict[str, Any]:
    """Give the figures of every seed with mean, standard deviation and an interval over seeds and groups.

    The row's `auc` and `accuracy` are the means. Its file, with size, latency, threshold and per-class figures, is the
    first seed's: `file` has that file's own figures.
    """
    first = evaluated[0]
    found: dict[str, Any] = {
        "seeds": [one.variant.student.seed for one in evaluated],
        "files": [{"predictions": one.predictions, "threshold": one.threshold} for one in evaluated],
        "file": {
            "seed": first.variant.student.seed,
            **{f"{name}{end}": getattr(first.evaluation, f"{name}{end}")
               for name in FIGURES for end in ("", "_lo", "_hi")},
        },
    }  # fmt: skip
    for name, test in over_seeds(figures).items():
        values = [getattr(one.evaluation, name) for one in evaluated]
        known = [value for value in values if value is not None]
        found[name] = values
        found[f"{name}_mean"] = _known(test.difference)
        found[f"{name}_sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
        found |= {f"{name}_lo": _known(test.low), f"{name}_hi": _known(test.high)}
    return found


def _series(ctx: Context, evaluated: Sequence[Evaluated]) -> Series:
    groups = ctx.dataset.groups[ctx.dataset.indices("test")]
    found: Series = {}
    for one in sorted(evaluated, key=lambda one: one.variant.student.seed):
        student = one.variant.student
        seeds = found.setdefault((student.role == "teacher", student.model, student.teacher), _Seeds([], []))
        seeds.evaluated.append(one)
        seeds.figures.append(
            file_figures(one.probs, one.labels, groups, threshold=one.threshold, multi_label=ctx.dataset.multi_label)
        )
    return found


def _against_controls(ctx: Context, series: Series, details: Details) -> None:
    """Test each distilled student against the same student trained without a teacher, seed by seed."""
    margin = ctx.recipe.measure.margin
    pairs = [
        (seeds, series[False, model, ""])
        for (_, model, teacher), seeds in series.items()
        if teacher and (False, model, "") in series
    ]
    teachers = _corrected([compare_trainings(mine.figures, control.figures, margin=margin) for mine, control in pairs])
    files = _corrected([_files(mine, control, margin) for mine, control in pairs])
    for (mine, control), helped, differ in zip(pairs, teachers, files, strict=True):
        gain = {
            **_as_details(helped),
            "file_verdict": _foremost(differ).text,
            "claims": {
                "teacher": {name: one.to_dict() for name, one in helped.items()},
                "file": {name: one.to_dict() for name, one in differ.items()},
            },
        }
        if ctx.dataset.multi_label:
            gain["per_label"] = _per_label(ctx, mine, control)
        details[_name(mine.evaluated[0])]["gain_over_control"] = gain


def _per_label(ctx: Context, mine: _Seeds, control: _Seeds) -> dict[str, dict[str, Any]]:
    first, second = ([one.probs for one in seeds.evaluated] for seeds in (mine, control))
    groups = ctx.dataset.groups[ctx.dataset.indices("test")]
    tests = compare_labels(first, second, mine.evaluated[0].labels, groups, margin=ctx.recipe.measure.margin)
    return {
        name: {"verdict": test.verdict, "auc": test.difference, "auc_lo": test.low, "auc_hi": test.high,
               "auc_p": test.p}
        for name, test in zip(ctx.dataset.class_names, tests, strict=True)
    }  # fmt: skip


def _teachers(ctx: Context, series: Series, details: Details) -> None:
    """Compare students with each teacher they had, as files: mostly the student's figures are the lower ones."""
    pairs, names = [], []
    for (_, _, distilled_by), seeds in series.items():
        for teacher in distilled_by.split("+") if distilled_by else ():
            found = series.get((True, teacher, ""))
            if found:
                pairs.append((seeds, found))
                names.append(teacher)
    tests = _corrected([_files(mine, teacher, ctx.recipe.measure.margin) for mine, teacher in pairs])
    for (mine, _), teacher, differ in zip(pairs, names, tests, strict=True):
        details[_name(mine.evaluated[0])].setdefault("against_teachers", {})[teacher] = _as_details(differ)


def _files(first: _Seeds, second: _Seeds, margin: float) -> dict[str, Comparison]:
    """Compare the files of two networks, their means where there are several seeds; a teacher is trained once."""
    means = [mean_figures(seeds.figures) for seeds in (first, second)]
    return compare_files(*means, margin=margin, num_seeds=len(first.figures))


def _corrected(tests: Sequence[Tests]) -> list[dict[str, Comparison]]:
    adjusted = iter(correct([one for some in tests for one in some.values()]))
    return [{name: next(adjusted) for name in some} for some in tests]


def _foremost(tests: Tests) -> Comparison:
    """Choose the figure of the verdict: AUC, or accuracy where AUC is undefined."""
    return tests["auc"] if tests["auc"].difference is not None else tests["accuracy"]


def _as_details(tests: Tests) -> dict[str, Any]:
    """Give a comparison as rows hold it: `verdict` in words, `outcome` as one of the four, then the figures."""
    one = _foremost(tests)
    found = {"verdict": one.text, "outcome": one.verdict, "num_seeds": one.num_seeds, "num_groups": one.num_groups}
    for name, test in tests.items():
        found |= {name: test.difference, f"{name}_lo": test.low, f"{name}_hi": test.high}
        # A column with a p reads as a claim: where seeds are too few for one, only `claims` has it.
        found[f"{name}_p"] = None if test.too_few_seeds else test.p
    return {**found, "margin": one.margin, "corrected_for": one.num_comparisons}


def _name(one: Evaluated) -> str:
    return one.variant.file.sha256 + one.variant.runtime


def details_of(found: Details, one: Evaluated) -> dict[str, Any]:
    """Give the details of one evaluated file; empty for what was not compared."""
    return found.get(_name(one), {})


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
