"""Train the supernet, or take it from a weights file, once for all searches of a workspace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from tutelage.distill.training.batches import Waiting
from tutelage.pipeline.context import Context, Opened, Resources, derived_seed, run_stage
from tutelage.pipeline.keys.former import Former
from tutelage.pipeline.keys.stage_inputs import (
    AugmentInput,
    ComputedOn,
    FileInput,
    ImagesInput,
    NetworkInput,
    StageInputs,
    promised,
    versions_of,
)
from tutelage.pipeline.networks import WEIGHTS, file_weights
from tutelage.pipeline.processes import Training, announce
from tutelage.pipeline.weights.given import given_weights, wanted_for_space
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.ranks import joined
from tutelage.records import Artifact, InputError, Student
from tutelage.search.spaces.space import SPACES, Space, find_space
from tutelage.search.supernet import build_supernet
from tutelage.search.supernet.training import Batch, SupernetSchedule, train_supernet

from .training import SupernetInput, network_input, report_speed, soft_targets

# Subnets a step besides the largest and the smallest, as in BigNAS, where a recipe does not say.
NUM_RANDOM = 2


@dataclass(frozen=True)
class Supernet:
    """A trained supernet: its space at the run's resolutions, and what identifies it in the inputs of a stage."""

    space: Space
    part: SupernetInput

    def load(self, opened: Opened) -> nn.Module:
        """Build it with its weights, in evaluation mode."""
        return self.part.load(opened)


class SupernetInputs(StageInputs):
    """The training of a supernet."""

    STAGE: ClassVar[str] = "train supernet"

    images: ImagesInput
    augment: AugmentInput
    accelerator: ComputedOn
    space: str
    origin: str  # distribution and version of the plug-in that declares the space; empty: built in
    resolutions: tuple[int, ...]
    method: Literal["sandwich", "random", "progressive"]
    epochs: int
    lr: float
    batch_size: int
    accumulate: Annotated[int, Former(1)]
    num_random: int | None  # None: the method's phases say how many
    bf16: bool | None
    ema_decay: float | None
    warmup_epochs: float
    clip_norm: float
    weights: FileInput | None
    teachers: tuple[NetworkInput, ...]
    seed: int

    @property
    def places(self) -> dict[str, str]:
        shared = ("title", "versions", "images", "accelerator", "seed")
        mine = (name for name in SupernetInputs.model_fields if name not in shared)
        return {name: "data.augment" if name == "augment" else f"supernet.{name}" for name in mine}

    def promise(self, key: str) -> dict[str, Any]:
        return {"weights": promised(key, WEIGHTS, "weights")}


def space_of(ctx: Context) -> Space:
    """Give the recipe's space with the resolutions of this run."""
    section = ctx.recipe.supernet
    return find_space(section.space).with_resolutions(section.resolutions or (ctx.size,))


def train_the_supernet(ctx: Context, teachers: Sequence[Student]) -> Supernet:
    """Train by the recipe's schedule, distilled from the largest subnet and the teachers that the recipe names."""
    section = ctx.recipe.supernet
    space = space_of(ctx)
    named = [network_input(teacher) for teacher in teachers if teacher.model in section.teachers]
    if len(named) < len(section.teachers):
        raise InputError(f"supernet.teachers {list(section.teachers)} must be names of the recipe's teachers")
    fixed = NUM_RANDOM if section.num_random is None else section.num_random
    inputs = SupernetInputs(
        title=f"train supernet {space.name}",
        versions=versions_of(["torch", "ofa", *(name for one in named for name in one.libraries)]),
        images=ctx.images_input,
        augment=ctx.augment_input,
        accelerator=ctx.accelerator_input(trains=True, compiles=True),
        space=space.name,
        origin=SPACES.origin_name(space.name),
        resolutions=tuple(space.resolutions),
        method=section.method,
        epochs=section.epochs,
        lr=section.lr,
        batch_size=section.batch_size,
        accumulate=section.accumulate,
        num_random=None if section.method == "progressive" else fixed,
        bf16=section.bf16,
        ema_decay=section.ema_decay,
        warmup_epochs=section.warmup_epochs,
        clip_norm=section.clip_norm,
        weights=_weights(ctx, space),
        teachers=tuple(named),
        seed=ctx.recipe.seed,
    )
    weights = FileInput.of(Artifact.from_dict(run_stage(ctx, inputs, _train).result["weights"]))
    part = SupernetInput(space=inputs.space, origin=inputs.origin, resolutions=inputs.resolutions, weights=weights)
    return Supernet(space, part)


def _weights(ctx: Context, space: Space) -> FileInput | None:
    """Give the file of pretrained weights that the recipe names for its supernet."""
    text = ctx.recipe.supernet.weights
    if text is None:
        return None
    given = given_weights(text, wanted_for_space(space.name, ctx.channels), ctx.size, ctx.report)
    return FileInput(sha256=given.sha256, path=str(given.path))


def _train(inputs: SupernetInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Train a supernet and file its weights."""
    space = find_space(inputs.space).with_resolutions(inputs.resolutions)
    weights = None if inputs.weights is None else here.workspace.path / inputs.weights.path
    net = build_supernet(
        space, here.num_classes, here.channels, weights=weights, seed=derived_seed(inputs.seed, "supernet")
    )
    fit_supernet(inputs, here, net, folder / CHECKPOINT)
    return {"weights": file_weights(here, net, folder).to_dict(), "accelerator": here.computed_on}


def built(inputs: SupernetInputs, here: Opened) -> nn.Module:
    """Build the supernet of the inputs for a process whose leader sends the weights."""
    space = find_space(inputs.space).with_resolutions(inputs.resolutions)
    return build_supernet(space, here.num_classes, here.channels)


def fit_supernet(inputs: SupernetInputs, here: Opened, net: nn.Module, checkpoint: Path) -> None:
    """Train `net` in place as the inputs say; where a launcher started several processes, the others take part."""
    if here.finished is None:
        announce(Training(inputs, checkpoint), net)
    space = find_space(inputs.space).with_resolutions(inputs.resolutions)
    ranks = joined(sync_batch_norm=inputs.accelerator.num_norms == 1)
    here.accelerator.place(net)
    loader = here.loader(
        inputs.augment,
        inputs.batch_size,
        seed=derived_seed(inputs.seed, "supernet batches"),
        resolution=max(space.resolutions),
    )
    teachers = [one.student for one in inputs.teachers]
    soft = soft_targets(here, teachers, inputs.augment, loader.resolution) if teachers else None
    waiting = Waiting()

    def batches(epoch: int) -> Iterable[Batch]:
        for batch in waiting.over(loader.epoch(epoch, ranks.rank, ranks.num)):
            yield batch.images, batch.labels, soft(batch) if soft is not None else None

    trained = train_supernet(
        net,
        space,
        batches,
        len(loader),
        SupernetSchedule(
            method=inputs.method,
            epochs=inputs.epochs,
            lr=inputs.lr,
            num_random=NUM_RANDOM if inputs.num_random is None else inputs.num_random,
            bf16=inputs.bf16,
            accumulate=inputs.accumulate,
            ema_decay=inputs.ema_decay,
            warmup_epochs=inputs.warmup_epochs,
            clip_norm=inputs.clip_norm,
        ),
        seed=derived_seed(inputs.seed, "supernet training"),
        checkpoint=checkpoint,
        finished=here.finished,
        data_id=loader.identity,
        multi_label=here.dataset.multi_label,
        accelerator=here.accelerator,
        ranks=ranks,
        progress=lambda text, done, total: here.report("train supernet", done, total),
    )
    report_speed(here, inputs.title, loader, [record["seconds"] for record in trained.epochs], [waiting.seconds])
