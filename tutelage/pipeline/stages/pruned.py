"""Make students by structured pruning of networks that a run has trained, and fine-tune them like the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.pipeline import networks
from tutelage.pipeline.context import Context
from tutelage.pipeline.sections import PrunedSection
from tutelage.quant.int8.calibration import draw_by_class
from tutelage.quant.prune.prune import macs, prune_to, require_pruner
from tutelage.quant.prune.shapes import pruned_shapes
from tutelage.records import Artifact, InputError, Pruned, Student

from .students import choices, train_seeds

WINNERS = "winners"
# Labelled images whose gradients rank the channels for `taylor`: a few dozen rank them as thousands do (Molchanov).
_TAYLOR_IMAGES = 64


def check_pruned(ctx: Context) -> None:
    """Refuse, before any training, a pruned student whose parent nobody trains or whose library is not installed."""
    recipe = ctx.recipe
    named = [section.title or section.name for section in recipe.students]
    known = [*named, *recipe.baselines, *(() if recipe.students else (WINNERS,))]
    for section in recipe.pruned:
        if section.of not in known:
            raise InputError(f"pruned.of = {section.of!r}: no such network is trained; known: {', '.join(known)}")
        if section.importance == "taylor" and ctx.dataset.multi_label:
            raise InputError("pruned.importance = 'taylor' needs one class an image, these images are multi-label")
        require_pruner(section.importance)


def train_pruned(ctx: Context, trained: Sequence[Student], teachers: Sequence[Student]) -> list[Student]:
    """Prune the control of each network that the recipe names, and fine-tune it for each choice of teachers.

    trained: the run's students and baselines; a control is one without a teacher. Fine-tuning starts from the pruned
    weights and has the students' schedule.
    """
    alone = [student for student in trained if not student.teacher and student.seed == ctx.recipe.seed]
    tuned = []
    for section in ctx.recipe.pruned:
        for parent in alone:
            wanted = parent.role == "student" if section.of == WINNERS else parent.model == section.of
            if not wanted:
                continue
            student, weights = _cut(ctx, section, parent)
            start = partial(networks.load, ctx, student.model_copy(update={"weights": weights}))
            for choice in choices(ctx, teachers):
                tuned += train_seeds(ctx, student, start, weights.sha256, choice)
    return tuned


def _cut(ctx: Context, section: PrunedSection, parent: Student) -> tuple[Student, Artifact]:
    """Prune one network and file its remaining weights."""
    title = f"{parent.model}-pruned{section.keep_fraction * 100:g}"
    title += "" if section.importance == "magnitude" else f"-{section.importance}"
    inputs = {
        "data": ctx.data_key,
        "parent": parent.to_dict(),
        "pruned": section.model_dump(mode="json"),
        "seed": ctx.recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"prune {parent.model} to {section.keep}", 0, 1)
        whole = networks.load(ctx, parent)
        side = ctx.resolution(parent)
        shape = (2, ctx.channels, side, side)
        batch = _labelled(ctx, side) if section.importance == "taylor" else None
        cut, report = prune_to(
            whole, shape, section.keep_fraction * macs(whole, shape), importance=section.importance, batch=batch
        )
        left = Pruned(
            parent=parent.model, importance=section.importance, ratio=report.ratio, shapes=pruned_shapes(whole, cut)
        )
        ctx.report(f"prune {parent.model} to {section.keep}", 1, 1)
        return {"pruned": left.to_dict(), "weights": networks.file_weights(ctx, cut, folder).to_dict()}

    found = ctx.workspace.stage(f"prune {parent.model} to {section.keep}", inputs, work).result
    student = Student(
        model=title,
        role="student",
        arch=parent.arch,
        library_name=parent.library_name,
        options=parent.options,
        pruned=Pruned.from_dict(found["pruned"]),
    )
    return student, Artifact.from_dict(found["weights"])


def _labelled(ctx: Context, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = ctx.dataset.labels[ctx.dataset.indices("train")]
    drawn = draw_by_class(None, labels, _TAYLOR_IMAGES, np.random.default_rng(ctx.seed("taylor")))
    return ctx.split("train", side, drawn)
