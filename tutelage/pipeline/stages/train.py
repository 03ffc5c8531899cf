"""Train networks: the teachers, the winners with and without teachers, and the baselines. One stage a network.

Networks whose recipe says `epochs: 0` are not trained: their weights file is filed and validated as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tutelage.distill.evaluation.convergence import still_rising
from tutelage.distill.teachers.weights import load_weights
from tutelage.distill.training.normalisation import normalised_inputs
from tutelage.distill.training.train import validate
from tutelage.distill.training.tuning import Tuning
from tutelage.files import write_json
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Resources, TeacherSet, run_stage
from tutelage.pipeline.curves import HISTORY
from tutelage.pipeline.keys.stage_inputs import NetworkInput, versions_of
from tutelage.pipeline.sections import TeacherSection
from tutelage.pipeline.workspace import CHECKPOINT, Stage
from tutelage.records import Artifact, InputError, Student
from tutelage.search.supernet import build_supernet, extract

from .training import (
    PretrainedInput,
    Start,
    SupernetInput,
    TrainInputs,
    UntrainedInputs,
    distillation_input,
    fit,
    head_of,
    libraries_of,
    network_input,
    pretrained,
    schedule_part,
    start_name,
    statistics_of,
)


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
    student, start = pretrained(ctx, section.weights, student)
    student = student.model_copy(update={"start": start_name(student, start), "epochs": section.epochs})
    if section.epochs == 0 and start is not None:
        return take_weights(ctx, student, start)
    network = network_input(student)
    inputs = TrainInputs(
        title=f"train teacher {section.name}",
        versions=versions_of(network.libraries),
        images=ctx.images_input,
        augment=ctx.augment_input,
        accelerator=ctx.accelerator_input(trains=True, compiles=True),
        network=network,
        start=start,
        freeze=section.freeze,
        layer_decay=section.layer_decay,
        head=head_of(student, start),
        statistics=statistics_of(start),
        schedule=schedule_part(section),
        distillation=None,
        seed=ctx.recipe.seed,
        role="teacher",
        repeat=0,
        place=f"teachers.{section.name}",
    )
    return trained(student, run_stage(ctx, inputs, _train))


def take_student(ctx: Context, student: Student, weights: PretrainedInput) -> Student:
    """File and validate a student as its weights file has it: no training, no teacher, one row whatever the seeds."""
    student = student.model_copy(
        update={"recipe": ctx.recipe.name, "dataset": ctx.dataset.name, "seed": ctx.recipe.seed, "epochs": 0}
    )
    return take_weights(ctx, student, weights)


def take_weights(ctx: Context, student: Student, weights: PretrainedInput) -> Student:
    """File and validate a network as its weights file has it."""
    network = network_input(student)
    inputs = UntrainedInputs(
        title=f"take the weights of {student.model}",
        versions=versions_of(network.libraries),
        images=ctx.images_input,
        accelerator=ctx.accelerator_input(),
        network=network,
        weights=weights,
    )
    return trained(student, run_stage(ctx, inputs, _take))


def train_student(
    ctx: Context,
    student: Student,
    start: Start,
    choice: TeacherSet,
    repeat: int = 0,
    tuning: Tuning = Tuning(),  # noqa: B008 - frozen
    epochs: int | None = None,
) -> Student:
    """Train one student from `start` (fresh weights where it is None), distilled from all teachers of `choice`.

    epochs: its own in place of those of `distill`. Students with and without teachers have the same schedule, seed,
    batches and initial weights. `repeat` counts the seeds after the recipe's own: it draws other batches and, where
    there is no start, other fresh weights.
    """
    section = ctx.recipe.distill
    schedule = schedule_part(section if epochs is None else section.model_copy(update={"epochs": epochs}))
    student = student.model_copy(
        update={
            "teacher": choice.name,
            "notes": (*student.notes, *choice.notes),
            "recipe": ctx.recipe.name,
            "dataset": ctx.dataset.name,
            "seed": ctx.recipe.seed + repeat,
            "start": start_name(student, start),
            "epochs": schedule.epochs,
        }
    )
    network, distillation = network_input(student), distillation_input(section, choice.teachers, choice.weights)
    name = f"distil {student.model} from {student.teacher}" if choice.teachers else f"train {student.model} on labels"
    inputs = TrainInputs(
        title=name if not repeat else f"{name}, seed {student.seed}",
        versions=versions_of(libraries_of(network, distillation)),
        images=ctx.images_input,
        augment=ctx.augment_input,
        accelerator=ctx.accelerator_input(trains=True, compiles=True),
        network=network,
        start=start,
        freeze=tuning.freeze,
        layer_decay=tuning.layer_decay,
        head=head_of(student, start),
        statistics=statistics_of(start),
        schedule=schedule,
        distillation=distillation,
        seed=ctx.recipe.seed,
        role="student",
        repeat=repeat,
        place="distill",
        place_of_epochs=_place_of_epochs(ctx, student, schedule.epochs),
    )
    return trained(student, run_stage(ctx, inputs, _train))


def _place_of_epochs(ctx: Context, student: Student, epochs: int) -> str:
    """Say where the recipe gives a network epochs of its own; a fresh winner has none, it has those of `distill`."""
    named = {section.title or section.name for section in (*ctx.recipe.students, *ctx.recipe.baselines)}
    own = epochs != ctx.recipe.distill.epochs and student.model in named
    return f"{student.role}s.{student.model}.epochs" if own else ""


def trained(student: Student, stage: Stage) -> Student:
    """Complete the record of a network by what its stage filed."""
    found = stage.result
    said = [*student.notes, *found.get("notes", ()), found.get("convergence", "")]
    return student.model_copy(
        update={
            "weights": Artifact.from_dict(found["weights"]),
            "validation": found.get("validation", {}),
            "notes": tuple(dict.fromkeys(filter(None, said))),
            "params": found.get("params"),
            "macs": found.get("macs"),
        }
    )


def _train(inputs: TrainInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Train one network and file it."""
    model = _started(inputs, here)
    result = fit(inputs, here, model, folder / CHECKPOINT)
    write_json(folder / HISTORY, result.history)
    student = inputs.network.student
    filed = _filed(here, student, model, folder, result.val_accuracy, result.val_auc, result.notes)
    return {**filed, "convergence": still_rising(result.history, stopped_early=result.stopped_early)}


def _started(inputs: TrainInputs, here: Resources) -> nn.Module:
    """Build the network as its training begins."""
    start, student = inputs.start, inputs.network.student
    if isinstance(start, SupernetInput):
        assert student.arch is not None, "a network that is extracted has an architecture"
        return extract(start.load(here), student.arch)
    if isinstance(start, NetworkInput):
        return networks.load(here, start.student)
    if start is None:
        return networks.build(here, student, seed=inputs.seeds[0])
    # Each of the seeds begins with the same classifier, where the file's is of other classes.
    first = inputs.model_copy(update={"repeat": 0}).seeds[0]
    return _loaded(here, student, start, seed=first, fresh_head=True)


def _loaded(here: Resources, student: Student, start: PretrainedInput, *, seed: int, fresh_head: bool) -> nn.Module:
    """Build a network with pretrained weights; one of a space may be extracted from its supernet's file."""
    path = here.workspace.path / start.path
    if not start.supernet:
        model = networks.build(here, student, seed=seed)
        load_weights(model, path, fresh_head=fresh_head)
        return model
    check_extracted(path, fresh_head)
    assert student.arch is not None, "a network that is extracted has an architecture"
    supernet = build_supernet(student.arch.space, here.num_classes, here.channels, weights=path, seed=seed)
    return extract(supernet, student.arch)


def check_extracted(path: Path, fresh_head: bool) -> None:
    """Refuse a subnet that is extracted from a supernet's file to be used as it is: nobody trained its classifier."""
    if not fresh_head:
        raise InputError(f"{path} holds a supernet, and with epochs: 0 its subnet would not be trained: give epochs")


def _take(inputs: UntrainedInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Validate a network as its weights file has it, and file it."""
    student = inputs.network.student
    model = _loaded(here, student, inputs.weights, seed=0, fresh_head=False)
    return filed_network(here, student, model, folder, ("weights used as they are, not trained here",))


def filed_network(
    here: Resources, student: Student, model: nn.Module, folder: Path, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Validate a network that is not trained here and file it; give what its stage files."""
    val = here.in_order("val", here.resolution(student))
    own = None if student.normalisation is None else student.normalisation.values
    with normalised_inputs(model, own):
        figures = validate(here.accelerator.place(model), val, here.dataset.multi_label)
    return _filed(here, student, model.cpu(), folder, figures["val_accuracy"], figures["val_auc"], notes)


def _filed(
    here: Resources,
    student: Student,
    model: nn.Module,
    folder: Path,
    accuracy: float,
    auc: float | None,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Write a network's weights into its stage's folder; give their record, the validation figures and the counts."""
    return {
        "weights": networks.file_weights(here, model, folder).to_dict(),
        "validation": {"accuracy": accuracy} | ({"auc": auc} if auc is not None else {}),
        "notes": list(notes),
        "accelerator": here.computed_on,
        **networks.costs(here, student),
    }
