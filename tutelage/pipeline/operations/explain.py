"""Saliency maps of teachers, students and their int8 files on validation images, side by side, with figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tutelage.distill.explain.maps import METHODS, Explained, ExplanationFigures, compare
from tutelage.distill.training.normalisation import Renormalisation
from tutelage.pipeline import networks
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.compress import Variant, compress
from tutelage.pipeline.stages.explain import EXPLAINED, kinds
from tutelage.pipeline.stages.teacher_sets import SELF, chosen
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.run import run_onnx
from tutelage.records import InputError, Normalisation, Student


def explain_recipe(
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    *,
    method: str,
    num_images: int,
    out: Path,
    announce: pipeline.Announce | None = None,
) -> dict[str, ExplanationFigures]:
    """Explain the recipe's teachers and its first winner, distilled from all of them or as validation chooses.

    Score-CAM, the one method that needs only outputs, shows the student's int8 file for ONNX Runtime too, if there is
    one. Images are drawn from the validation split, as many of each class as there are; the test split stays closed.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")

    def also(ctx: Context, students: Sequence[Student]) -> list[Variant]:
        """Make the files of the student that is explained, where int8 is."""
        return compress(ctx, _explained(ctx, students), ["onnxruntime"]) if students and by_outputs else []

    by_outputs = method == "scorecam"
    students = pipeline.distill(recipe, workspace, report, threads, announce, also)
    ctx = open_context(recipe, workspace, report, threads)
    teachers = [train_teacher(ctx, section) for section in recipe.teachers]
    student = _explained(ctx, students)
    side = ctx.resolution(student)
    chosen = ctx.draw("val", num_images, ctx.seed(EXPLAINED))
    images, labels = ctx.split("val", side, chosen)
    classes = kinds(labels).clamp(min=0)
    loaded = {one.model: networks.load(ctx, one, runs_images=True) for one in (*teachers, student)}
    models = {name: Explained(ctx.accelerator.place(one)) for name, one in loaded.items()}
    net = loaded[student.model]
    for int8 in (workspace.path / one.file.path for one in also(ctx, students) if one.scheme != "fp32"):
        models[f"{student.model} int8"] = Explained(net, partial(_outputs, int8, threads, student.normalisation))
    masks = None
    if ctx.dataset.masks is not None and side == ctx.size:
        masks = ctx.dataset.masks[ctx.dataset.indices("val")][chosen]
    report(f"explain by {method}", 0, 1)
    multi_label = ctx.dataset.multi_label
    figures = compare(models, images, classes, method=method, masks=masks, pictures=out, multi_label=multi_label)
    report(f"explain by {method}", 1, 1)
    return figures


def _explained(ctx: Context, students: Sequence[Student]) -> Student:
    """Choose the first winner, by its most teachers; of `distill.teachers: best` as validation chooses."""
    own = [one for one in students if one.model == students[0].model and one.seed == ctx.recipe.seed]
    if ctx.recipe.distill.teachers == "best":
        teachers = chosen(ctx, own[0].model, students)
        return next(one for one in own if one.teacher == (teachers or ""))
    return max(own, key=lambda one: 0 if one.teacher in ("", SELF) else 1 + one.teacher.count("+"))


def _outputs(model: Path, threads: int, normalisation: Normalisation | None, batch: Tensor) -> Tensor:
    batch = batch.cpu()
    if normalisation is not None:
        batch = Renormalisation(*normalisation.values)(batch)
    return torch.from_numpy(run_onnx(model, batch.numpy(), threads=threads))
