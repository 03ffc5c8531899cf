"""What the processes beside the leader do: open the same images, and train along whenever the leader trains."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.distill.teachers.weights import load_exactly
from tutelage.pipeline.stages.qat import QatInputs, prepared
from tutelage.pipeline.stages.training import TrainingInputs, fit
from tutelage.progress import silent

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
        fit(_inputs(training), ctx, model, training.checkpoint)
    return True


def _build(ctx: Context, training: Training) -> nn.Module:
    inputs = _inputs(training)
    return prepared(inputs, ctx) if isinstance(inputs, QatInputs) else networks.build(ctx, inputs.network.student)


def _inputs(training: Training) -> TrainingInputs:
    assert isinstance(training.inputs, TrainingInputs), training
    return training.inputs
