"""The published subnets by name, and how to place their genes in another space of the family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tutelage.records import Arch, InputError

from .definition import Space
from .space import SPACES


class _Presets(Mapping[str, Arch]):
    """The presets of all families, those of plug-ins included; read from the spaces, so that none is listed twice."""

    def __getitem__(self, name: str) -> Arch:
        for space in SPACES.values():
            if name in space.family.presets:
                return space.family.presets[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        families = dict.fromkeys(space.family.name for space in SPACES.values())
        by_name = {space.family.name: space.family for space in SPACES.values()}
        return iter(dict.fromkeys(name for family in families for name in by_name[family].presets))

    def __len__(self) -> int:
        return sum(1 for _ in self)


PRESETS: Mapping[str, Arch] = _Presets()


def place(preset: Arch, space: Space, r: int) -> Arch:
    """Give the same kernels, expands and depths in another space of the family, e.g. a wider one or a stride-1 stem.

    Raises InputError when the genes do not fit, naming the field.
    """
    if preset.space == space.name:
        space.check(preset.replace(r=space.resolutions[0]))
    if len(preset.d) != space.num_depths or (preset.ks and len(preset.ks) != len(space.slots)):
        raise InputError(f"an arch of {preset.space} has no place in {space.name}: choose a space of its family")
    return space.masked(preset.replace(space=space.name, r=r))
