"""Saliency maps of each network on a few validation images, and their figures: one stage a network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutelage.distill.explain.faithfulness import agreement
from tutelage.distill.explain.maps import Explained, compare, explain
from tutelage.distill.explain.pictures import overlay_png
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context
from tutelage.pipeline.runtime_files import answering
from tutelage.records import Student

from .compress import Variant

Maps = NDArray[np.float32]
# What validation images are drawn for, here and by the verb `explain`: both show the same ones.
EXPLAINED = "images to explain"


def explain_all(ctx: Context, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Give every file's `explanation` (figures) and, in fp32, `explained` (a picture an image), by the file's hash.

    Empty where the recipe asks for no maps. int8 files are explained by Score-CAM only: their activations
    cannot be read, and Score-CAM needs only outputs.
    """
    if ctx.recipe.explain.images == 0:
        return {}
    students = {variant.file.sha256: variant.student for variant in variants if variant.scheme == "fp32"}
    teachers = {student.model: student for student in students.values() if student.role == "teacher"}
    seen: dict[str, Maps] = {}

    def maps_of(teacher: Student) -> Maps:
        if teacher.model not in seen:
            images, classes, _ = _images(ctx, teacher)
            seen[teacher.model] = explain(
                networks.load(ctx, teacher), images, classes, method=ctx.recipe.explain.method
            )
        return seen[teacher.model]

    found: dict[str, dict[str, Any]] = {}
    for file, student in students.items():
        by = [teachers[name] for name in student.teacher.split("+") if name in teachers]
        int8 = [one for one in variants if one.student == student and one.scheme != "fp32"]
        result = explain_network(ctx, student, by, int8 if ctx.recipe.explain.method == "scorecam" else [], maps_of)
        found[file] = {"explanation": result["explanation"], "explained": result["explained"]}
        found |= {sha: {"explanation": figures} for sha, figures in result["int8"].items()}
    return found


def explain_network(
    ctx: Context,
    student: Student,
    teachers: Sequence[Student],
    int8: Sequence[Variant],
    maps_of: Callable[[Student], Maps],
) -> dict[str, Any]:
    """Explain one network and its int8 files; agreement is with the mean over its teachers' maps."""
    section = ctx.recipe.explain
    inputs = {
        "data": ctx.data_key,
        "weights": student.weights.sha256 if student.weights else "",
        "teachers": [teacher.weights.sha256 for teacher in teachers if teacher.weights],
        "int8": [[variant.runtime, variant.file.sha256] for variant in int8],
        "explain": section.model_dump(mode="json"),
        "images": ctx.draw("val", section.images, EXPLAINED).tolist(),
        "seed": ctx.recipe.seed,
    }
    origin = f" from {student.teacher}" if student.teacher else ""

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"explain {student.model}{origin}", 0, 1)
        images, classes, masks = _images(ctx, student)
        net = networks.load(ctx, student)
        models = {"net": Explained(net)}
        models |= {one.file.sha256: Explained(net, _answers(ctx, one)) for one in int8}
        maps = {
            name: explain(net, images, classes, method=section.method, predict=one.predict)
            for name, one in models.items()
        }
        figures = compare(
            models,
            images,
            classes,
            method=section.method,
            masks=masks,
            multi_label=ctx.dataset.multi_label,
            maps=maps,
        )
        explained = {name: _figures(one.to_dict(), maps[name], [maps_of(by) for by in teachers], name)
                for name, one in figures.items()}  # fmt: skip
        pictures = [
            {"validation image of": ctx.dataset.class_names[label], "map": _embedded(image, heat)}
            for image, label, heat in zip(images, classes.tolist(), maps["net"], strict=True)
        ]
        ctx.report(f"explain {student.model}{origin}", 1, 1)
        return {"explanation": explained.pop("net"), "explained": pictures, "int8": explained}

    return ctx.workspace.stage(f"explain {student.model}{origin}", inputs, work).result


def _figures(figures: dict[str, Any], maps: Maps, teachers: Sequence[Maps], name: str) -> dict[str, Any]:
    """Put the agreement of an int8 file with its fp32 network, and of any file with its teachers, in their own keys."""
    with_fp32 = (figures.pop("agreement_spearman"), figures.pop("agreement_iou"))
    if name != "net":
        figures |= {"fp32_spearman": with_fp32[0], "fp32_iou": with_fp32[1]}
    pairs = [agreement(maps, _resized(other, maps.shape[-1])) for other in teachers]
    for place, key in enumerate(("teacher_spearman", "teacher_iou")):
        known = [value for pair in pairs if (value := pair[place]) is not None]
        figures[key] = float(np.mean(known)) if known else None
    return figures


def _images(ctx: Context, student: Student) -> tuple[Tensor, Tensor, NDArray[np.uint8] | None]:
    """Choose the validation images, the class each is explained for, and the lesions where the data has them."""
    chosen = ctx.draw("val", ctx.recipe.explain.images, EXPLAINED)
    images, labels = ctx.split("val", ctx.resolution(student), chosen)
    masks = None
    if ctx.dataset.masks is not None and ctx.resolution(student) == ctx.size:
        masks = ctx.dataset.masks[ctx.dataset.indices("val")][chosen]
    return images, kinds(labels).clamp(min=0), masks


def kinds(labels: Tensor) -> Tensor:
    """Give the class of each image `(n,)`; where an image may have more than one, its first, or -1 for none."""
    if labels.ndim == 1:
        return labels
    holds = labels.nan_to_num(0.0) > 0.5
    return torch.where(holds.any(1), holds.float().argmax(1), -1)


def _answers(ctx: Context, variant: Variant) -> Callable[[Tensor], Tensor]:
    logits = answering(variant.runtime, ctx.workspace.path / variant.file.path, ctx.threads)
    return lambda batch: torch.from_numpy(logits(batch.numpy()))


def _resized(maps: Maps, side: int) -> Maps:
    whole = torch.from_numpy(maps)[:, None]
    return np.asarray(F.interpolate(whole, (side, side), mode="bilinear", align_corners=False)[:, 0].numpy())


def _embedded(image: Tensor, heat: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(overlay_png(image, heat)).decode()
