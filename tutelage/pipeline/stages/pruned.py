"""Make students by structured pruning of networks that a run has trained, and fine-tune them like the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch

from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Resources, derived_seed, run_stage
from tutelage.pipeline.keys.stage_inputs import ImagesInput, NetworkInput, StageInputs, promised, versions_of
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import PrunedSection
from tutelage.quant.prune.prune import Importance, macs, prune_to, require_pruner
from tutelage.quant.prune.shapes import pruned_shapes
from tutelage.records import Artifact, InputError, Pruned, Student

from .students import choices, train_choices
from .training import network_input

WINNERS = "winners"
# Labelled images whose gradients rank the channels for `taylor`: a few dozen rank them as thousands do (Molchanov).
_TAYLOR_IMAGES = 64
# The library that removes the channels, by how their importance is ranked.
PRUNERS = {name: "nni" if name.startswith("nni-") else "torch-pruning" for name in get_args(Importance)}


def check_pruned(recipe: Recipe, section: PrunedSection) -> None:
    """Refuse a pruned student whose parent nobody trains or whose library is not installed."""
    named = [one.title or one.name for one in (*recipe.students, *recipe.baselines)]
    known = [*named, *([WINNERS] if recipe.searches else [])]
    if section.of not in known:
        raise InputError(f"pruned.of = {section.of!r}: no such network is trained; known: {', '.join(known)}")
    require_pruner(section.importance)


def check_ranked(section: PrunedSection, multi_label: bool) -> None:
    """Refuse an importance that these images do not give."""
    if section.importance == "taylor" and multi_label:
        raise InputError("pruned.importance = 'taylor' needs one class an image, these images are multi-label")


def train_pruned(
    ctx: Context, winners: Sequence[Student], trained: Sequence[Student], teachers: Sequence[Student]
) -> list[Student]:
    """Prune the control of each network that the recipe names, and fine-tune it for each choice of teachers.

    winners: of the search, trained; trained: all of the run's students and baselines; a control is one without
    a teacher. Fine-tuning starts from the pruned weights and has the students' schedule.
    """
    alone = [student for student in trained if not student.teacher and student.seed == ctx.recipe.seed]
    tuned = []
    for section in ctx.recipe.pruned:
        for parent in alone:
            wanted = parent in winners if section.of == WINNERS else parent.model == section.of
            if not wanted:
                continue
            student, start = _cut(ctx, section, parent)
            tuned += train_choices(ctx, student, start, choices(ctx, teachers))
    return tuned


class PruneInputs(StageInputs):
    """A network without some of its channels."""

    STAGE: ClassVar[str] = "prune"

    network: NetworkInput
    keep: float  # fraction of the multiply-accumulates
    importance: Importance
    side: int
    channels: int
    images: ImagesInput | None  # whose gradients rank the channels; None: no images do
    seed: int | None  # that draws them

    @property
    def places(self) -> dict[str, str]:
        return {"keep": "pruned.keep", "importance": "pruned.importance"}

    def promise(self, key: str) -> dict[str, Any]:
        pruned = Pruned(parent=self.network.model, importance=self.importance, ratio=0.0, shapes={"of": ()})
        return {"pruned": pruned.to_dict(), "weights": promised(key, networks.WEIGHTS, "weights")}


def _cut(ctx: Context, section: PrunedSection, parent: Student) -> tuple[Student, NetworkInput]:
    """Prune one network and file its remaining weights; give the record to train and the network it starts from."""
    title = f"{parent.model}-pruned{section.keep_fraction * 100:g}"
    title += "" if section.importance == "magnitude" else f"-{section.importance}"
    ranked, network = section.importance == "taylor", network_input(parent)
    inputs = PruneInputs(
        title=f"prune {parent.model} to {section.keep}",
        versions=versions_of((*network.libraries, PRUNERS[section.importance])),
        network=network,
        keep=section.keep_fraction,
        importance=section.importance,
        side=ctx.resolution(parent),
        channels=ctx.channels,
        images=ctx.images_input if ranked else None,
        seed=ctx.recipe.seed if ranked else None,
    )
    found = run_stage(ctx, inputs, _prune).result
    student = Student(
        model=title,
        role="student",
        arch=parent.arch,
        library_name=parent.library_name,
        options=parent.options,
        normalisation=parent.normalisation,
        pruned=Pruned.from_dict(found["pruned"]).model_copy(update={"parent": parent.model}),
    )
    return student, network_input(student.model_copy(update={"weights": Artifact.from_dict(found["weights"])}))


def _prune(inputs: PruneInputs, here: Resources, folder: Path) -> dict[str, Any]:
    here.report(inputs.title, 0, 1)
    whole = networks.load(here, inputs.network.student)
    shape = (2, inputs.channels, inputs.side, inputs.side)
    batch = None if inputs.seed is None else _labelled(here, inputs, inputs.seed)
    cut, report = prune_to(whole, shape, inputs.keep * macs(whole, shape), importance=inputs.importance, batch=batch)
    left = Pruned(
        parent=inputs.network.model, importance=inputs.importance, ratio=report.ratio, shapes=pruned_shapes(whole, cut)
    )
    here.report(inputs.title, 1, 1)
    return {"pruned": left.to_dict(), "weights": networks.file_weights(here, cut, folder).to_dict()}


def _labelled(here: Resources, inputs: PruneInputs, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = here.draw("train", _TAYLOR_IMAGES, derived_seed(seed, "taylor"))
    return here.split("train", inputs.side, drawn, inputs.network.normalisation)
