"""What teaching was worth: every taught student against its twin without a teacher, and against its teachers.

Enters: the judged files of a run, all seeds. Leaves: details for the rows, p values corrected over the run (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.distill.gain import Gain, correct, label_gains, measure_gain

from .context import Context
from .evaluate import Judged

Details = dict[str, dict[str, Any]]


def gains(ctx: Context, judged: Sequence[Judged]) -> Details:
    """Give `gain_over_twin`, `against_teachers` and `seeds` for the rows, by the id of each file of the first seed.

    Comparisons of one kind, in one scheme on one runtime, are corrected together: int8 rows repeat the fp32 ones.
    """
    details: Details = {_name(one): {} for one in judged if one.variant.student.seed == ctx.recipe.seed}
    for scheme, runtime in sorted({(one.variant.scheme, one.variant.runtime) for one in judged}):
        here = [one for one in judged if (one.variant.scheme, one.variant.runtime) == (scheme, runtime)]
        series = _series(here)
        for seeds in series.values():
            if ctx.recipe.seeds > 1 and len(seeds) > 1:
                details[_name(seeds[0])]["seeds"] = over_seeds(seeds)
        _twins(ctx, series, details)
        _teachers(ctx, series, details)
    return details


def over_seeds(seeds: Sequence[Judged]) -> dict[str, Any]:
    """Give the figures of every seed, with their mean and sample deviation; the row's own file is the first seed's."""
    found: dict[str, Any] = {"seeds": [one.variant.student.seed for one in seeds]}
    for name in ("accuracy", "auc"):
        values = [getattr(one.evaluation, name) for one in seeds]
        known = [value for value in values if value is not None]
        found[name] = values
        found[f"{name}_mean"] = float(np.mean(known)) if known else None
        found[f"{name}_sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return found


# (is a teacher, model, teacher) -> its seeds: a student may have its teacher's architecture, and its name
Series = dict[tuple[bool, str, str], list[Judged]]


def _series(judged: Sequence[Judged]) -> Series:
    found: Series = {}
    for one in sorted(judged, key=lambda one: one.variant.student.seed):
        student = one.variant.student
        found.setdefault((student.role == "teacher", student.model, student.teacher), []).append(one)
    return found


def _twins(ctx: Context, series: Series, details: Details) -> None:
    pairs = [
        (seeds, series[False, model, ""])
        for (_, model, teacher), seeds in series.items()
        if teacher and (False, model, "") in series
    ]
    for (mine, twins), gain in zip(pairs, _corrected(ctx, pairs), strict=True):
        told: dict[str, Any] = {"verdict": gain.verdict, **gain.to_dict(), "corrected_for": len(pairs)}
        if ctx.dataset.multi_label:
            tests = label_gains(mine[0].probs, twins[0].probs, mine[0].labels)
            told["per_label"] = {
                name: {"auc": _known(test.difference), "auc_lo": _known(test.low), "auc_hi": _known(test.high),
                       "delong_p": _known(test.p)}
                for name, test in zip(ctx.dataset.class_names, tests, strict=True)
            }  # fmt: skip
        details[_name(mine[0])]["gain_over_twin"] = told


def _teachers(ctx: Context, series: Series, details: Details) -> None:
    """Hold students against each teacher they had: a student's gain over its teacher, mostly below zero."""
    pairs, names = [], []
    for (_, _, taught_by), seeds in series.items():
        for teacher in taught_by.split("+") if taught_by else ():
            found = series.get((True, teacher, ""))
            if found:
                pairs.append((seeds, found * len(seeds)))
                names.append(teacher)
    for (mine, _), teacher, gain in zip(pairs, names, _corrected(ctx, pairs), strict=True):
        told = {"verdict": gain.verdict, **gain.to_dict(), "corrected_for": len(pairs)}
        details[_name(mine[0])].setdefault("against_teachers", {})[teacher] = told


def _corrected(ctx: Context, pairs: Sequence[tuple[Sequence[Judged], Sequence[Judged]]]) -> list[Gain]:
    groups = ctx.dataset.groups[ctx.dataset.indices("test")]
    return correct(
        [
            measure_gain(
                [one.probs for one in first],
                [one.probs for one in second],
                first[0].labels,
                groups,
                first_thresholds=[one.threshold for one in first],
                second_thresholds=[one.threshold for one in second],
                multi_label=ctx.dataset.multi_label,
                bootstrap=ctx.recipe.measure.bootstrap,
                seed=ctx.seed("gain"),
            )
            for first, second in pairs
        ]
    )


def _name(one: Judged) -> str:
    return one.variant.file.sha256 + one.variant.runtime


def details_of(found: Details, one: Judged) -> dict[str, Any]:
    """Give the details of one judged file; empty for what was not compared."""
    return found.get(_name(one), {})


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
