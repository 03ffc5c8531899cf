"""The predictions of a trained network on the validation images, for paired comparisons before and between trainings.

`validation_figures` gives what the tests of `distill/evaluation/paired.py` take; the test split is never read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tutelage.distill.evaluation.evaluate import predict_logits, probabilities
from tutelage.distill.evaluation.paired import FileFigures, file_figures
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Resources, run_stage
from tutelage.pipeline.keys.stage_inputs import ComputedOn, ImagesInput, NetworkInput, StageInputs, versions_of
from tutelage.records import Student

from .training import network_input

_PROBS = "validation.npz"


class ValidateInputs(StageInputs):
    """The predictions of one network on the validation images, as torch computes them."""

    STAGE: ClassVar[str] = "validate"

    images: ImagesInput
    accelerator: ComputedOn
    network: NetworkInput


def validation_figures(ctx: Context, student: Student, title: str) -> FileFigures | None:
    """Give AUC and accuracy on validation with what a paired test needs; None in a plan, before it is predicted."""
    network = network_input(student)
    inputs = ValidateInputs(
        title=f"validate {title}",
        versions=versions_of(network.libraries),
        images=ctx.images_input,
        accelerator=ctx.accelerator_input(),
        network=network,
    )
    path = run_stage(ctx, inputs, _validate).folder / _PROBS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        probs = arrays["probs"]
    places = ctx.dataset.indices("val")
    labels, groups = ctx.dataset.labels[places], ctx.dataset.groups[places]
    return file_figures(probs, labels, groups, multi_label=ctx.dataset.multi_label)


def _validate(inputs: ValidateInputs, here: Resources, folder: Path) -> dict[str, Any]:
    student = inputs.network.student
    model = here.accelerator.place(networks.load(here, student, runs_images=True))
    batches = here.in_order("val", here.resolution(student)).epoch(0)
    logits = torch.cat([predict_logits(model, batch.images).cpu() for batch in batches])
    np.savez(folder / _PROBS, probs=probabilities(logits, here.dataset.multi_label))
    here.report(inputs.title, 1, 1)
    return {"file": _PROBS}
