"""Exact costs of architectures without building a network: tables over the choices of a few slots, gathered and added.

`count` takes archs, `count_genes` a space and genes (n, num_genes). No torch.

What is counted, for one image:
- params: weights, biases, scale and shift of batch norms. Running statistics are none.
- macs: multiply-accumulates of convolutions and linear layers, as torch's FlopCounterMode / 2 and `ofa`'s counter do.
  fvcore adds 2 for every element that a batch norm normalises (and, in networks that call it, 1 for every input
  element of adaptive pooling); thop adds 4 for every such element and 1 for every output of average pooling, which
  is in ResNet50D's shortcuts. `tests/search/costs/test_counts.py` subtracts both exactly.
- activations: output elements of convolutions and linear layers (fvcore's ActivationCountAnalysis).
- peak_activation_bytes: 4 bytes x the most elements alive at once: over all convolutions, linear layers and strided
  poolings, the layer's input, its output, the shortcut kept for a later addition, and the map that an SE gate will
  scale. Norm, activation, gating and addition are taken as in place.
- size_bytes: 4 x params. int8_bytes: norms folded, a byte a weight, a 4-byte scale an output channel and a 4-byte
  bias where the layer has a bias or had a norm.
- ram_bytes, int8_ram_bytes: TFLite Micro's arena for the fp32 and the int8 file. int8_file_bytes: that int8 file. See
  `memory.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.spaces.blocks import (
    BlockSpec,
    block_specs,
    head_spec,
    slot_spec,
    stage_channels,
    stage_side,
    stem_specs,
)
from tutelage.search.spaces.space import Genes, Slot, Space, find_space

from .memory import memory_of

__all__ = ["BlockSpec", "Counts", "block_specs", "count", "count_genes"]

Ints = NDArray[np.int64]

# Two slots a table: (depth, kernel, expand, kernel, expand) has 243 rows, small enough for the cache of one core.
_SLOTS_A_TABLE = 2
_BYTES_A_FLOAT = 4
# Of a table's sums: params, MACs, activations, int8 bytes, bytes that persist in the arena at fp32 and at int8, and
# those of the int8 file for a microcontroller.
NUM_SUMS = 7


@dataclass(frozen=True)
class Counts:
    """Costs of n archs, an int64 array (n,) each; see the module's docstring for what is counted."""

    params: Ints
    macs: Ints
    activations: Ints
    peak_activation_bytes: Ints
    size_bytes: Ints
    int8_bytes: Ints
    ram_bytes: Ints
    int8_ram_bytes: Ints
    int8_file_bytes: Ints


@dataclass(frozen=True)
class CostTable:
    """Costs of the blocks that some genes decide: row `genes[columns] @ weights` of `sums` and `peaks`."""

    part: int  # 0: before the stages, 1 to n: the stages, n + 1: after them
    columns: tuple[int, ...]
    weights: tuple[int, ...]
    sums: Ints  # (codes, NUM_SUMS)
    peaks: Ints  # (codes,): elements

    def rows(self, columns: Ints) -> Ints:
        """Find the table's row for each of n genotypes, given transposed: (num_genes, n)."""
        rows = np.zeros(columns.shape[1], dtype=np.int64)
        for column, weight in zip(self.columns, self.weights, strict=True):
            rows += columns[column] * weight
        return rows


def count(archs: Sequence[Arch], num_classes: int = 1000, in_channels: int = 3) -> Counts:
    """Count archs, of several spaces and input sides if need be; raises InputError for one that is in no space."""
    names = [arch.space for arch in archs]
    parts = np.zeros((len(Counts.__dataclass_fields__), len(archs)), dtype=np.int64)
    for name in dict.fromkeys(names):
        rows = np.array([i for i, other in enumerate(names) if other == name])
        members = archs if len(rows) == len(archs) else [archs[i] for i in rows]
        space = find_space(name).with_resolutions([arch.r for arch in members])
        counts = count_genes(space, space.encode(members), num_classes, in_channels)
        for part, values in zip(parts, vars(counts).values(), strict=True):
            part[rows] = values
    return Counts(*parts)


def count_genes(space: Space, genes: Genes, num_classes: int = 1000, in_channels: int = 3) -> Counts:
    """Count genotypes (n, num_genes); inactive genes are not looked at."""
    genes = np.asarray(genes, dtype=np.int64).reshape(-1, space.num_genes)
    codes_r, which = np.unique(genes[:, -1], return_inverse=True)
    sides = [space.resolutions[code] for code in codes_r]
    per_side = [cost_tables(space, side, num_classes, in_channels) for side in sides]
    columns = np.ascontiguousarray(genes.T)
    sums = np.zeros((len(genes), NUM_SUMS), dtype=np.int64)
    peaks = np.zeros(len(genes), dtype=np.int64)
    for i, table in enumerate(per_side[0] if per_side else ()):
        rows = table.rows(columns) + which * len(table.peaks)
        sums += np.concatenate([tables[i].sums for tables in per_side])[rows]
        np.maximum(peaks, np.concatenate([tables[i].peaks for tables in per_side])[rows], out=peaks)
    params, macs, activations, int8_bytes, persistent, int8_persistent, int8_file = sums.T
    return Counts(
        params, macs, activations, _BYTES_A_FLOAT * peaks, _BYTES_A_FLOAT * params, int8_bytes,
        _BYTES_A_FLOAT * peaks + persistent, peaks + int8_persistent, int8_file,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def cost_tables(space: Space, r: int, num_classes: int, in_channels: int) -> tuple[CostTable, ...]:
    """Tabulate the space at input side r: costs of an arch are the sum (the maximum, for peaks) over the tables."""
    tables = [_ends_table(space, r, num_classes, in_channels, "stem")]
    for stage in range(len({slot.stage for slot in space.slots})):
        slots = [slot for slot in space.slots if slot.stage == stage]
        side = stage_side(space, stage, r)
        tables += [
            _slots_table(space, side, tuple(slots[i : i + _SLOTS_A_TABLE]))
            for i in range(0, len(slots), _SLOTS_A_TABLE)
        ]
    return (*tables, _ends_table(space, r, num_classes, in_channels, "head"))


def _ends_table(space: Space, r: int, num_classes: int, in_channels: int, end: str) -> CostTable:
    """Tabulate what comes before the stages, or after them; only bottleneck families have genes that decide there."""
    owners = {"stem": [("d", 0), ("w", 0), ("w", 1)], "head": [("w", len(space.widths) - 1)]}[end]
    columns = _columns(space, owners if space.family.elastic_widths else [])
    costs = []
    for codes in product(*(range(int(space.num_choices[column])) for column in columns)):
        depth, widths = 0, [0] * len(space.widths)
        for column, code in zip(columns, codes, strict=True):
            gene = space.genes[column]
            if gene.field == "d":
                depth = int(gene.values[code])
            else:
                widths[gene.place] = code
        if end == "stem":
            specs = stem_specs(space, r, widths, depth, in_channels)
        else:
            specs = [head_spec(space, r, widths, num_classes)]
        costs.append([_costs_of(spec) for spec in specs])
    table = np.array(costs, dtype=np.int64)
    part = 0 if end == "stem" else space.slots[-1].stage + 2
    return _as_table(space, part, columns, table[..., :NUM_SUMS].sum(axis=1), table[..., NUM_SUMS].max(axis=1))


@lru_cache(maxsize=4096)  # many input sides share the side of a map deep inside
def _slots_table(space: Space, side: int, slots: tuple[Slot, ...]) -> CostTable:
    """Tabulate some slots of one stage over widths, depth, kernels and expands; a slot beyond the depth costs 0."""
    wide, stage, first = space.family.elastic_widths, slots[0].stage, slots[0].position == 0
    fields = ("ks", "e") if space.family.elastic_kernels else ("e",)
    owners = [("w", stage + 1)] * (wide and first) + [("w", stage + 2)] * wide
    num_widths = len(owners)
    depth_place = space.depth_place(stage)
    if depth_place is not None:
        owners.append(("d", depth_place))
    head = len(owners)
    own_genes = len(fields)
    for slot in slots:
        owners += [(field, space.slots.index(slot)) for field in fields]
    columns = _columns(space, owners)
    shape = tuple(int(space.num_choices[column]) for column in columns)
    sums, peaks = np.zeros((*shape, NUM_SUMS), dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, slot in enumerate(slots):
        widths = range(num_widths - 1 if wide and slot.position else 0, num_widths)
        own = {*widths, *range(head + i * own_genes, head + (i + 1) * own_genes)}
        costs = _block_costs(space, stage, slot.position == 0, side)
        costs = costs.reshape(*(size if j in own else 1 for j, size in enumerate(shape)), NUM_SUMS + 1)
        if depth_place is not None:
            depths = space.family.stages[stage].base + np.array(space.genes[columns[num_widths]].values, dtype=np.int64)
            present = slot.position < depths
            costs = costs * present.reshape(*(len(depths) if j == num_widths else 1 for j in range(len(shape))), 1)
        sums += costs[..., :NUM_SUMS]
        np.maximum(peaks, costs[..., NUM_SUMS], out=peaks)
    return _as_table(space, stage + 1, columns, sums.reshape(-1, NUM_SUMS), peaks.reshape(-1))


@lru_cache(maxsize=4096)
def _block_costs(space: Space, stage: int, first: bool, side: int) -> Ints:
    """Cost the first block of a stage, or a later one, over (width before,) (width,) (kernel,) expand.

    Gives (choices, NUM_SUMS + 1): the sums, then the peak in elements.
    """
    slot = Slot(stage, 0 if first else 1)
    place = stage + space.family.num_stem_widths
    before, after = (range(len(space.widths[index])) for index in (place - 1, place))
    costs = []
    for inp, out in product(before, after) if first else zip(after, after, strict=True):
        widths = [0] * len(space.widths)
        widths[place - 1], widths[place] = inp, out
        channels = stage_channels(space, slot, widths)
        specs = [slot_spec(space, slot, side, *channels, k, e) for k in space.kernels for e in space.expands]
        costs += [_costs_of(spec) for spec in specs]
    return np.array(costs, dtype=np.int64)


def _costs_of(spec: BlockSpec) -> tuple[int, ...]:
    """Give the sums of one block, and its peak in elements."""
    *sums, peak = spec.costs
    memory = memory_of(spec)
    return (*sums, memory.persistent, memory.int8_persistent, memory.int8_file, peak)


def _columns(space: Space, owners: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    return tuple(space.columns(field).start + index for field, index in owners)


def _as_table(space: Space, part: int, columns: tuple[int, ...], sums: Ints, peaks: Ints) -> CostTable:
    sizes = [int(space.num_choices[column]) for column in columns]
    weights = tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))
    return CostTable(part, columns, weights, sums, peaks)
