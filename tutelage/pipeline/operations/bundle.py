"""Write the bundle of a leaderboard row, a folder to deploy: the measured file, its metadata and `predict.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from tutelage.accelerator import CPU
from tutelage.distill.data.dataset import SPLITS
from tutelage.distill.data.images import Fit
from tutelage.distill.data.loader import NORMALISATION
from tutelage.distill.evaluation.evaluate import predict_logits, probabilities
from tutelage.leaderboard.best import best_student
from tutelage.leaderboard.team.place import open_place
from tutelage.pipeline import networks
from tutelage.pipeline.context import Opened, open_context
from tutelage.pipeline.keys.model_files import is_model
from tutelage.pipeline.recipe import Recipe, load_recipe, with_changes
from tutelage.pipeline.sharing.fetched import fetched_row
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.bundle.write import Bundle, Preprocess, run_file, write_bundle
from tutelage.quant.export.coreml import check_target, export_coreml
from tutelage.records import Artifact, InputError, Row, Student

from .board import open_board
from .paired import RowFigures

# Probabilities of one file on one image, then in batches and now: beyond this another file was run.
MAX_DIFFERENCE = 1e-3


def bundle_row(
    row: Row,
    workspace: Workspace,
    report: Report,
    threads: int,
    *,
    out: Path,
    changes: Sequence[str] = (),
    notes: Sequence[str] = (),
    coreml: Path | None = None,
) -> Bundle:
    """Write the bundle of a row: the file it was evaluated on, checked to give the same predictions.

    changes: `key=value` of the row's recipe, such as where the images lie now (data.path). coreml: where the row's
    network, as it was trained, is written as a Core ML program too (`export_coreml`).
    Raises InputError for an imported row, or where its file, weights or images are no longer those it was made of.
    """
    if coreml is not None:
        check_target(coreml)
    recipe, network, file = made_of(row)
    recipe = with_changes(recipe, changes)
    report("bundle", 0, 3)
    model = workspace.path / file.path
    if not is_model(model, file.sha256):
        raise InputError(f"{model} is not the file that row {row.key[:8]} was measured on: run the recipe again")
    ctx = open_context(recipe, workspace, report, threads, accelerator=CPU)
    if ctx.dataset.manifest != row.details.get("manifest"):
        raise InputError(
            f"data set {ctx.dataset.called} is not the one row {row.key[:8]} was evaluated on (its manifest differs)"
        )
    fit = recipe.data.options.get("fit", "squash")
    made = write_row_bundle(ctx, row, network, model, out=out, fit=fit, origin=origin_of(recipe), notes=notes)
    if coreml is not None:
        side = ctx.resolution(network)
        export_coreml(networks.load(ctx, network), coreml, (1, ctx.channels, side, side))
    report("bundle", 3, 3)
    return made


def write_row_bundle(
    here: Opened,
    row: Row,
    network: Student,
    model: Path,
    *,
    out: Path,
    fit: Fit,
    origin: str,
    notes: Sequence[str] = (),
) -> Bundle:
    """Write the bundle of a row's file, which must give the predictions that were filed with the row.

    network: the trained network that the file was made of, the reference of the parity figures. origin: the recipe, as
    the model card names it.
    """
    side = here.resolution(network)
    images, _ = here.split("val", side, normalisation=network.normalisation)
    difference = _evaluated_difference(here, row, model, images)
    here.report("bundle", 1, 3)
    reference = predict_logits(networks.load(here, network), images)
    here.report("bundle", 2, 3)
    mean, std = NORMALISATION[here.channels] if network.normalisation is None else network.normalisation.values
    return write_bundle(
        out,
        model,
        row,
        preprocess=Preprocess(height=side, width=side, channels=here.channels, mean=mean, std=std, fit=fit),
        labels=here.dataset.class_names,
        thresholds=class_thresholds(row),
        validation=images.numpy(),
        reference_logits=reference.numpy(),
        evaluated_difference=difference,
        multi_label=here.dataset.multi_label,
        data=_data_lines(here, side, origin),
        notes=notes,
    )


def origin_of(recipe: Recipe) -> str:
    """Name a recipe as model cards do."""
    return f"recipe {recipe.name}: {recipe.about}".rstrip(": ")


def row_of(workspace: Workspace, row_id: str | None, recipe: str, filter: str | None) -> Row:
    """Give the row of an id or its beginning, or the best student by validation among those that `filter` keeps.

    Its files are here then: those of another workspace are fetched from the place that the team shares.
    """
    store = open_board(workspace.path)
    if row_id is not None:
        if filter is not None:
            raise InputError("--filter has no effect where a row is named: leave one of both out")
        return fetched_row(store.row(row_id), workspace.path)
    name = load_recipe(recipe).name if Path(recipe).is_file() else recipe  # rows hold the name, not the file
    students = (row for row in store.rows(filter) if row.recipe == name)
    best = best_student(students, RowFigures(workspace.path, "val", open_place()).compare)
    if best is None:
        raise InputError(
            f"no student of recipe {recipe!r} with its file is on the leaderboard: `tutelage run {recipe}` makes some"
        )
    return fetched_row(best, workspace.path)


def made_of(row: Row) -> tuple[Recipe, Student, Artifact]:
    """Read from a row what made it: the recipe, the trained network and the file that was evaluated."""
    made: dict[str, Any] = row.details.get("how") or {}
    try:
        return (
            Recipe.model_validate(made["recipe"]),
            Student.from_dict(made["network"]),
            Artifact.from_dict(made["file"]),
        )
    except (KeyError, ValidationError):
        where = "was imported" if row.source == "imported" else "does not say which file it was measured on"
        raise InputError(
            f"row {row.key[:8]} {where}: run its recipe ({row.recipe or 'unknown'}) here; finished stages are kept"
        ) from None


def class_thresholds(row: Row) -> tuple[float, ...] | None:
    """Give one threshold a class of what the row was evaluated with: a number for two classes, one a label, or none."""
    threshold = row.details.get("threshold")
    if threshold is None:
        return None
    if isinstance(threshold, list | tuple):
        return tuple(float(value) for value in threshold)
    return 1 - threshold, threshold


def _evaluated_difference(here: Opened, row: Row, model: Path, images: torch.Tensor) -> float:
    """Run the file again on the validation images: the largest difference to the probabilities filed with the row."""
    filed = here.workspace.path / str(row.details.get("predictions", ""))
    if not filed.is_file():
        raise InputError(f"{filed} is missing: run the recipe again, so that the bundle can be compared with it")
    with np.load(filed, allow_pickle=False) as arrays:
        before: NDArray[Any] = arrays["val_probs"]
    logits = run_file(model, row.runtime, images.numpy(), here.threads)
    now = probabilities(torch.from_numpy(logits), here.dataset.multi_label)
    if now.shape != before.shape or np.abs(now - before).max() > MAX_DIFFERENCE:
        raise InputError(f"{model} does not give the predictions of row {row.key[:8]} any more: run the recipe again")
    return float(np.abs(now - before).max())


def _data_lines(here: Opened, side: int, origin: str) -> list[str]:
    """Say what the images were: sizes and classes of the splits, what was kept apart, what was left out."""
    data = here.dataset
    lines = []
    for split in SPLITS:
        places = data.indices(split)
        counts = ", ".join(f"{name} {number}" for name, number in data.class_counts(split).items())
        lines.append(f"{split}: {len(places)} images of {len(set(data.groups[places]))} groups ({counts})")
    lines.append("groups (patients, series, equal images) stand in one split only" if not data.leaky else "leaky split")
    lines += data.notes
    if data.skipped:
        lines.append(f"{len(data.skipped)} images could not be read and were left out")
    if side != here.size:
        lines.append(
            f"evaluated on images decoded at {here.size} px and then resized to {side} px; predict.py resizes once"
        )
    lines.append(f"manifest {data.manifest}, {origin}")
    return lines
