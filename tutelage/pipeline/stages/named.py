"""Named students and baselines: which network each is, what its training starts from, and for how many epochs it goes.

`named_network` gives the record of one, `beginning` its start and its epochs. What cannot be is refused before anything
is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.distill.teachers.zoo import native_stem_stride, timm_name
from tutelage.pipeline.context import Context
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.sections import BaselineSection, StudentSection
from tutelage.records import Arch, InputError, Student
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES, Space

from .supernet import Supernet, space_of
from .training import Start, pretrained

# A network that a recipe names, of either list.
NamedSection = StudentSection | BaselineSection
NamedRole = Literal["student", "baseline"]


@dataclass(frozen=True)
class Beginning:
    """How the training of a named network begins: the network as its weights want it, its start, and its epochs."""

    student: Student
    start: Start
    epochs: int  # 0: its weights are used as they are


def trained_space(ctx: Context) -> Space | None:
    """Give the space of the supernet that the recipe trains, at the run's resolutions; None where it trains none."""
    return space_of(ctx) if ctx.recipe.trains_supernet else None


def named_students(ctx: Context) -> list[Student]:
    """Give the records of the students that a recipe names; an unknown name is an error."""
    return [named_network(ctx, section, "student") for section in ctx.recipe.students]


def named_network(ctx: Context, section: NamedSection, role: NamedRole) -> Student:
    """Give the record of a named network; an unknown name or a start that it cannot have is an error.

    A preset is placed as the trained space is (its resolution, a stem of stride 1), else in its own space at the size
    of the data. Where the trained space has a stem of stride 1, a network of timm gets one, too.
    """
    space = trained_space(ctx)
    genes = section.arch if isinstance(section, StudentSection) else None
    name, title = section.name, section.title or section.name
    if genes is None and name not in PRESETS:
        library = timm_name(name)
        options, notes = (section.options, ()) if space is None else _with_stem(space, library, section.options)
        student = Student(model=title, role=role, library_name=name, options=options, notes=notes)
    else:
        if section.options:
            raise InputError(
                f"{role} {name} is a subnet of a space and takes no options, got {', '.join(section.options)}"
            )
        student = Student(model=title, role=role, arch=_placed(ctx, name, genes, space, role))
    start_kind(ctx, section, student)
    return student


def _placed(ctx: Context, name: str, genes: Arch | None, space: Space | None, role: NamedRole) -> Arch:
    if genes is None and space is not None:
        return preset_arch(space, name, f"{role} {name}")
    genes = genes or PRESETS[name]
    if genes.space not in SPACES:
        raise InputError(f"{role} {name}: no space {genes.space!r}; known are {', '.join(SPACES)}")
    return place(genes, SPACES[genes.space].with_resolutions((ctx.size,)), ctx.size)


def preset_arch(searched: Space, name: str, who: str) -> Arch:
    """Place a preset at the largest resolution of the trained space, with a stem of stride 1 where that has one."""
    preset = PRESETS[name]
    stem = "_stem1" if searched.name.endswith("_stem1") and not preset.space.endswith("_stem1") else ""
    space = SPACES.get(f"{preset.space}{stem}")
    if space is None:
        raise InputError(f"{who}: no space {preset.space}{stem}; leave it out")
    side = max(searched.resolutions)
    return place(preset, space.with_resolutions((side,)), side)


def _with_stem(
    space: Space, library_name: str, options: dict[str, object]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Give the options of a network of timm beside subnets of `space`, and what is to be noted of its stem."""
    if space.stem_stride != 1 or "stem_stride" in options:
        return options, ()
    native = native_stem_stride(library_name)
    if native == 1:
        return options, ()
    if native == 2:
        return {**options, "stem_stride": 1}, ()
    found = "it divides its image into patches" if native is None else f"its first convolution has stride {native}"
    return options, (f"its stem is as timm has it, where {space.name} has a stem of stride 1: {found}",)


def start_kind(ctx: Context, section: NamedSection, student: Student) -> Literal["weights", "supernet", "fresh"]:
    """Say what a named network starts from; refuse the supernet for a network that it does not hold."""
    if section.weights is not None:
        return "weights"
    space = trained_space(ctx)
    reason = _not_held(space, student)
    if section.start == "supernet" and reason:
        raise InputError(f"{student.role} {student.model}: start: supernet, and {reason}; or give `start: fresh`")
    return "fresh" if section.start == "fresh" or reason else "supernet"


def _not_held(space: Space | None, student: Student) -> str:
    """Say why a network is not extracted from the trained supernet; empty where it is."""
    if space is None:
        return "the recipe trains no supernet: write its section `supernet`"
    arch = student.arch
    if arch is None:
        return f"{student.library_name} is no subnet of the supernet that is trained, {space.name}"
    if arch.space != space.name:
        return (
            f"{student.model} is a subnet of {arch.space}, and the supernet that is trained is {space.name}: "
            f"set supernet.space to {arch.space}"
        )
    try:
        space.with_resolutions((arch.r,)).check(arch)
    except InputError as error:
        return f"{student.model} is no subnet of the supernet that is trained, {space.name} ({error})"
    return ""


def num_epochs(ctx: Context, section: NamedSection, student: Student) -> int:
    """Give the epochs of a named network: its own, else those of `distill` or, where it is fresh, `epochs_of_fresh`."""
    if section.epochs is not None:
        return section.epochs
    fresh = start_kind(ctx, section, student) == "fresh"
    return epochs_of_fresh(ctx.recipe) if fresh else ctx.recipe.distill.epochs


def epochs_of_fresh(recipe: Recipe) -> int:
    """Give the epochs of a network with fresh weights: those of `distill`, and of the supernet where one is trained.

    It then sees as many training images as a student and the supernet that the student starts from together.
    """
    return recipe.distill.epochs + (recipe.supernet.epochs if recipe.trains_supernet else 0)


def beginning(ctx: Context, section: NamedSection, role: NamedRole, supernet: Supernet | None) -> Beginning:
    """Give what the training of a named network begins with; pretrained weights that are not here are downloaded."""
    student = named_network(ctx, section, role)
    own, weights = pretrained(ctx, section.weights, student)
    start: Start = weights
    if start_kind(ctx, section, student) == "supernet":
        assert supernet is not None, "a supernet that the recipe has is trained first"
        start = supernet.part
    return Beginning(own, start, num_epochs(ctx, section, student))
