"""Extrapolate what the papers' recipes cost on 1 GPU, 8 GPUs and 64 machines: a table for docs/real-size.md.

    python tests/big/costs.py

Counted: images, trainings, epochs (of a student with fresh weights those of the supernet as well) and
multiply-accumulates (MACs), from the recipes and the networks. Assumed: how many operations a second a GPU sustains,
`RATES`; none has run this code. A training takes
    images x epochs x 6 MACs / rate (forward 2, backward 4), a supernet's step that of each subnet it trains,
and teachers compute each image once for each augmentation (2 MACs). Trainings that do not wait for one another are
put on the free GPU, the longest first; one training is not divided.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tutelage.distill.teachers.zoo import build_teacher
from tutelage.pipeline.networks import count_module
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.stages.named import named_network, num_epochs
from tutelage.pipeline.stages.students import choices
from tutelage.search.costs.counts import count
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.spaces.space import find_space

# Training images: the collections' own numbers, less the validation split that a recipe takes off.
IMAGES = {
    "cxr14-eeea-c2": (round(86_524 * 0.85), "112,120"),
    "chexpert-mobilenetv2": (round(223_414 * 0.9), "223,648"),
    "cxr-ofa595": (21_715, "33,920"),
    "chest-ct-kd-ptq": (round(2_481 * 0.65), "2,481"),
}
# Assumed operations a second of one GPU of 2020 and later in bfloat16: of networks of dense convolutions and attention,
# and of those of depthwise convolutions, which wait for memory. Chosen by hand, not measured.
RATES = {"dense": 3.0e13, "depthwise": 6.0e12}
_DEPTHWISE = ("mobilenet", "efficientnet", "nasnet", "ofa", "eeea", "xception")
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Job:
    """One training: hours on one GPU."""

    title: str
    hours: float


def hours(name: str, operations: float) -> float:
    light = any(word in name.lower() for word in _DEPTHWISE)
    return operations / RATES["depthwise" if light else "dense"] / 3600


def macs_of(name: str, recipe: Recipe, side: int) -> float:
    """Count the multiply-accumulates of one image."""
    if name in PRESETS:
        arch = PRESETS[name].model_copy(update={"r": side})
        return float(count([arch], 5, recipe.data.channels or 3).macs[0])
    network = build_teacher(name, 5, recipe.data.channels or 3, side)
    return float(count_module(network, (1, recipe.data.channels or 3, side, side))["macs"])


def rounds(recipe: Recipe, images: int) -> list[list[Job]]:
    """List the trainings of a recipe by rounds: those of a round wait for the round before, not for one another."""
    side = recipe.data.size or 224
    teachers = {one.name: macs_of(one.name, recipe, side) for one in recipe.teachers}
    first = [Job(f"teacher {t.name}", hours(t.name, 6 * teachers[t.name] * images * t.epochs)) for t in recipe.teachers]
    if recipe.trains_supernet:
        section = recipe.supernet
        space = find_space(section.space).with_resolutions((side,))
        drawn = count(space.decode(space.random(50, np.random.default_rng(0))), 5).macs
        ends = count([space.largest(), space.smallest()], 5).macs
        step = float(ends.sum() + 2 * np.mean(drawn))
        first.append(Job("supernet", hours("ofa", 6 * step * images * section.epochs)))
    outputs = [
        Job(f"outputs of {name}", hours(name, 2 * macs * images * max(1, recipe.data.augment_variants)))
        for name, macs in teachers.items()
    ]
    ctx: Any = SimpleNamespace(recipe=recipe, size=side)
    students = [
        (one.name, macs_of(one.name, recipe, side), num_epochs(ctx, one, named_network(ctx, one, "student")))
        for one in recipe.students
    ]
    if recipe.searches:
        students += [("ofa winner", float(np.mean(drawn)), recipe.distill.epochs)] * recipe.num_winners
    sets: Any = recipe.teachers
    last = [
        Job(name, hours(name, 6 * macs * images * epochs))
        for name, macs, epochs in students
        for _ in range((1 + len(choices(ctx, sets))) * recipe.seeds)  # a control beside them
    ]
    return [first, outputs, last]


def makespan(jobs: Sequence[Job], gpus: int) -> float:
    """Give the hours until all jobs are done: the longest first, each on the GPU that is free first."""
    free = [0.0] * gpus
    for job in sorted(jobs, key=lambda one: -one.hours):
        heapq.heappush(free, heapq.heappop(free) + job.hours)
    return max(free)


def main() -> None:
    print("| recipe | images | trainings | GPU hours | 1 GPU | 8 GPUs | 64 machines of one GPU |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (images, total) in IMAGES.items():
        planned = rounds(load_recipe(name), images)
        jobs = [job for some in planned for job in some]
        times = [sum(makespan(some, gpus) for some in planned) for gpus in GPUS]
        trainings = len(planned[0]) + len(planned[2])
        shown = " | ".join(f"{time:,.0f} h" if time >= 10 else f"{time:.1f} h" for time in times)
        print(f"| `{name}` | {total} | {trainings} | {sum(job.hours for job in jobs):,.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
