"""Quantization-aware training (QAT) of students with their own teachers, and int8 files with the learnt ranges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.pipeline import networks
from tutelage.pipeline.context import Context
from tutelage.quant.int8.qat import finish_qat, prepare_qat
from tutelage.quant.int8.qat_export import export_learnt
from tutelage.records import Student

from .compress import Variant, calibration_images, float_files, inputs_of, left_out, quantized, read_variants
from .train import CHECKPOINT, fit

# Runtimes whose quantizers take given activation ranges.
_RUNTIMES = ("onnxruntime", "openvino")


def train_with_qat(
    ctx: Context, student: Student, runtimes: Sequence[str], teachers: Sequence[Student]
) -> list[Variant]:
    """Fine-tune a student by QAT for the recipe's `qat_epochs`, and write its int8 files.

    It starts from the student's weights and uses those of `teachers` that distilled it, with the students' schedule
    but its own learning rate. The files quantize activations with the ranges of training. Returns no variants where
    `qat_epochs` is 0 and for teachers; runtimes whose quantizer takes no ranges are left out and logged.
    """
    section = ctx.recipe.quantize
    if section.qat_epochs == 0 or student.role == "teacher":
        return []
    own = [teacher for teacher in teachers if teacher.model in student.teacher.split("+")]
    schedule = ctx.recipe.distill.model_copy(
        update={"epochs": section.qat_epochs, "lr": section.qat_lr, "warmup_epochs": 0.0, "patience": None}
    )
    inputs = {
        **inputs_of(ctx, student, runtimes),
        "schedule": schedule.model_dump(mode="json", exclude={"teacher_mode"}),
        "teachers": [teacher.weights.sha256 for teacher in own if teacher.weights],
    }

    def work(folder: Path) -> dict[str, Any]:
        side = ctx.resolution(student)
        network = prepare_qat(networks.load(ctx, student), calibration_images(ctx, side))
        seeds = (ctx.seed("rounding"), ctx.seed("rounding batches"))
        result = fit(
            ctx, student, network, schedule, own, folder / CHECKPOINT,
            seeds=seeds, what="QAT of", rounding=True,
        )  # fmt: skip
        trained, plain = folder / "model.qat.onnx", finish_qat(network)
        learnt = export_learnt(network, trained, (1, ctx.channels, side, side))
        validation = {"accuracy": result.val_accuracy, "auc": result.val_auc}
        for runtime in runtimes:
            if runtime not in _RUNTIMES:
                left_out(ctx, f"no int8-qat row of {student.model} for {runtime}: its quantizer takes no learnt ranges")
        takers = [runtime for runtime in runtimes if runtime in _RUNTIMES]
        files = float_files(ctx, student, plain, trained, takers)
        variants = quantized(ctx, student, plain, files, learnt)
        for variant in variants:
            variant["quantization"] |= {"qat_epochs": section.qat_epochs, "qat_lr": section.qat_lr}
        return {"variants": variants, "simulated": validation}

    origin = f" from {student.teacher}" if student.teacher else ""
    # The name is part of the key of stages that workspaces hold.
    stage = ctx.workspace.stage(f"teach rounding to {student.model}{origin}", inputs, work)
    return read_variants(student, stage.result["variants"])
