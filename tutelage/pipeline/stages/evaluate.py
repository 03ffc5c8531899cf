"""Evaluate the deployed file: thresholds are chosen on validation, the test split is used once (`evaluate_variant`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.corruptions import comparable
from tutelage.distill.evaluation.corrupt import CORRUPT_VERSION, corrupt
from tutelage.distill.evaluation.evaluate import Evaluation, evaluate
from tutelage.pipeline.context import Context, Opened, Resources, run_stage
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import FileInput, ImagesInput, OwnNormalisation, Part, StageInputs, versions_of
from tutelage.pipeline.runtime_files import answers
from tutelage.pipeline.workspace import Stage
from tutelage.records import InputError, NotAvailableError

from .compress import Variant
from .figures import Threshold, choose, figures_of

_PROBS = "probabilities.npz"
# Images in memory as floats at a time: a multiple of the runtimes' batch of 64, so that no prediction depends on it.
_BATCH, _MAX_CHUNK, _CHUNK_BYTES = 64, 2048, 2**29


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
    shift: Mapping[str, Any] | None = None  # mean figures on corrupted test images, and those of each corruption
    sets: Mapping[str, SetFigures] = field(default_factory=dict)  # of further test sets, by name

    @property
    def shift_details(self) -> dict[str, Any]:
        """Give the figures on corrupted images and further test sets as a row's details hold them."""
        sets = {name: one.to_dict() for name, one in self.sets.items()}
        return {**(comparable(self.shift) if self.shift is not None else {}), **({"sets": sets} if sets else {})}


@dataclass(frozen=True)
class SetFigures:
    """The figures on a further test set, and what the set is of."""

    evaluation: Evaluation
    images: str  # hash of the set's images, labels and groups
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        names = [f"{name}{end}" for name in ("accuracy", "auc") for end in ("", "_lo", "_hi")]
        figures = {name: getattr(self.evaluation, name) for name in ("num_images", *names)}
        return {**figures, "images": self.images, **({"notes": list(self.notes)} if self.notes else {})}


class ShiftInput(Part):
    """How test images are corrupted."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    version: int  # of the code that corrupts


class SetInput(Part):
    """A further test set."""

    name: str  # the probabilities are filed under it
    images: ImagesInput


class EvaluateInputs(StageInputs):
    """The predictions of one model file, by its runtime, on validation and test images; figures on corrupted ones."""

    STAGE: ClassVar[str] = "evaluate"

    images: ImagesInput
    file: FileInput
    runtime: str
    origin: str  # distribution and version of the plug-in that declares the runtime; empty: built in
    side: int
    normalisation: OwnNormalisation
    shift: Annotated[ShiftInput | None, Former(None)] = None
    sets: Annotated[tuple[SetInput, ...], Former(())] = ()

    @property
    def places(self) -> dict[str, str]:
        shift = {f"shift.{name}": f"measure.{name}" for name in ("corruptions", "severities")}
        return {**shift, "sets": "measure.shift_sets"}

    def promise(self, key: str) -> dict[str, Any]:
        return {"file": _PROBS}


def evaluate_variant(ctx: Context, variant: Variant) -> Evaluated:
    """Run validation and test images through the file, once, and compute the figures with 95 % intervals."""
    stage = evaluate_stage(ctx, variant)
    splits = _splits(ctx)
    with np.load(stage.folder / _PROBS) as arrays:
        predictions = {split: (arrays[f"{split}_probs"], arrays[f"{split}_labels"]) for split in splits}
        on_sets = {name: arrays[f"set_{name}_probs"] for name in _set_names(ctx, variant)}
    threshold, figures = figures_of(ctx, stage.folder / _PROBS, predictions, on_sets)
    sets = {
        name: SetFigures(figures[f"set_{name}"], ctx.set_input(name).digest, ctx.shift_sets[name].notes)
        for name in on_sets
    }
    filed = ctx.workspace.relative(stage.folder / _PROBS)
    probs, labels = predictions["test"]
    return Evaluated(
        variant, figures["test"], threshold, probs, labels, figures["val"], filed, figures.get("extra"), stage.key,
        stage.result.get("shift"), sets,
    )  # fmt: skip


def _set_names(ctx: Context, variant: Variant) -> tuple[str, ...]:
    """Name the further test sets of a file: those of the first seed, which rows show."""
    return tuple(ctx.recipe.measure.shift_sets) if variant.student.seed == ctx.recipe.seed else ()


def evaluate_stage(ctx: Context, variant: Variant) -> Stage:
    """Give the stage that files the predictions of a variant."""
    known, shift = find_runtime(variant.runtime), _shift_input(ctx, variant)
    inputs = EvaluateInputs(
        title=f"evaluate {variant.title}",
        versions=versions_of([known.distribution, *(["pillow", "numpy"] if shift else [])]),
        images=ctx.images_input,
        file=FileInput.of(variant.file),
        runtime=variant.runtime,
        origin=RUNTIMES.origin_name(variant.runtime),
        side=ctx.resolution(variant.student),
        normalisation=variant.student.normalisation,
        shift=shift,
        sets=tuple(SetInput(name=name, images=ctx.set_input(name)) for name in _set_names(ctx, variant)),
    )
    return run_stage(ctx, inputs, _evaluate)


def _shift_input(ctx: Context, variant: Variant) -> ShiftInput | None:
    measure = ctx.recipe.measure
    if not measure.corruptions or variant.student.seed != ctx.recipe.seed:  # rows show those of the first seed
        return None
    return ShiftInput(corruptions=measure.corruptions, severities=measure.severities, version=CORRUPT_VERSION)


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
    for one in inputs.sets:
        logits = _answers(inputs, replace(here, dataset=here.shift_sets[one.name]), "test")
        arrays[f"set_{one.name}_probs"] = _probabilities(logits, here.dataset.multi_label)
    np.savez(folder / _PROBS, **arrays)  # type: ignore[arg-type]
    shift = {} if inputs.shift is None else {"shift": _under_shift(inputs, inputs.shift, here, arrays)}
    here.report(inputs.title, 1, 1)
    return {"file": _PROBS, **shift}


def _splits(here: Opened) -> tuple[str, ...]:
    return ("val", "test", *(name for name in here.dataset.splits if name == "extra"))


def _answers(inputs: EvaluateInputs, here: Resources, split: str) -> NDArray[np.float32]:
    """Give the logits of a split, in chunks: a large one does not fit in memory as floats."""
    places = np.arange(len(here.dataset.indices(split)))
    model = here.workspace.path / inputs.file.path
    size = chunk(here.channels, inputs.side)
    parts = [places[start : start + size] for start in range(0, len(places), size)]
    images = (here.split(split, inputs.side, part, inputs.normalisation)[0].numpy() for part in parts)
    return np.concatenate([answers(inputs.runtime, model, part, here.threads) for part in images])


def _under_shift(
    inputs: EvaluateInputs, shift: ShiftInput, here: Resources, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Give accuracy and AUC on corrupted test images: of each corruption the mean of its severities, and their mean.

    By the threshold that was chosen on clean validation images, as the file is deployed with it.
    """
    multi_label = here.dataset.multi_label
    threshold = choose(arrays["val_probs"], arrays["val_labels"], here.num_classes, multi_label)
    found: dict[str, dict[str, float | None]] = {}
    for number, name in enumerate(shift.corruptions):
        here.report(f"{inputs.title}: {name}", number, len(shift.corruptions))
        each = [
            evaluate(
                _probabilities(_corrupted_answers(inputs, here, name, severity), multi_label),
                arrays["test_labels"], threshold=threshold, multi_label=multi_label, bootstrap=0,
            )
            for severity in shift.severities
        ]  # fmt: skip
        found[name] = {"accuracy": _mean([one.accuracy for one in each]), "auc": _mean([one.auc for one in each])}
    means = {figure: _mean([one[figure] for one in found.values()]) for figure in ("accuracy", "auc")}
    return {**means, "severities": list(shift.severities), **found}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _corrupted_answers(inputs: EvaluateInputs, here: Resources, name: str, severity: int) -> NDArray[np.float32]:
    """Give the logits of the corrupted test images, in chunks."""
    indices, size = here.dataset.indices("test"), chunk(here.channels, inputs.side)
    model, parts = here.workspace.path / inputs.file.path, []
    for start in range(0, len(indices), size):
        some = indices[start : start + size]
        positions = np.arange(start, start + len(some))
        data = replace(
            here.dataset,
            images=corrupt(np.asarray(here.dataset.images[some]), name, severity, positions),
            labels=here.dataset.labels[some],
            groups=here.dataset.groups[some],
            splits={"test": np.arange(len(some))},
        )
        seen, _ = replace(here, dataset=data).split("test", inputs.side, normalisation=inputs.normalisation)
        parts.append(answers(inputs.runtime, model, seen.numpy(), here.threads))
    return np.concatenate(parts)


def chunk(channels: int, side: int) -> int:
    """Say how many images are held in memory as floats at a time."""
    return min(_MAX_CHUNK, max(_BATCH, _CHUNK_BYTES // (4 * channels * side**2) // _BATCH * _BATCH))


def _probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    if multi_label:
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
