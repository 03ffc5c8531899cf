"""Quantization-aware training (QAT) of students with their own teachers, and int8 files with the learnt ranges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Opened, Resources, TeacherSet, derived_seed, run_stage
from tutelage.pipeline.keys.model_files import filed_model
from tutelage.pipeline.keys.stage_inputs import promised, versions_of
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.quant.int8.qat import prepare_qat
from tutelage.quant.int8.qat_export import export_learnt
from tutelage.records import Student

from .compress import Variant, compress, left_out, named, quantized
from .quantization import calibration_images
from .training import (
    TrainingInputs,
    distillation_input,
    fit,
    libraries_of,
    network_input,
    schedule_part,
)

# Runtimes whose quantizers take given activation ranges.
_RUNTIMES = ("onnxruntime", "openvino")
_ONNX = "model.qat.onnx"


class QatInputs(TrainingInputs):
    """The fine-tuning of a trained network by QAT, from its own weights."""

    STAGE: ClassVar[str] = "train with QAT"

    calibration_images: int  # that set the first ranges

    @property
    def seeds(self) -> tuple[int, int]:
        return derived_seed(self.seed, "rounding"), derived_seed(self.seed, "rounding batches")

    @property
    def places(self) -> dict[str, str]:
        own = {f"schedule.{name}": f"quantize.qat_{name}" for name in ("epochs", "lr")}
        return {**super().places, **own, "calibration_images": "quantize.calibration_images"}

    def promise(self, key: str) -> dict[str, Any]:
        return {"file": promised(key, _ONNX), "ranges": {}}


def compress_all(ctx: Context, student: Student, runtimes: Sequence[str], choice: TeacherSet) -> list[Variant]:
    """Make every file of a trained network that a run evaluates: fp32, int8 and, where the recipe has QAT, int8-qat."""
    return [*compress(ctx, student, runtimes), *train_with_qat(ctx, student, runtimes, choice)]


def train_with_qat(ctx: Context, student: Student, runtimes: Sequence[str], choice: TeacherSet) -> list[Variant]:
    """Fine-tune a student by QAT for the recipe's `qat_epochs`, and write its int8 files.

    It starts from the student's weights and has the teachers that distilled it, `choice`, and the students' schedule
    but its own learning rate. The files quantize activations with the ranges of training. Returns no variants where
    `qat_epochs` is 0 and for teachers; runtimes whose quantizer takes no ranges are left out and logged.
    """
    section = ctx.recipe.quantize
    if section.qat_epochs == 0 or student.role == "teacher":
        return []
    takers = [runtime for runtime in runtimes if runtime in _RUNTIMES]
    for runtime in runtimes:
        if runtime not in takers:
            left_out(ctx, f"no int8-qat row of {student.model} for {runtime}: its quantizer takes no learnt ranges")
    if not takers:
        return []
    schedule = ctx.recipe.distill.model_copy(
        update={"epochs": section.qat_epochs, "lr": section.qat_lr, "warmup_epochs": 0.0, "patience": None}
    )
    network, distillation = (
        network_input(student),
        distillation_input(ctx.recipe.distill, choice.teachers, choice.weights),
    )
    inputs = QatInputs(
        title=f"train {named(student)} with QAT",
        versions=versions_of((*libraries_of(network, distillation), "onnx", "onnxscript")),
        images=ctx.images_input,
        augment=ctx.augment_input,
        accelerator=ctx.accelerator_input(trains=True),
        network=network,
        schedule=schedule_part(schedule),
        distillation=distillation,
        seed=ctx.recipe.seed,
        repeat=0,
        place="distill",
        calibration_images=section.calibration_images,
    )
    stage = run_stage(ctx, inputs, _train)
    ranges = {name: (float(low), float(high)) for name, (low, high) in stage.result["ranges"].items()}
    made = {"qat_epochs": section.qat_epochs, "qat_lr": section.qat_lr}
    return quantized(ctx, student, {runtime: [stage] for runtime in takers}, ranges, made)


def prepared(inputs: QatInputs, here: Opened) -> nn.Module:
    """Give the trained network with fake quantization, as its fine-tuning begins."""
    student = inputs.network.student
    side, own = here.resolution(student), student.normalisation
    images = calibration_images(here, side, inputs.calibration_images, inputs.seed, own)
    return prepare_qat(networks.load(here, student), images)


def _train(inputs: QatInputs, here: Resources, folder: Path) -> dict[str, Any]:
    network, side = prepared(inputs, here), here.resolution(inputs.network.student)
    result = fit(inputs, here, network, folder / CHECKPOINT)
    # The float graph of the trained weights, and the ranges that its tensors had in training.
    learnt = export_learnt(network, folder / _ONNX, (1, here.channels, side, side))
    return {
        "file": filed_model(here.workspace, folder / _ONNX).to_dict(),
        "ranges": {name: [float(low), float(high)] for name, (low, high) in learnt.items()},
        "accelerator": here.computed_on,
        "simulated": {"accuracy": result.val_accuracy, "auc": result.val_auc},
    }
