"""The blocks of many architectures at once, as numbers: `blocks_at` lists a space's, `Blocks.numbers` looks them up.

Whatever is a sum over blocks, such as a latency model's features, is then a table of the few hundred blocks that a
space has, gathered. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.spaces.blocks import BlockSpec, head_spec, slot_spec, stage_channels, stage_side, stem_specs
from tutelage.search.spaces.space import Genes, Slot, Space, find_space

Ints = NDArray[np.int64]
# What stands in an arch at (field, index); of widths the index of the choice.
Chosen = dict[tuple[str, int], Any]


@dataclass(frozen=True)
class Place:
    """Where a network has a block: which of `Blocks.specs` is there, by the genes that decide it."""

    stage: int | None  # None for a stem or a head
    columns: tuple[int, ...]
    weights: tuple[int, ...]
    numbers: Ints  # (codes,); the number of specs stands for none


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a space at one resolution, and its places for them in the order in which they run."""

    space: Space
    specs: tuple[BlockSpec, ...]
    places: tuple[Place, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the specs."""
        return tuple(spec.key for spec in self.specs)

    def numbers(self, genes: Genes) -> Ints:
        """Give the number of the block at each place of each genotype, (n, places); `len(specs)` where none is."""
        columns = np.ascontiguousarray(genes.T)
        found = np.empty((len(self.places), len(genes)), dtype=np.int64)
        for row, place in zip(found, self.places, strict=True):
            codes = np.zeros(len(genes), dtype=np.int64)
            for column, weight in zip(place.columns, place.weights, strict=True):
                codes += columns[column] * weight
            row[:] = place.numbers[codes]
        return found.T


def by_space(archs: Sequence[Arch], num_classes: int, in_channels: int) -> Iterator[tuple[Ints, Blocks, Ints]]:
    """Split archs by space and resolution: gives their places in the sequence, the blocks, and `Blocks.numbers`.

    Raises InputError for an arch that is in no space.
    """
    where: dict[tuple[str, int], list[int]] = {}
    for place, arch in enumerate(archs):
        where.setdefault((arch.space, arch.r), []).append(place)
    for (name, r), rows in where.items():
        blocks = blocks_at(find_space(name), r, num_classes, in_channels)
        members = archs if len(rows) == len(archs) else [archs[row] for row in rows]
        yield np.array(rows, dtype=np.int64), blocks, blocks.numbers(blocks.space.encode(members))


@lru_cache(maxsize=256)
def blocks_at(space: Space, r: int, num_classes: int, in_channels: int) -> Blocks:
    """List the blocks of a space at input side r."""
    space = space.with_resolutions((r,))
    specs: dict[BlockSpec, int] = {}

    def number(spec: BlockSpec) -> int:
        return specs.setdefault(spec, len(specs))

    places = []
    owners = [("d", 0), ("w", 0), ("w", 1)] if space.family.elastic_widths else []
    columns, choices = _choices(space, owners)
    stems = [
        [number(spec) for spec in stem_specs(space, r, _widths(space, chosen), chosen.get(("d", 0), 0), in_channels)]
        for chosen in choices
    ]
    places += [_placed(space, None, columns, list(numbers)) for numbers in zip(*stems, strict=True)]
    for slot in space.slots:
        columns, choices = _choices(space, _owners(space, slot))
        found = [_slot_spec(space, slot, r, chosen) for chosen in choices]
        places.append(_placed(space, slot.stage, columns, [-1 if one is None else number(one) for one in found]))
    columns, choices = _choices(space, [("w", len(space.widths) - 1)] if space.family.elastic_widths else [])
    heads = [number(head_spec(space, r, _widths(space, chosen), num_classes)) for chosen in choices]
    places.append(_placed(space, None, columns, heads))
    for place in places:
        place.numbers[place.numbers < 0] = len(specs)
    return Blocks(space, tuple(specs), tuple(places))


def _owners(space: Space, slot: Slot) -> list[tuple[str, int]]:
    """Name the entries of an arch that decide what is in a slot."""
    owners = []
    if space.family.elastic_widths:
        after = slot.stage + space.family.num_stem_widths
        owners += [("w", after - 1)] * (slot.position == 0) + [("w", after)]
    depth = space.depth_place(slot.stage)
    owners += [("d", depth)] if depth is not None else []
    own = space.slots.index(slot)
    return [*owners, *([("ks", own)] if space.family.elastic_kernels else []), ("e", own)]


def _choices(space: Space, owners: Sequence[tuple[str, int]]) -> tuple[tuple[int, ...], list[Chosen]]:
    """Give the columns of these entries, and every combination of their choices."""
    columns = tuple(space.columns(field).start + index for field, index in owners)
    values = [space.genes[column].values for column in columns]
    return columns, [dict(zip(owners, chosen, strict=True)) for chosen in product(*values)]


def _widths(space: Space, chosen: Chosen) -> list[int]:
    return [chosen.get(("w", index), 0) for index in range(len(space.widths))]


def _slot_spec(space: Space, slot: Slot, r: int, chosen: Chosen) -> BlockSpec | None:
    """Describe the block of a slot; None where the stage is not so deep."""
    depth, own = space.depth_place(slot.stage), space.slots.index(slot)
    deep = space.family.stages[slot.stage].base + (chosen["d", depth] if depth is not None else 0)
    if slot.position >= deep:
        return None
    channels = stage_channels(space, slot, _widths(space, chosen))
    kernel = chosen.get(("ks", own), space.kernels[0])
    return slot_spec(space, slot, stage_side(space, slot.stage, r), *channels, kernel, chosen["e", own])


def _placed(space: Space, stage: int | None, columns: tuple[int, ...], numbers: list[int]) -> Place:
    sizes = [int(space.num_choices[column]) for column in columns]
    weights = tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))
    return Place(stage, columns, weights, np.array(numbers, dtype=np.int64))
