"""What the processes beside the leader do: open the same images, and train along whenever the leader trains."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tutelage.distill.teachers.weights import load_exactly
from tutelage.pipeline.stages.qat import QatInputs, prepared
from tutelage.pipeline.stages.supernet import SupernetInputs, built, fit_supernet
from tutelage.pipeline.stages.training import TrainingInputs, fit
from tutelage.progress import silent

from . import networks
from .context import Context, open_context
from .processes import Training, follows, leading, one_line_for_a_lost_process, received_trainings
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
    for training, weights in received_trainings(recipe):
        ctx = ctx or open_context(recipe, Workspace(workspace), silent, threads)
        with one_line_for_a_lost_process():
            _take_part(ctx, training, weights)
    return True


def _take_part(ctx: Context, training: Training, weights: dict[str, Tensor]) -> None:
    """Build the network of a training as the leader has it, and train along."""
    inputs = training.inputs
    if isinstance(inputs, SupernetInputs):
        net = built(inputs, ctx)
        load_exactly(net, weights, "what the leader sent")
        fit_supernet(inputs, ctx, net, training.checkpoint)
        return
    assert isinstance(inputs, TrainingInputs), training
    model = prepared(inputs, ctx) if isinstance(inputs, QatInputs) else networks.build(ctx, inputs.network.student)
    load_exactly(model, weights, "what the leader sent")
    fit(inputs, ctx, model, training.checkpoint)
