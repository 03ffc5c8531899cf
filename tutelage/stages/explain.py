"""Maps of where each network looks on a few validation images, and how good they are: one stage a network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.distill.explain import compare, explain
from tutelage.distill.pictures import overlay_png
from tutelage.records import Student

from . import networks
from .context import Context


def explain_network(ctx: Context, student: Student) -> dict[str, Any]:
    """Give `explanation` (figures) and `explained` (a picture an image) for a row's details; empty where not asked."""
    section = ctx.recipe.explain
    if section.images == 0 or ctx.dataset.multi_label:
        return {}
    inputs = {
        "data": ctx.data_key,
        "weights": student.weights.sha256 if student.weights else "",
        "explain": section.model_dump(mode="json"),
        "seed": ctx.recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"explain {student.model}", 0, 1)
        images, labels = ctx.split("val", ctx.side(student))
        chosen = even(labels, section.images)
        net = networks.load(ctx, student)
        masks = None
        if ctx.dataset.masks is not None and ctx.side(student) == ctx.size:
            masks = ctx.dataset.masks[ctx.dataset.indices("val")][chosen.numpy()]
        figures = compare({"net": net}, images[chosen], labels[chosen], method=section.method, masks=masks)["net"]
        maps = explain(net, images[chosen], labels[chosen], method=section.method)
        pictures = [
            {"validation image of": ctx.dataset.class_names[int(labels[place])], "map": _embedded(images[place], heat)}
            for place, heat in zip(chosen.tolist(), maps, strict=True)
        ]
        ctx.report(f"explain {student.model}", 1, 1)
        return {"explanation": figures.to_dict(), "explained": pictures}

    taught = f" from {student.teacher}" if student.teacher else ""
    return ctx.workspace.stage(f"explain {student.model}{taught}", inputs, work).result


def even(labels: Tensor, number: int) -> Tensor:
    """Choose the first images of each class in turn, `number` in all."""
    if labels.ndim != 1:
        return torch.arange(min(number, len(labels)))
    places = [torch.nonzero(labels == value).flatten() for value in sorted(set(labels.tolist()))]
    order = [int(place[i]) for i in range(len(labels)) for place in places if i < len(place)]
    return torch.tensor(sorted(order[:number]))


def _embedded(image: Tensor, heat: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(overlay_png(image, heat)).decode()
