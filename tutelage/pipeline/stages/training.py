"""What every training reads, as typed inputs of its stage, and `fit`, which trains a network by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from tutelage.distill.data.augmentations import AUGMENTATIONS
from tutelage.distill.data.loader import Loader, images_id
from tutelage.distill.losses.logits import balanced_weights
from tutelage.distill.losses.methods import LOSSES
from tutelage.distill.teachers.weights import load_exactly
from tutelage.distill.teachers.zoo import TEACHERS, head_version
from tutelage.distill.training.normalisation import normalised_inputs
from tutelage.distill.training.soft_targets import Combine, SoftTargets
from tutelage.distill.training.train import KDConfig, TrainResult, TrainSchedule, train
from tutelage.distill.training.tuning import Tuning
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Opened, derived_seed, schedule_of
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import (
    AugmentInput,
    ComputedOn,
    FileInput,
    ImagesInput,
    NetworkInput,
    Part,
    StageInputs,
    promised,
)
from tutelage.pipeline.processes import Training, announce, num_processes
from tutelage.pipeline.sections import DistillSection, TrainSection
from tutelage.pipeline.weights.given import given_weights, wanted_for
from tutelage.records import InputError, Student, content_id
from tutelage.search.spaces.space import SPACES, find_space
from tutelage.search.supernet import build_supernet
from tutelage.search.supernet.fast_layers import use_fast_layers, use_plain_layers


class SupernetInput(Part):
    """A trained supernet: its space at the run's resolutions, and its weights."""

    space: str
    origin: str  # distribution and version of the plug-in that declares the space; empty: built in
    resolutions: tuple[int, ...]
    weights: FileInput

    def load(self, opened: Opened) -> nn.Module:
        """Build it with its weights, in evaluation mode."""
        path = opened.workspace.path / self.weights.path
        space = find_space(self.space).with_resolutions(self.resolutions)
        net = build_supernet(space, opened.num_classes, opened.channels)
        load_exactly(net, load_file(path), str(path))
        return net.eval()


class PretrainedInput(FileInput):
    """A file of pretrained weights. `supernet`: of the network's whole space, from which the network is extracted."""

    supernet: Annotated[bool, Former(False)]


# What a student's training begins with: None is fresh weights, a file holds trained ones.
Start = SupernetInput | NetworkInput | PretrainedInput | None


class Distillation(Part):
    """How a student is distilled, and from which networks."""

    alpha: float
    method: str
    origin: str  # distribution and version of the plug-in that has the method; empty: built in
    temperature: float | None
    soft_weight: float | None
    combine: Combine | None  # of several teachers; None: there is one
    options: dict[str, Any]
    teachers: tuple[NetworkInput, ...]
    teacher_weights: Annotated[tuple[float, ...], Former(())]  # relative ones, of several teachers; none: all alike


class TrainingInputs(StageInputs):
    """What any training reads: the network, its schedule and, where it has teachers, its distillation."""

    images: ImagesInput
    augment: AugmentInput
    accelerator: ComputedOn
    network: NetworkInput
    schedule: TrainSection
    distillation: Distillation | None
    seed: int
    repeat: int  # of the recipe's seeds
    place: str = Field(exclude=True)  # of its schedule in the recipe
    place_of_epochs: str = Field("", exclude=True)  # where it has its own

    @property
    def seeds(self) -> tuple[int, int]:
        """Give the seeds of the training and of its batches."""
        raise NotImplementedError

    @property
    def fresh_statistics(self) -> bool:
        """Say whether the first epoch replaces the running statistics of batch norm."""
        return False

    @property
    def tuning(self) -> Tuning:
        """Say how pretrained weights are trained on: all of them, at one learning rate."""
        return Tuning()

    @property
    def places(self) -> dict[str, str]:
        own = {"schedule.epochs": self.place_of_epochs} if self.place_of_epochs else {}
        return {"schedule": self.place, "distillation": "distill", "network.options": f"{self.place}.options", **own}

    def promise(self, key: str) -> dict[str, Any]:
        return {"weights": promised(key, networks.WEIGHTS, "weights")}


class TrainInputs(TrainingInputs):
    """A teacher or student: what it starts from, and its training."""

    STAGE: ClassVar[str] = "train"

    start: Start
    freeze: Annotated[bool | int, Former(False)]
    layer_decay: Annotated[float | None, Former(None)]
    # Of the code that draws the classifier's initial weights, where the start does not bring them.
    head: Annotated[int, Former(1)]
    # Of the code that moves batch norm's running statistics, where the start's are not of this network.
    statistics: Annotated[int, Former(1)]
    role: Literal["teacher", "student"]  # their seeds are drawn apart

    @property
    def tuning(self) -> Tuning:
        return Tuning(self.freeze, self.layer_decay)

    @property
    def fresh_statistics(self) -> bool:
        return self.statistics > 1

    @property
    def places(self) -> dict[str, str]:
        return {
            **super().places,
            "head": "the classifier's initial weights",
            "statistics": "batch norm's statistics in the first epoch",
        }

    @property
    def stage(self) -> str:
        if self.role == "teacher":
            return "train teacher"
        return "distil" if self.distillation is not None else "train on labels"

    @property
    def seeds(self) -> tuple[int, int]:
        again = (self.repeat,) if self.repeat else ()
        who = (self.role, self.network.library_name) if self.role == "teacher" else (self.role,)
        return derived_seed(self.seed, *who, *again), derived_seed(self.seed, "batches", *again)


class UntrainedInputs(StageInputs):
    """A network that is used as its weights file has it."""

    STAGE: ClassVar[str] = "take weights"

    images: ImagesInput
    accelerator: ComputedOn
    network: NetworkInput
    weights: PretrainedInput

    def promise(self, key: str) -> dict[str, Any]:
        return {"weights": promised(key, networks.WEIGHTS, "weights")}


def pretrained(ctx: Context, weights: str | None, student: Student) -> tuple[Student, PretrainedInput | None]:
    """Find the pretrained weights that a recipe names for a network: the network as they want it, and their file."""
    if weights is None:
        return student, None
    given = given_weights(weights, wanted_for(student, ctx.channels), ctx.size, ctx.report)
    notes = (*student.notes, given.note) if given.note else student.notes
    # Of a file its name alone: where it lies is this machine's.
    start = Path(weights).name if given.path == Path(weights).expanduser().absolute() else weights
    own = student.model_copy(update={"normalisation": given.normalisation, "notes": notes, "start": start})
    return own, PretrainedInput(sha256=given.sha256, path=str(given.path), supernet=bool(given.supernet))


def start_name(student: Student, start: Start) -> str:
    """Say in a word what a training begins with, as rows do; pretrained weights have their name in the record."""
    if isinstance(start, PretrainedInput):
        return student.start
    return "fresh" if start is None else "supernet" if isinstance(start, SupernetInput) else "pruned"


def head_of(student: Student, start: Start) -> int:
    """Give the version of the code that draws a network's classifier; 1 where its start brings it, as a subnet's does.

    Pretrained weights may be of other classes: their classifier is then fresh.
    """
    is_drawn = start is None or isinstance(start, PretrainedInput)
    return head_version(student.library_name) if is_drawn and student.arch is None else 1


def statistics_of(start: Start) -> int:
    """Give the version of the code that moves batch norm's running statistics in the first epoch.

    2: what they hold of their initial values is divided out, for those of fresh weights are of no network, and those of
    a supernet of no subnet. Pretrained and pruned networks keep theirs: 1.
    """
    return 2 if start is None or isinstance(start, SupernetInput) else 1


def network_input(student: Student) -> NetworkInput:
    """Give what identifies a network in a stage's inputs; another version of a plug-in may build another one."""
    if student.arch is not None:
        return NetworkInput.of(student, SPACES.origin_name(student.arch.space))
    return NetworkInput.of(student, TEACHERS.origin_name(student.library_name))


def distillation_input(
    section: DistillSection, teachers: Sequence[Student], weights: Sequence[float] = ()
) -> Distillation | None:
    """Give what a recipe's distillation section says of a student with these teachers; None for one without any.

    weights: in 0..1, one a teacher; none: all 1. The largest scales the soft term, and the hard labels take what it
    gives up: at 0 the student would be its control. The teachers share the soft term by their weights.
    """
    if not teachers:
        return None
    largest = max(weights, default=1.0)
    relative = tuple(round(weight / largest, 4) for weight in weights)
    return Distillation(
        alpha=section.alpha if largest == 1 else round(1 - (1 - section.alpha) * largest, 6),
        method=section.method,
        origin=LOSSES.origin_name(section.method),  # another version of its package may be another loss
        temperature=section.temperature,
        soft_weight=section.soft_weight,
        combine=section.combine if len(teachers) > 1 else None,
        options=section.options,
        teachers=tuple(network_input(teacher) for teacher in teachers),
        teacher_weights=relative if len(set(relative)) > 1 else (),
    )


def libraries_of(network: NetworkInput, distillation: Distillation | None) -> set[str]:
    """Name the libraries that compute a student's outputs and its teachers'."""
    teachers = distillation.teachers if distillation is not None else ()
    return {name for one in (network, *teachers) for name in one.libraries}


def kd_of(section: DistillSection | Distillation) -> KDConfig:
    """Convert a distillation to a `KDConfig`: model code never reads the recipe."""
    return KDConfig(
        alpha=section.alpha,
        temperature=section.temperature,
        method=section.method,
        combine=section.combine or "mean",
        weight=section.soft_weight,
        options=section.options,
        teacher_weights=section.teacher_weights if isinstance(section, Distillation) else (),
    )


def soft_targets(
    opened: Opened, teachers: Sequence[Student], augment: AugmentInput, resolution: int | None = None
) -> SoftTargets:
    """Wrap teachers so that their outputs for an (image, augmentation) are computed once for all students.

    Where every epoch augments anew no output is needed twice, and nothing is cached.
    `resolution` is that of the students' batches (None: the data's size). Outputs on resized batches differ, so each
    resolution has its own cache in the workspace.
    """
    recurs = augment.variants > 0 or AUGMENTATIONS.find(augment.name).changes_nothing
    own = [teacher.normalisation.values if teacher.normalisation is not None else None for teacher in teachers]
    shown = images_id(opened.dataset, augment.name, resolution)
    return SoftTargets(
        [networks.load(opened, teacher, runs_images=True) for teacher in teachers],
        opened.workspace.path / "cache" / "soft-targets" if recurs else None,
        data_id=content_id([shown, own]) if any(own) else shown,
        multi_label=opened.dataset.multi_label,
        resolution=_seen_by(opened, teachers),
        bf16=opened.accelerator.bf16,
        device=opened.accelerator.device,
    )


def _seen_by(opened: Opened, teachers: Sequence[Student]) -> int:
    """Give the resolution that teachers are shown: a subnet's own, else the data's size."""
    sides = {opened.resolution(teacher) for teacher in teachers}
    if len(sides) > 1:
        raise InputError(f"teachers of {sorted(sides)} px cannot distil together: set teacher_mode to each")
    return sides.pop()


def fit(inputs: TrainingInputs, here: Opened, model: nn.Module, checkpoint: Path) -> TrainResult:
    """Train `model` in place as the inputs say, on the run's accelerator; it comes back on the CPU.

    Where a launcher started several processes, the others take part.
    """
    if here.finished is None:
        announce(Training(inputs, checkpoint), model)
    student, distillation = inputs.network.student, inputs.distillation
    teachers = [one.student for one in distillation.teachers] if distillation is not None else []
    seed, batches = inputs.seeds
    loader = here.loader(inputs.augment, inputs.schedule.batch_size, seed=batches)
    own = None if student.normalisation is None else student.normalisation.values
    with normalised_inputs(model, own):
        result = train(
            use_fast_layers(model),
            loader,
            here.in_order("val", here.resolution(student)),
            _schedule(here, inputs.schedule),
            teachers=[soft_targets(here, teachers, inputs.augment)] if teachers else (),
            kd=kd_of(distillation) if distillation is not None else None,
            seed=seed,
            checkpoint=checkpoint,
            finished=here.finished,
            multi_label=here.dataset.multi_label,
            accelerator=replace(here.accelerator, compile=inputs.accelerator.compile),
            progress=lambda text, done, total: here.report(inputs.title, done, total),
            resolution=here.resolution(student),
            tuning=inputs.tuning,
            sync_batch_norm=inputs.accelerator.num_norms == 1,
            fresh_statistics=inputs.fresh_statistics,
        )
    use_plain_layers(model.cpu())
    report_speed(
        here,
        inputs.title,
        loader,
        [record["seconds"] for record in result.history],
        [record.get("wait_seconds", 0.0) for record in result.history],
    )
    return result


def report_speed(here: Opened, title: str, loader: Loader, seconds: Sequence[float], waited: Sequence[float]) -> None:
    """Say how many images a second a training took, and whether it waited for them.

    `seconds` and `waited` are those of all epochs; the ones that an earlier process trained are left out.
    """
    epochs = loader.spent.num_items // len(loader)
    spent, idle = sum(seconds[-epochs:]), sum(waited[-epochs:])
    if epochs == 0 or spent <= idle or loader.spent.prepare_s == 0:
        return
    images = epochs * len(loader) * loader.batch_size
    prepared = images / num_processes() / loader.spent.prepare_s
    here.report(
        f"{title}: {images / spent:,.0f} images/s, {idle / spent:.0%} of the time waiting for images; "
        f"the network alone {images / (spent - idle):,.0f}, a thread that prepares images {prepared:,.0f}",
        1,
        1,
    )


def schedule_part(section: TrainSection) -> TrainSection:
    """Give the fields of a section that a training reads, and no others."""
    return TrainSection(**{name: getattr(section, name) for name in TrainSection.model_fields})


def _schedule(here: Opened, section: TrainSection) -> TrainSchedule:
    """Give the section's schedule, with class weights counted on the training split where it asks for them."""
    schedule, weights = schedule_of(section), class_weights(here, section)
    return schedule if weights is None else replace(schedule, class_weights=weights)


def class_weights(here: Opened, section: TrainSection) -> tuple[float, ...] | None:
    """Count class weights on the training split; None where the section asks for none."""
    if section.class_weights == "none":
        return None
    labels = torch.from_numpy(here.dataset.labels[here.dataset.indices("train")])
    return balanced_weights(labels, here.num_classes, here.dataset.multi_label)
