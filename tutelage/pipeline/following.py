"""What the processes beside the leader do: open the same images, and train along whenever the leader trains."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.distill.teachers.weights import load_exactly
from tutelage.pipeline.stages.compress import calibration_images
from tutelage.pipeline.stages.train import fit
from tutelage.progress import silent
from tutelage.quant.int8.qat import prepare_qat

from . import networks
from .context import Context, open_context
from .processes import Training, follows, leading, received_trainings
from .recipe import Recipe
from .workspace import Workspace

__all__ = ["follow", "leading"]


def follow(recipe: Recipe, workspace: Path, threads: int) -> bool:
    """Take part in the leader's trainings of a recipe until it is done, and say so; False, at once, where this leads.

    Nothing is printed here, and nothing written but soft targets.
    """
    if not follows():
        return False
    ctx: Context | None = None
    for training, weights in received_trainings():
        ctx = ctx or open_context(recipe, Workspace(workspace), silent, threads)
        model = _build(ctx, training)
        load_exactly(model, weights, "what the leader sent")
        fit(
            ctx,
            training.student,
            model,
            training.section,
            training.teachers,
            training.checkpoint,
            seeds=training.seeds,
            rounding=training.rounding,
        )
    return True


def _build(ctx: Context, training: Training) -> nn.Module:
    if not training.rounding:
        return networks.build(ctx, training.student)
    images = calibration_images(ctx, ctx.resolution(training.student))
    prepared: nn.Module = prepare_qat(networks.load(ctx, training.student), images)
    return prepared
