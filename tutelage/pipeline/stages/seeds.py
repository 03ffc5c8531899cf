"""The architectures that every search of a space starts from, and their names."""

from __future__ import annotations

from tutelage.records import Arch
from tutelage.search.spaces.presets import place
from tutelage.search.spaces.space import Space


def seed_names(space: Space) -> dict[Arch, str]:
    """Name the architectures that every search of the space starts from, in the order in which they are scored."""
    presets = {f"the preset {name}": arch for name, arch in presets_in(space).items()}
    names: dict[Arch, str] = {}
    for name, arch in (
        {"the smallest subnet": space.smallest()} | presets | {"the largest subnet": space.largest()}
    ).items():
        names.setdefault(arch, name)
    return names


def presets_in(space: Space) -> dict[str, Arch]:
    """Place the published presets into the searched space; one of another width is named by its genes."""
    placed = {}
    for name, preset in space.family.presets.items():
        own = space.name.removesuffix("_stem1") == preset.space
        placed[name if own else f"{name} genes"] = place(preset, space, max(space.resolutions))
    return placed
