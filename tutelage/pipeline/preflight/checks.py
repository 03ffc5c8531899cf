"""Refuse a recipe that cannot end before its first stage, with all of its faults: `open_checked`, `read_recipe`.

Each check is the function by which a stage refuses the same thing later. Files are listed and not decoded; devices are
looked up and not measured. What only decoded images show is checked when they are there, before anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from tutelage.accelerator import find_accelerator
from tutelage.distill.data.assemble import outline
from tutelage.distill.data.dataset import Dataset, Listing
from tutelage.distill.data.registry import DATASETS, open_images
from tutelage.distill.evaluation.shift_sets import check_classes, find_set
from tutelage.distill.teachers.weights import fitted_weights
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.tuning import Tuning, check_tuning
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.team.place import open_place
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, images_request, open_context, shift_requests
from tutelage.pipeline.device import (
    Device,
    check_energy,
    check_rows,
    check_runtime,
    check_target,
    known_device,
    named_profile,
)
from tutelage.pipeline.objectives import (
    ERROR,
    check_weighed,
    int8_runtime,
    read_objectives,
    weighed_sections,
)
from tutelage.pipeline.processes import num_processes
from tutelage.pipeline.recipe import Recipe, load_recipe, with_options
from tutelage.pipeline.sections import DeviceSection, StartSection, SupernetSection, TrainSection
from tutelage.pipeline.stages.budgets import check_counted
from tutelage.pipeline.stages.bundle import check_bundled
from tutelage.pipeline.stages.named import named_network
from tutelage.pipeline.stages.pruned import check_pruned, check_ranked
from tutelage.pipeline.stages.quantization import check_method
from tutelage.pipeline.stages.search import check_budget, replayed
from tutelage.pipeline.stages.students import training_checks
from tutelage.pipeline.stages.supernet import space_of
from tutelage.pipeline.stages.train import check_extracted
from tutelage.pipeline.stages.training import class_weights
from tutelage.pipeline.weights.entry import Wanted
from tutelage.pipeline.weights.given import Given, check_available, given_weights, wanted_for, wanted_for_space
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report, silent
from tutelage.records import InputError, Student
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.spaces.space import Space
from tutelage.search.supernet import build_supernet

from .faults import Faults

# What follows: the search; the students, too; one given architecture and no search; all, up to the leaderboard.
Goal = Literal["search", "distill", "arch", "run"]

# Of images that cannot be read: so many classes that no method lacks any.
_CLASSES = 1000


def read_recipe(
    name_or_path: str,
    changes: Sequence[str],
    workspace: Path,
    goal: Goal,
    options: Mapping[str, object] | None = None,
) -> Recipe:
    """Read a recipe and apply `--set` changes and the options of a verb, all for a workspace.

    Where a value or the workspace cannot be used, that is raised with all other faults of the recipe.
    """
    faults = Faults()
    recipe = faults.read(load_recipe, name_or_path, changes)
    recipe = faults.read(with_options, recipe, options or {})
    if not faults.lines or workspace.expanduser().exists():  # none is made for a recipe that cannot be read
        faults.check(Workspace, workspace)
    if faults.lines:
        _look(faults, recipe, Workspace(workspace, unopened=True), goal)
        faults.refuse()
    return recipe


def open_checked(recipe: Recipe, workspace: Workspace, report: Report, threads: int, goal: Goal) -> Context:
    """Open the images of a recipe that can reach its goal; raise all that is wrong with one that cannot."""
    faults = Faults()
    found = _look(faults, recipe, workspace, goal, report)
    faults.refuse()
    ctx = open_context(recipe, workspace, report, threads, found)
    _images(faults, ctx, goal)
    faults.refuse()
    return ctx


def _look(
    faults: Faults, recipe: Recipe, workspace: Workspace, goal: Goal, report: Report | None = None
) -> Listing | Dataset | None:
    """Run every check that needs no decoded image; give what was found of the data.

    report: of the download of pretrained weights that are named; None: none is downloaded.
    """
    faults.check(find_accelerator, recipe.accelerator, compiles=recipe.compile)
    faults.check(_check_compiled, recipe)
    found, ctx = _data(faults, recipe, workspace)
    known = ctx is not None
    if ctx is None:
        shape = (0, recipe.data.size, recipe.data.size, recipe.data.channels)
        names = tuple(map(str, range(_CLASSES)))
        nothing = Dataset("", np.empty(shape, np.uint8), np.empty(0, np.int64), names, np.empty(0, np.str_), {})
        ctx = Context(recipe, workspace, nothing, silent, 1)
    _training(faults, ctx)
    _networks(faults, ctx, goal, known, report)
    if goal == "arch" and faults.reads("distill"):
        faults.check(_check_alone, recipe)
    if goal in ("search", "distill", "run"):
        _devices(faults, ctx, goal, known)
    if goal == "run" and known and faults.reads("measure"):
        _shift_sets(faults, ctx)
    if ctx.dataset.splits:
        _images(faults, ctx, goal)
    if goal == "run":
        _rows(faults, recipe, workspace)
    return found


def _check_compiled(recipe: Recipe) -> None:
    """Refuse compiled networks in several processes: what replaces their batch norm is not known to be compiled."""
    if recipe.compile and num_processes() > 1:
        raise InputError(
            f"compile: true in {num_processes()} processes is not supported: set compile to false, or start one process"
        )


def _check_alone(recipe: Recipe) -> None:
    """Refuse a teacher that is taken from a supernet where one given architecture is trained, and no supernet."""
    if recipe.distill.supernet_teacher and recipe.trains_supernet:
        raise InputError(
            "distill.supernet_teacher: true needs a supernet, and --arch trains one architecture without one: "
            "--set distill.supernet_teacher=false, or name the architecture in the recipe's students and run that"
        )


def _data(faults: Faults, recipe: Recipe, workspace: Workspace) -> tuple[Listing | Dataset | None, Context | None]:
    """List or load the images; no context where that cannot be."""
    if not faults.reads("data"):
        return None, None
    request = faults.check(images_request, recipe, workspace)
    if request is None:
        return None, None
    glance, found = DATASETS.find(request.name).glance, None
    if glance is not None:
        seen = faults.check(glance, request)
    else:
        found = faults.check(open_images, request)
        seen = None if found is None else faults.check(outline, found, request)
    return found, None if seen is None else Context(recipe, workspace, seen, silent, 1)


def _shift_sets(faults: Faults, ctx: Context) -> None:
    """List the further test sets and compare their classes with those of the images."""
    requests = faults.check(shift_requests, ctx.recipe, ctx.workspace) or {}
    for name, request in requests.items():
        found = faults.check(find_set, name, request, glance=True)
        if found is not None:
            faults.check(check_classes, name, found.class_names, found.multi_label, ctx.dataset)


def _training(faults: Faults, ctx: Context) -> None:
    """Check names, schedules, the method of distillation and what is pruned."""
    if faults.reads("data", "teachers", "students", "baselines", "distill", "supernet"):
        for check in training_checks(ctx):
            faults.check(check)
    if faults.reads("pruned", "students", "baselines"):
        for section in ctx.recipe.pruned:
            faults.check(check_pruned, ctx.recipe, section)
            faults.check(check_ranked, section, ctx.dataset.multi_label)


def _networks(faults: Faults, ctx: Context, goal: Goal, known: bool, report: Report | None) -> None:
    """Check that weights are there and, where the images are `known`, that networks take these images.

    Weights that have to be downloaded are: a run begins when it has all that it needs.
    """
    recipe = ctx.recipe
    searched = None
    if recipe.trains_supernet and faults.reads("supernet", "students", "data"):
        searched = None if goal == "arch" else faults.check(space_of, ctx)
    check = partial(_network, faults, ctx, known, report)
    if faults.reads("teachers"):
        for one in recipe.teachers:
            check(Student(model=one.name, role="teacher", library_name=one.name, options=one.options), one)
    if goal != "arch" and faults.reads("students", "data"):
        for section in recipe.students:
            check(faults.check(named_network, ctx, section, "student"), section)
    if goal == "run" and faults.reads("baselines"):
        for chosen in recipe.baselines:
            if chosen.name not in PRESETS or searched is not None or not recipe.trains_supernet:
                check(faults.check(named_network, ctx, chosen, "baseline"), chosen)
    if searched is not None and recipe.supernet.weights is not None:
        wanted = wanted_for_space(searched.name, ctx.channels)
        weights = _weights(faults, recipe.supernet.weights, wanted, ctx.size, report)
        if known and weights is not None:
            faults.check(build_supernet, searched, ctx.num_classes, ctx.channels, weights=weights.path)


def _network(
    faults: Faults, ctx: Context, known: bool, report: Report | None, student: Student | None, section: StartSection
) -> None:
    wanted = None if student is None else faults.check(wanted_for, student, ctx.channels)
    if student is None or wanted is None:  # an unknown name, which was refused
        return
    weights = None
    if section.weights is not None:
        weights = _weights(faults, section.weights, wanted, ctx.size, report)
    if known and (weights is not None or section.weights is None):
        faults.check(_fits, ctx, student, weights, section)


def _weights(faults: Faults, text: str, wanted: Wanted, size: int, report: Report | None) -> Given | None:
    """Have pretrained weights on this disk, or say why they cannot be had."""
    if report is None:
        faults.check(check_available, text, wanted)
        return None
    return faults.check(given_weights, text, wanted, size, report)


def _fits(ctx: Context, student: Student, weights: Given | None, section: StartSection) -> None:
    """Refuse a network that cannot be built for these images, or that its weights do not fit."""
    fresh_head = getattr(section, "epochs", None) != 0
    if weights is not None and weights.supernet and student.arch is not None:
        check_extracted(weights.path, fresh_head)
        build_supernet(student.arch.space, ctx.num_classes, ctx.channels, weights=weights.path)
    elif weights is not None:
        network = networks.build(ctx, student)
        fitted_weights(network, weights.path, fresh_head=fresh_head)
        check_tuning(network, Tuning(section.freeze, section.layer_decay))
    elif student.arch is None:
        options = json.dumps(student.options, sort_keys=True, default=str)
        _build_once(student.library_name, options, ctx.num_classes, ctx.channels, ctx.size)


@lru_cache(maxsize=64)
def _build_once(name: str, options: str, num_classes: int, channels: int, size: int) -> None:
    """Build a network once in a process for each kind of images; what it refuses is not kept."""
    build_teacher(name, num_classes, channels, resolution=size, **json.loads(options))


def _devices(faults: Faults, ctx: Context, goal: Goal, known: bool) -> None:
    """Check devices as far as they are known, and what a search is to weigh on them."""
    recipe, workspace = ctx.recipe, ctx.workspace.path
    if not faults.reads("devices"):
        return
    for section in recipe.devices:
        faults.check(check_runtime, workspace, section)
        if goal == "run":
            faults.check(check_rows, workspace, section)
        if not recipe.searches:
            faults.check(named_profile, workspace, section)
    if not recipe.searches or not faults.reads("students", "search", "supernet", "data"):
        return
    strategy = STRATEGIES.find(recipe.search.strategy)
    faults.check(strategy.check)
    faults.check(check_energy, workspace, recipe.devices, recipe.search.max_energy)
    if recipe.search.replay is not None and faults.check(replayed, recipe.search.replay) is None:
        return
    if recipe.search.target is not None and faults.check(check_target, workspace, recipe.search.target) is None:
        return
    space = faults.check(space_of, ctx)
    objectives = faults.check(read_objectives, recipe)
    weighed = [] if objectives is None else weighed_sections(recipe)
    opened = {} if space is None else _known_devices(faults, [*recipe.devices, *weighed], workspace, space)
    if objectives is None:
        return
    for section in recipe.devices:
        faults.check(check_weighed, recipe, section)
    if any(one.int8 and one.figure == ERROR for one in objectives):
        faults.check(int8_runtime, recipe, ())
    if not known or space is None:
        return
    faults.check(check_counted, ctx, space)
    known_ones = [opened[section.name] for section in weighed if section.name in opened]
    if len(known_ones) == len(weighed) and not faults.infeasible:
        faults.check(check_budget, ctx, space, known_ones)


def _known_devices(
    faults: Faults, sections: Sequence[DeviceSection], workspace: Path, space: Space
) -> dict[str, Device]:
    """Open the devices that have a profile, each name once."""
    found = {
        name: faults.check(known_device, workspace, section, space)
        for name, section in {section.name: section for section in sections}.items()
    }
    return {name: device for name, device in found.items() if device is not None}


def _images(faults: Faults, ctx: Context, goal: Goal) -> None:
    """Check what splits decide: whole batches, and images of each class where classes are weighted."""
    recipe = ctx.recipe
    used = ("train", "val", "test") if goal == "run" else ("train", "val")
    splits = {name: faults.check(ctx.dataset.indices, name) for name in used}
    if splits["train"] is None:
        return
    num = len(splits["train"])
    schedules: list[tuple[str, TrainSection | SupernetSection]] = [
        (f"teachers.{teacher.name}", teacher) for teacher in recipe.teachers if teacher.epochs > 0
    ]
    if _trains_students(recipe, goal) and faults.reads("distill", "students", "baselines", "pruned", "quantize"):
        schedules.append(("distill", recipe.distill))
    if goal != "arch" and recipe.trains_supernet and faults.reads("supernet", "students"):
        schedules.append(("supernet", recipe.supernet))
        images = recipe.search.images if recipe.searches and faults.reads("search") else None
        if splits["val"] is not None and images is not None:
            faults.check(_check_parts, images, len(splits["val"]))
    for name, schedule in schedules:
        faults.check(_check_batch, name, schedule.batch_size, num)
        if isinstance(schedule, TrainSection):
            faults.check(class_weights, ctx, schedule)


def _check_parts(images: int, num_val: int) -> None:
    if num_val < 2 * images:
        raise InputError(
            f"search.images is {images}, and the val split holds {num_val} images, too few to evaluate a subnet on "
            f"others again: give at most {num_val // 2}, or leave it out"
        )


def _trains_students(recipe: Recipe, goal: Goal) -> bool:
    """Say whether anything is trained on the schedule of `distill`: students with `epochs: 0` are not."""
    if goal in ("search", "arch"):
        return goal == "arch"
    named = [section.epochs for section in recipe.students]
    besides = goal == "run" and bool(recipe.baselines or recipe.pruned or recipe.quantize.qat_epochs)
    return recipe.searches or any(epochs != 0 for epochs in named) or besides


def _check_batch(name: str, batch_size: int, num_images: int) -> None:
    processes = num_processes()
    if batch_size < 2 * processes:
        raise InputError(
            f"{name}.batch_size is {batch_size}, and batch norm needs two images in each of {processes} processes: "
            f"give at least {2 * processes}"
        )
    if num_images < batch_size:
        raise InputError(
            f"{name}.batch_size is {batch_size}, and the train split holds {num_images} images, fewer than one batch: "
            "lower it, or add images"
        )


def _rows(faults: Faults, recipe: Recipe, workspace: Workspace) -> None:
    """Check what is measured and filed: a device, an int8 scheme for it, a leaderboard and a shared place to write."""
    if faults.reads("devices") and not recipe.devices:
        faults.lines.append(
            f"recipe {recipe.name} has no device, and a run measures on one: add e.g. --set devices.0.name=host-ort, "
            "or stop before with `tutelage distill`"
        )
    if faults.reads("devices", "bundle"):
        faults.check(check_bundled, recipe.devices, recipe.bundle.rows)
    if faults.reads("devices", "quantize"):
        faults.check(check_method, recipe.quantize, [section.runtime for section in recipe.devices])
    if (place := faults.check(open_place)) is not None:
        faults.check(place.check_writable)
    store = faults.check(lambda: workspace.store)
    if store is not None and (isinstance(store, str) or store.is_file()):
        faults.check(Store, store)
