"""Train the supernet, or take it from a weights file, once for all searches of a workspace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from tutelage.distill.teachers.weights import load_exactly
from tutelage.pipeline.context import Context, file_hash
from tutelage.pipeline.networks import WEIGHTS
from tutelage.records import InputError, Student
from tutelage.search.spaces.space import Space, find_space
from tutelage.search.supernet import build_supernet
from tutelage.search.supernet.training import Batch, SupernetSchedule, train_supernet

from .train import CHECKPOINT, soft_targets

# Subnets a step besides the largest and the smallest, as in BigNAS, where a recipe does not say.
NUM_RANDOM = 2


@dataclass(frozen=True)
class Supernet:
    """A trained supernet: its space at the run's resolutions, its weights file and the key of its stage."""

    space: Space
    weights: Path
    key: str

    def load(self, ctx: Context) -> nn.Module:
        net = build_supernet(self.space, ctx.num_classes, ctx.channels)
        load_exactly(net, load_file(self.weights), str(self.weights))
        return net.eval()


def space_of(ctx: Context) -> Space:
    """Give the recipe's space with the resolutions of this run."""
    section = ctx.recipe.supernet
    return find_space(section.space).with_resolutions(section.resolutions or (ctx.size,))


def train_the_supernet(ctx: Context, teachers: Sequence[Student]) -> Supernet:
    """Train by the recipe's schedule, distilled from the largest subnet and the teachers that the recipe names."""
    section = ctx.recipe.supernet
    space = space_of(ctx)
    num_random = NUM_RANDOM if section.num_random is None else section.num_random
    named = [teacher for teacher in teachers if teacher.model in section.teachers]
    if len(named) < len(section.teachers):
        raise InputError(f"supernet.teachers {list(section.teachers)} must be names of the recipe's teachers")
    inputs: dict[str, Any] = {
        "data": ctx.data_key,
        "supernet": {**section.model_dump(mode="json", exclude={"weights"}), "num_random": num_random},
        "weights": file_hash(section.weights),
        "teachers": [teacher.weights.sha256 for teacher in named if teacher.weights],
        "seed": ctx.recipe.seed,
    }

    if section.method == "progressive" or space.family.elastic_widths:
        inputs["version"] = 2  # channels are sorted in each expand phase; bf16 reaches ResNet50D and statistics wait

    def work(folder: Path) -> dict[str, Any]:
        net = build_supernet(space, ctx.num_classes, ctx.channels, weights=section.weights, seed=ctx.seed("supernet"))
        loader = ctx.loader(section.batch_size, seed=ctx.seed("supernet batches"), resolution=max(space.resolutions))
        soft = soft_targets(ctx, named, loader.resolution) if named else None

        def batches(epoch: int) -> Iterable[Batch]:
            for batch in loader.epoch(epoch):
                yield batch.images, batch.labels, soft(batch) if soft is not None else None

        train_supernet(
            net,
            space,
            batches,
            len(loader),
            SupernetSchedule(
                method=section.method,
                epochs=section.epochs,
                lr=section.lr,
                num_random=num_random,
                bf16=section.bf16,
                ema_decay=section.ema_decay,
                warmup_epochs=section.warmup_epochs,
                clip_norm=section.clip_norm,
            ),
            seed=ctx.seed("supernet training"),
            checkpoint=folder / CHECKPOINT,
            data_id=loader.identity,
            multi_label=ctx.dataset.multi_label,
            progress=lambda text, done, total: ctx.report("train supernet", done, total),
        )
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / WEIGHTS)
        return {"space": space.name, "resolutions": list(space.resolutions)}

    stage = ctx.workspace.stage(f"supernet {space.name}", inputs, work)
    return Supernet(space, stage.folder / WEIGHTS, stage.key)
