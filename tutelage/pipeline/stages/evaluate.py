"""Evaluate the deployed file: thresholds are chosen on validation, the test split is used once (`evaluate_variant`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.distill.evaluation.evaluate import Evaluation, choose_threshold, choose_thresholds, evaluate
from tutelage.pipeline.context import Context
from tutelage.pipeline.runtime_files import answers

from .compress import Variant

_PROBS = "probabilities.npz"
_VERSION = 2  # of what this stage files: 2 added the groups
_CHUNK = 2048  # images in memory as floats at a time

Threshold = float | tuple[float, ...] | None  # two classes: one; multi-label: one a label; else none


@dataclass(frozen=True)
class Evaluated:
    """A variant with its figures on the test split, and its probabilities there for paired tests."""

    variant: Variant
    evaluation: Evaluation
    threshold: Threshold
    probs: NDArray[np.float32]
    labels: NDArray[Any]
    validation: Evaluation
    predictions: str  # the probabilities' file, relative to the workspace
    second: Evaluation | None = None  # on the set's second test split, where it has one


def evaluate_variant(ctx: Context, variant: Variant) -> Evaluated:
    """Run validation and test images through the file, once, and compute the figures with 95 % intervals."""
    splits = ("val", "test", *(name for name in ctx.dataset.splits if name == "extra"))
    inputs = {
        "data": ctx.data_key,
        "file": variant.file.sha256,
        "runtime": variant.runtime,
        "seed": ctx.recipe.seed,
        "version": _VERSION,
    }

    def work(folder: Path) -> dict[str, Any]:
        arrays = {}
        for split in splits:
            logits = _answers(ctx, variant, split)
            arrays[f"{split}_probs"] = _probabilities(logits, ctx.dataset.multi_label)
            arrays[f"{split}_labels"] = ctx.dataset.labels[ctx.dataset.indices(split)]
            arrays[f"{split}_groups"] = np.asarray(ctx.dataset.groups[ctx.dataset.indices(split)], dtype=np.str_)
        np.savez(folder / _PROBS, **arrays)  # type: ignore[arg-type]
        ctx.report(f"evaluate {variant.title}", 1, 1)
        return {"file": _PROBS}

    stage = ctx.workspace.stage(f"evaluate {variant.title}", inputs, work)
    with np.load(stage.folder / _PROBS) as arrays:
        predictions = {split: (arrays[f"{split}_probs"], arrays[f"{split}_labels"]) for split in splits}
    threshold = choose(*predictions["val"], ctx.num_classes, ctx.dataset.multi_label)
    figures = {
        split: evaluate(
            probs,
            labels,
            ctx.dataset.groups[ctx.dataset.indices(split)],
            threshold=threshold,
            multi_label=ctx.dataset.multi_label,
            bootstrap=ctx.recipe.measure.bootstrap,
            seed=ctx.seed("bootstrap"),
        )
        for split, (probs, labels) in predictions.items()
    }
    filed = ctx.workspace.relative(stage.folder / _PROBS)
    probs, labels = predictions["test"]
    return Evaluated(variant, figures["test"], threshold, probs, labels, figures["val"], filed, figures.get("extra"))


def choose(probs: NDArray[np.float32], labels: NDArray[Any], num_classes: int, multi_label: bool) -> Threshold:
    """Choose thresholds on validation predictions: one for two classes, one a label of multi-label data, else none."""
    if multi_label:
        return choose_thresholds(probs, labels)
    return float(choose_threshold(probs, labels)) if num_classes == 2 else None


def _answers(ctx: Context, variant: Variant, split: str) -> NDArray[np.float32]:
    """Give the logits of a split, in chunks: a large one does not fit in memory as floats."""
    places = np.arange(len(ctx.dataset.indices(split)))
    side = ctx.resolution(variant.student)
    parts = [places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
    return np.concatenate([answer(ctx, variant, ctx.split(split, side, part)[0]) for part in parts])


def answer(ctx: Context, variant: Variant, images: Tensor) -> NDArray[np.float32]:
    """Give the logits `(n, classes)` of the file, in its runtime, for normalised images `(n, c, r, r)`."""
    return answers(variant.runtime, ctx.workspace.path / variant.file.path, images.numpy(), ctx.threads)


def _probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    if multi_label:
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
