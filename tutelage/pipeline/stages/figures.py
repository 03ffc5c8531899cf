"""Thresholds and figures of the predictions that a stage filed: computed once and kept beside them (`figures_of`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.evaluation.evaluate import Evaluation, choose_threshold, choose_thresholds, evaluate
from tutelage.files import sha256_of, write_json
from tutelage.pipeline.context import Context
from tutelage.pipeline.keys.stage_inputs import versions_of
from tutelage.records import content_id

Threshold = float | tuple[float, ...] | None  # two classes: one; multi-label: one a label; else none
Predictions = Mapping[str, tuple[NDArray[np.float32], NDArray[Any]]]  # probabilities and labels by split

# Raise when `evaluate` or the choice of thresholds gives other figures of the same predictions than before.
_VERSION = 1


def figures_of(
    ctx: Context, file: Path, predictions: Predictions, on_sets: Mapping[str, NDArray[np.float32]] | None = None
) -> tuple[Threshold, dict[str, Evaluation]]:
    """Give the threshold and each split's figures of the predictions that a stage filed in `file`.

    on_sets: probabilities on further test sets of the recipe by name, whose figures are given as `set_NAME`.
    They are kept in the stage's folder, under a name that holds all that they depend on.
    """
    bootstrap, seed = ctx.recipe.measure.bootstrap, ctx.seed("bootstrap")
    read = {
        "version": _VERSION, "libraries": versions_of(["numpy", "scipy"]), "predictions": sha256_of(file),
        "images": ctx.images_input.digest, "bootstrap": bootstrap, "seed": seed,
    }  # fmt: skip
    sets = on_sets or {}
    if sets:
        read["sets"] = {name: ctx.set_input(name).digest for name in sets}
    kept = file.with_name(f"figures-{content_id(read)}.json")
    with suppress(OSError, ValueError, LookupError, TypeError):  # none, or damaged
        return _read(kept)
    threshold = choose(*predictions["val"], ctx.num_classes, ctx.dataset.multi_label)
    score = partial(evaluate, threshold=threshold, multi_label=ctx.dataset.multi_label, seed=seed)
    figures = {
        split: score(
            probs,
            labels,
            ctx.dataset.groups[ctx.dataset.indices(split)],
            bootstrap=0 if split == "val" else bootstrap,  # no interval on validation is shown
        )
        for split, (probs, labels) in predictions.items()
    }
    for name, probs in sets.items():
        data = ctx.shift_sets[name]
        places = data.indices("test")
        figures[f"set_{name}"] = score(probs, data.labels[places], data.groups[places], bootstrap=bootstrap)
    with suppress(OSError):  # a folder that is not ours to write: the next run computes them again
        write_json(kept, {"threshold": threshold, "figures": {split: one.to_dict() for split, one in figures.items()}})
    return threshold, figures


def choose(probs: NDArray[np.float32], labels: NDArray[Any], num_classes: int, multi_label: bool) -> Threshold:
    """Choose thresholds on validation predictions: one for two classes, one a label of multi-label data, else none."""
    if multi_label:
        return choose_thresholds(probs, labels)
    return float(choose_threshold(probs, labels)) if num_classes == 2 else None


def _read(file: Path) -> tuple[Threshold, dict[str, Evaluation]]:
    held = json.loads(file.read_text())
    threshold = held["threshold"]
    figures = {split: Evaluation.from_dict(one) for split, one in held["figures"].items()}
    return tuple(threshold) if isinstance(threshold, list) else threshold, figures
