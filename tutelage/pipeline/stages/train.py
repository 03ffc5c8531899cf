"""Train networks: the teachers, the winners with and without teachers, and the baselines. One stage a network.

Networks whose recipe says `epochs: 0` are not trained: their weights file is filed and validated as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.distill.data.loader import images_id
from tutelage.distill.losses.logits import balanced_weights
from tutelage.distill.losses.methods import LOSSES
from tutelage.distill.teachers.weights import load_weights
from tutelage.distill.teachers.zoo import TEACHERS, build_teacher
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import KDConfig, TrainResult, TrainSchedule, train, validate
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, file_hash, schedule_of
from tutelage.pipeline.processes import Training, announce
from tutelage.pipeline.sections import DistillSection, TeacherSection, TrainSection
from tutelage.records import Student
from tutelage.search.supernet.fast_layers import use_fast_layers, use_plain_layers

CHECKPOINT = "checkpoint"


def train_teacher(ctx: Context, section: TeacherSection) -> Student:
    """Train a teacher on hard labels, or take it as it is from its weights file."""
    student = Student(
        model=section.name,
        role="teacher",
        library_name=section.name,
        options=section.options,
        recipe=ctx.recipe.name,
        dataset=ctx.dataset.name,
        seed=ctx.recipe.seed,
    )
    inputs = {
        **_package_of(student),
        "data": ctx.data_key,
        "teacher": section.model_dump(mode="json", exclude={"weights"}),
        "weights": file_hash(section.weights),
        "seed": ctx.recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        seed = ctx.seed("teacher", section.name)
        model = build_teacher(
            section.name,
            ctx.num_classes,
            ctx.channels,
            resolution=ctx.size,
            seed=seed,
            **section.options,
        )
        if section.weights is not None:
            load_weights(model, section.weights, fresh_head=section.epochs > 0)
        if section.epochs == 0:
            return _filed_as_it_is(ctx, student, model, folder)
        return _fit(ctx, student, model, section, (), folder, seeds=(seed, ctx.seed("batches")))

    return networks.record(ctx.workspace.stage(f"teacher {section.name}", inputs, work).result)


def _package_of(student: Student) -> dict[str, str]:
    """Name the plug-in that builds a network, if one does: another version of it may build another one."""
    plugin = TEACHERS.origin(student.library_name)
    return {"network of": str(plugin)} if plugin else {}


def take_student(ctx: Context, student: Student, weights: Path) -> Student:
    """File and validate a student as its weights file has it: no training, no teacher, one row whatever the seeds."""
    student = student.model_copy(
        update={"recipe": ctx.recipe.name, "dataset": ctx.dataset.name, "seed": ctx.recipe.seed}
    )
    inputs = {
        **_package_of(student),
        "data": ctx.data_key,
        "student": student.to_dict(),
        "weights": file_hash(weights),
        "epochs": 0,
    }

    def work(folder: Path) -> dict[str, Any]:
        model = networks.build(ctx, student)
        load_weights(model, weights, fresh_head=False)
        return _filed_as_it_is(ctx, student, model, folder)

    return networks.record(ctx.workspace.stage(f"student {student.model} as it is", inputs, work).result)


def train_student(
    ctx: Context,
    student: Student,
    start: Callable[[], nn.Module] | None,
    start_key: str,
    teachers: Sequence[Student],
    repeat: int = 0,
) -> Student:
    """Train one student from what `start` makes (fresh weights where it is None), distilled from all of `teachers`.

    Students with and without teachers have the same schedule, seed, batches and initial weights. `repeat` counts the
    seeds after the recipe's own: it draws other batches and, where there is no start, other fresh weights.
    """
    section = ctx.recipe.distill
    student = student.model_copy(
        update={
            "teacher": "+".join(teacher.model for teacher in teachers),
            "recipe": ctx.recipe.name,
            "dataset": ctx.dataset.name,
            "seed": ctx.recipe.seed + repeat,
        }
    )
    inputs = {
        **_package_of(student),
        "data": ctx.data_key,
        "student": student.to_dict(),
        "start": start_key,
        "schedule": section.model_dump(mode="json", exclude={"teacher_mode"}),
        "teachers": [teacher.weights.sha256 for teacher in teachers if teacher.weights],
        "seed": ctx.recipe.seed,
    }
    if plugin := LOSSES.origin(section.method):
        inputs["method of"] = str(plugin)  # another version of its package may be another loss
    again = (repeat,) if repeat else ()

    def work(folder: Path) -> dict[str, Any]:
        seed = ctx.seed("student", *again)
        model = start() if start is not None else networks.build(ctx, student, seed=seed)
        return _fit(ctx, student, model, section, teachers, folder, seeds=(seed, ctx.seed("batches", *again)))

    name = f"student {student.model} from {student.teacher or 'labels only'}"
    return networks.record(ctx.workspace.stage(name, inputs, work).result)


def kd_of(section: DistillSection) -> KDConfig:
    """Convert a recipe's distillation section to a `KDConfig`: model code never reads the recipe."""
    return KDConfig(
        alpha=section.alpha,
        temperature=section.temperature,
        method=section.method,
        combine=section.combine,
        weight=section.soft_weight,
        options=section.options,
    )


def soft_targets(ctx: Context, teachers: Sequence[Student], resolution: int | None = None) -> SoftTargets:
    """Wrap teachers so that their outputs for an (image, augmentation) are computed once for all students.

    `resolution` is that of the students' batches (None: the data's size). Outputs on resized batches differ, so each
    resolution has its own cache in the workspace.
    """
    return SoftTargets(
        [networks.load(ctx, teacher) for teacher in teachers],
        ctx.workspace.path / "cache" / "soft-targets",
        data_id=images_id(ctx.dataset, ctx.recipe.data.augment, resolution),
        multi_label=ctx.dataset.multi_label,
        resolution=ctx.size,
    )


def _fit(
    ctx: Context,
    student: Student,
    model: nn.Module,
    section: TrainSection,
    teachers: Sequence[Student],
    folder: Path,
    *,
    seeds: tuple[int, int],
) -> dict[str, Any]:
    """Train one network by a section of the recipe and file it; `seeds` are the training's and the batches'."""
    result = fit(ctx, student, model, section, teachers, folder / CHECKPOINT, seeds=seeds)
    return _filed(ctx, student, model, folder, result.val_accuracy, result.val_auc, result.notes)


def _filed_as_it_is(ctx: Context, student: Student, model: nn.Module, folder: Path) -> dict[str, Any]:
    images, labels = ctx.split("val", ctx.resolution(student))
    figures = validate(model, images, labels, ctx.dataset.multi_label)
    notes = ("weights used as they are, not trained here",)
    return _filed(ctx, student, model, folder, figures["val_accuracy"], figures["val_auc"], notes)


def _filed(
    ctx: Context,
    student: Student,
    model: nn.Module,
    folder: Path,
    accuracy: float,
    auc: float | None,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Write a network's weights into its stage's folder and give its record, with its validation figures."""
    best = {"accuracy": accuracy} | ({"auc": auc} if auc is not None else {})
    filed = student.model_copy(
        update={
            "weights": networks.file_weights(ctx, model, folder),
            "validation": best,
            "notes": notes,
            **networks.costs(ctx, student),
        }
    )
    return filed.to_dict()


def fit(
    ctx: Context,
    student: Student,
    model: nn.Module,
    section: TrainSection,
    teachers: Sequence[Student],
    checkpoint: Path,
    *,
    seeds: tuple[int, int],
    what: str = "train",
    rounding: bool = False,
) -> TrainResult:
    """Train `model` in place by a section of the recipe, distilled from all of `teachers` as the recipe says.

    Where a launcher started several processes, the others take part; `rounding` says that the network is
    prepared for QAT.
    """
    announce(Training(student, section, tuple(teachers), checkpoint, seeds, rounding), model)
    title = student.model if not teachers else f"{student.model} from {student.teacher}"
    if student.seed != ctx.recipe.seed:
        title += f", seed {student.seed}"
    result = train(
        use_fast_layers(model),
        ctx.loader(section.batch_size, seed=seeds[1]),
        ctx.split("val", ctx.resolution(student)),
        _schedule(ctx, section),
        teachers=[soft_targets(ctx, teachers)] if teachers else (),
        kd=kd_of(ctx.recipe.distill) if teachers else None,
        seed=seeds[0],
        checkpoint=checkpoint,
        multi_label=ctx.dataset.multi_label,
        progress=lambda text, done, total: ctx.report(f"{what} {title}", done, total),
        resolution=ctx.resolution(student),
    )
    use_plain_layers(model)
    return result


def _schedule(ctx: Context, section: TrainSection) -> TrainSchedule:
    """Give the section's schedule, with class weights counted on the training split where it asks for them."""
    schedule = schedule_of(section)
    if section.class_weights == "none":
        return schedule
    labels = torch.from_numpy(ctx.dataset.labels[ctx.dataset.indices("train")])
    return replace(schedule, class_weights=balanced_weights(labels, ctx.num_classes, ctx.dataset.multi_label))
