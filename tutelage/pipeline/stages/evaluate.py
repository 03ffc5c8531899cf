"""Evaluate the deployed file: thresholds are chosen on validation, the test split is used once (`evaluate_variant`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.distill.evaluation.evaluate import Evaluation, choose_threshold, choose_thresholds, evaluate
from tutelage.pipeline.context import Context, Opened, Resources, run_stage
from tutelage.pipeline.keys.stage_inputs import FileInput, ImagesInput, OwnNormalisation, StageInputs, versions_of
from tutelage.pipeline.runtime_files import answers
from tutelage.pipeline.workspace import Stage
from tutelage.records import InputError, NotAvailableError

from .compress import Variant

_PROBS = "probabilities.npz"
# Images in memory as floats at a time: a multiple of the runtimes' batch of 64, so that no prediction depends on it.
_BATCH, _MAX_CHUNK, _CHUNK_BYTES = 64, 2048, 2**29

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
    stage: str = ""  # key of the stage that filed the probabilities


class EvaluateInputs(StageInputs):
    """The predictions of one model file, by its runtime, on validation and test images."""

    STAGE: ClassVar[str] = "evaluate"

    images: ImagesInput
    file: FileInput
    runtime: str
    origin: str  # distribution and version of the plug-in that declares the runtime; empty: built in
    side: int
    normalisation: OwnNormalisation

    def promise(self, key: str) -> dict[str, Any]:
        return {"file": _PROBS}


def evaluate_variant(ctx: Context, variant: Variant) -> Evaluated:
    """Run validation and test images through the file, once, and compute the figures with 95 % intervals."""
    stage = evaluate_stage(ctx, variant)
    splits = _splits(ctx)
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
            bootstrap=0 if split == "val" else ctx.recipe.measure.bootstrap,  # no interval on validation is shown
            seed=ctx.seed("bootstrap"),
        )
        for split, (probs, labels) in predictions.items()
    }
    filed = ctx.workspace.relative(stage.folder / _PROBS)
    probs, labels = predictions["test"]
    return Evaluated(
        variant, figures["test"], threshold, probs, labels, figures["val"], filed, figures.get("extra"), stage.key
    )


def evaluate_stage(ctx: Context, variant: Variant) -> Stage:
    """Give the stage that files the predictions of a variant."""
    known = find_runtime(variant.runtime)
    inputs = EvaluateInputs(
        title=f"evaluate {variant.title}",
        versions=versions_of([known.distribution]),
        images=ctx.images_input,
        file=FileInput.of(variant.file),
        runtime=variant.runtime,
        origin=RUNTIMES.origin_name(variant.runtime),
        side=ctx.resolution(variant.student),
        normalisation=variant.student.normalisation,
    )
    return run_stage(ctx, inputs, _evaluate)


def _evaluate(inputs: EvaluateInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Run validation and test images through the file and file the probabilities, labels and groups."""
    arrays = {}
    for split in _splits(here):
        try:
            logits = _answers(inputs, here, split)
        except NotAvailableError:
            raise
        except InputError as error:
            return {"left_out": str(error)}
        arrays[f"{split}_probs"] = _probabilities(logits, here.dataset.multi_label)
        arrays[f"{split}_labels"] = here.dataset.labels[here.dataset.indices(split)]
        arrays[f"{split}_groups"] = np.asarray(here.dataset.groups[here.dataset.indices(split)], dtype=np.str_)
    np.savez(folder / _PROBS, **arrays)  # type: ignore[arg-type]
    here.report(inputs.title, 1, 1)
    return {"file": _PROBS}


def _splits(here: Opened) -> tuple[str, ...]:
    return ("val", "test", *(name for name in here.dataset.splits if name == "extra"))


def choose(probs: NDArray[np.float32], labels: NDArray[Any], num_classes: int, multi_label: bool) -> Threshold:
    """Choose thresholds on validation predictions: one for two classes, one a label of multi-label data, else none."""
    if multi_label:
        return choose_thresholds(probs, labels)
    return float(choose_threshold(probs, labels)) if num_classes == 2 else None


def _answers(inputs: EvaluateInputs, here: Resources, split: str) -> NDArray[np.float32]:
    """Give the logits of a split, in chunks: a large one does not fit in memory as floats."""
    places = np.arange(len(here.dataset.indices(split)))
    model = here.workspace.path / inputs.file.path
    size = chunk(here.channels, inputs.side)
    parts = [places[start : start + size] for start in range(0, len(places), size)]
    images = (here.split(split, inputs.side, part, inputs.normalisation)[0].numpy() for part in parts)
    return np.concatenate([answers(inputs.runtime, model, part, here.threads) for part in images])


def chunk(channels: int, side: int) -> int:
    """Say how many images are held in memory as floats at a time."""
    return min(_MAX_CHUNK, max(_BATCH, _CHUNK_BYTES // (4 * channels * side**2) // _BATCH * _BATCH))


def _probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    if multi_label:
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
