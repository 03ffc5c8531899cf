"""The spaces of Once for All: which choices there are, and genotypes for them. No torch.

Enters: archs (`tutelage.records.Arch`) or genes. Leaves: the other of the two. A genotype is a row of an integer array
(n, num_genes) that holds choice indices: depths, kernels, expands, widths, resolution, in that order. Genes of blocks
beyond a stage's depth are inactive and 0 (the canonical form), so equal rows are equal archs.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InputError

__all__ = ["SPACES", "Gene", "Genes", "Slot", "Space", "divisible", "find_space"]

Genes = NDArray[np.int64]

_DIVISOR = 8
# Slots of an elastic stage in the MobileNet-like spaces, as `Arch` lays them out; ResNet50D adds two to its base depth.
_STAGE_SLOTS = 4
_RESNET_BASE = (2, 2, 4, 2)
_RESNET_EXTRA = 2
# The stem's residual block of ResNet50D is there or not: the field writes depth 2 or 0.
_RESNET_STEM_DEPTHS = (0, 2)


# The fields of an arch in the order of a genotype's columns.
_FIELDS = ("d", "ks", "e", "w", "r")


class Slot(NamedTuple):
    """A place for a block: its stage and its position in the stage."""

    stage: int
    position: int


class Gene(NamedTuple):
    """A decision: `values[code]` is what stands in the arch at `field[place]`; `slot` is None unless a slot owns it."""

    field: str
    place: int
    values: tuple[float, ...]
    slot: Slot | None


@dataclass(frozen=True)
class Space:
    """A supernet's choices. `widths` lists channel choices (one mostly) from the stem to the last layer.

    mbv3: stem, first block, 5 stages, final expand, last. proxyless: stem, first block, 6 stages, last.
    resnet50: stem's inner, stem, 4 stages. `resolutions` are the input sides in pixels that `r` may take.
    In `ofa_resnet50` the stem's inner widths 0 and 1 are both 24 channels: two archs by name, the same layers.
    """

    name: str
    family: str  # "mbv3" | "proxyless" | "resnet50"
    kernels: tuple[int, ...]
    expands: tuple[float, ...]
    depths: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    stem_stride: int
    resolutions: tuple[int, ...]

    @property
    def num_depths(self) -> int:
        return 5

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The places for blocks that have genes, in the order of the arch's lists."""
        if self.family == "resnet50":
            sizes = [base + _RESNET_EXTRA for base in _RESNET_BASE]
        else:
            sizes = [_STAGE_SLOTS] * 5 + ([1] if self.family == "proxyless" else [])
        return tuple(Slot(stage, position) for stage, size in enumerate(sizes) for position in range(size))

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """What each column of a genotype decides."""
        resnet = self.family == "resnet50"
        columns = [
            Gene("d", i, _RESNET_STEM_DEPTHS if resnet and i == 0 else self.depths, None)
            for i in range(self.num_depths)
        ]
        if not resnet:
            columns += [Gene("ks", i, self.kernels, slot) for i, slot in enumerate(self.slots)]
        columns += [Gene("e", i, self.expands, slot) for i, slot in enumerate(self.slots)]
        if resnet:
            columns += [Gene("w", i, tuple(range(len(choices))), None) for i, choices in enumerate(self.widths)]
        return (*columns, Gene("r", 0, self.resolutions, None))

    @property
    def num_genes(self) -> int:
        return len(self.genes)

    @cached_property
    def num_choices(self) -> NDArray[np.int64]:
        """How many values each gene may take, (num_genes,)."""
        return np.array([len(gene.values) for gene in self.genes], dtype=np.int64)

    def columns(self, field: str) -> slice:
        """Say which columns of a genotype hold `d`, `ks`, `e`, `w` or `r`."""
        return self._columns[field]

    @cached_property
    def _columns(self) -> dict[str, slice]:
        fields = [gene.field for gene in self.genes]
        starts = {field: fields.index(field) for field in _FIELDS if field in fields}
        return {field: slice(starts.get(field, 0), starts.get(field, 0) + fields.count(field)) for field in _FIELDS}

    def num_blocks(self, genes: Genes) -> NDArray[np.int64]:
        """Count the active blocks of each stage, (n, stages)."""
        depths = np.asarray(self.depths, dtype=np.int64)
        blocks: NDArray[np.int64] = depths[genes[:, self.family == "resnet50" : self.num_depths]]
        if self.family == "resnet50":
            blocks = blocks + np.asarray(_RESNET_BASE)
        if self.family == "proxyless":
            blocks = np.hstack([blocks, np.ones((len(genes), 1), dtype=np.int64)])
        return blocks

    def base_depth(self, stage: int) -> int:
        """Count the blocks of a stage that its depth value does not count."""
        return _RESNET_BASE[stage] if self.family == "resnet50" else 0

    def active(self, genes: Genes) -> NDArray[np.bool_]:
        """Say which genes decide anything, (n, num_genes)."""
        mask: NDArray[np.bool_] = np.ones(genes.shape, dtype=np.bool_)
        owned = [i for i, gene in enumerate(self.genes) if gene.slot is not None]
        slots = np.array([self.genes[i].slot for i in owned])
        mask[:, owned] = slots[:, 1] < self.num_blocks(genes)[:, slots[:, 0]]
        return mask

    def canonical(self, genes: Genes) -> Genes:
        """Set inactive genes to 0."""
        return np.where(self.active(genes), genes, 0)

    def encode(self, archs: Sequence[Arch]) -> Genes:
        """Turn archs into canonical genes (n, num_genes); raises InputError for an arch that is not of this space."""
        for arch in self._misshapen(archs):
            self.check(arch)
        codes = np.zeros((len(archs), self.num_genes), dtype=np.int64)
        known = np.zeros(codes.shape, dtype=np.bool_)
        for field in _FIELDS:
            where = self.columns(field)
            listed = _listed_values(archs, field, where.stop - where.start)
            for values in dict.fromkeys(gene.values for gene in self.genes[where]):
                own = [gene.values == values for gene in self.genes[where]]
                some = listed if all(own) else listed[:, own]
                found, code = np.zeros(some.shape, dtype=np.bool_), np.zeros(some.shape, dtype=np.int64)
                for choice, value in enumerate(values):
                    equal = some == value
                    found |= equal
                    code += choice * equal
                at = np.flatnonzero(own) + where.start
                codes[:, at], known[:, at] = code, found
        active = self.active(codes)
        for row in np.flatnonzero((active & ~known).any(axis=1)).tolist():
            self.check(archs[row])
        return np.where(active, codes, 0)

    def decode(self, genes: Genes) -> list[Arch]:
        """Turn genes (n, num_genes) into archs; inactive slots are 0 there as well."""
        active = self.active(genes)
        parts: dict[str, list[list[Any]]] = {}
        for field, kind in (("d", int), ("ks", int), ("e", float), ("w", int), ("r", int)):
            where = self.columns(field)
            columns = [
                np.asarray(gene.values, dtype=kind)[genes[:, where.start + i]]
                for i, gene in enumerate(self.genes[where])
            ]
            table = np.stack(columns, axis=1) if columns else np.zeros((len(genes), 0), dtype=kind)
            parts[field] = np.where(active[:, where], table, 0).tolist()
        return [
            Arch.model_construct(space=self.name, d=tuple(d), ks=tuple(ks), e=tuple(e), w=tuple(w), r=r[0])
            for d, ks, e, w, r in zip(*(parts[field] for field in _FIELDS), strict=True)
        ]

    def random(self, n: int, rng: np.random.Generator) -> Genes:
        """Draw n genotypes, each gene uniform over its choices (as `ofa` does: shallow archs are not rarer).

        This is the one measure that "random" means in this package; bounds restrict it and never change it.
        """
        return self.canonical(rng.integers(0, self.num_choices, size=(n, self.num_genes)))

    def log_probability(self, genes: Genes) -> NDArray[np.float64]:
        """Give the log probability, (n,), with which `random` draws each architecture."""
        logs: NDArray[np.float64] = -(self.active(genes) * np.log(self.num_choices)).sum(axis=1)
        return logs

    def mutate(self, genes: Genes, rng: np.random.Generator, probability: float = 0.1) -> Genes:
        """Redraw each gene with the given probability (OFA: 0.1); slots that become active are drawn afresh."""
        fresh = rng.integers(0, self.num_choices, size=genes.shape)
        redraw = rng.random(genes.shape) < probability
        return self.canonical(np.where(redraw | ~self.active(genes), fresh, genes))

    def crossover(self, a: Genes, b: Genes, rng: np.random.Generator) -> Genes:
        """Take each gene from one parent or the other, evenly; a slot active in one parent only comes from that one."""
        from_a = (rng.random(a.shape) < 0.5) & self.active(a)
        return self.canonical(np.where(from_a | ~self.active(b), a, b))

    def neighbours(self, genes: Genes) -> Genes:
        """List the genotypes one decision away from a single one (num_genes,), duplicates left out.

        A stage that grows starts its new blocks with code 0, the smallest kernel and expand.
        """
        base = self.canonical(np.atleast_2d(genes))
        rows = []
        for column in np.flatnonzero(self.active(base)[0]):
            for code in range(self.num_choices[column]):
                if code != base[0, column]:
                    row = base[0].copy()
                    row[column] = code
                    rows.append(row)
        if not rows:
            return np.zeros((0, self.num_genes), dtype=np.int64)
        return np.unique(self.canonical(np.stack(rows)), axis=0)

    def size(self) -> int:
        """Count the distinct archs exactly."""
        per_slot = len(self.expands) * (1 if self.family == "resnet50" else len(self.kernels))
        if self.family == "resnet50":
            stages: int = prod(sum(per_slot ** (base + depth) for depth in self.depths) for base in _RESNET_BASE)
            stages *= len(_RESNET_STEM_DEPTHS) * prod(len(choices) for choices in self.widths)
        else:
            stages = sum(per_slot**depth for depth in self.depths) ** self.num_depths
            stages *= per_slot if self.family == "proxyless" else 1
        return stages * len(self.resolutions)

    def smallest(self, r: int | None = None) -> Arch:
        """Give the arch with every choice at its least, at side r (the least allowed side when None)."""
        return self._extreme(min, r)

    def largest(self, r: int | None = None) -> Arch:
        """Give the arch with every choice at its most, at side r (the largest allowed side when None)."""
        return self._extreme(max, r)

    def with_resolutions(self, resolutions: Sequence[int]) -> Space:
        """Return the same space with other input sides allowed; raises InputError on a side under 1 or none at all."""
        sides = tuple(sorted({int(side) for side in resolutions}))
        if not sides or sides[0] < 1:
            raise InputError(f"resolutions {list(resolutions)} of {self.name}: give at least one side of 1 px or more")
        return replace(self, resolutions=sides)

    def check(self, arch: Arch) -> None:
        """Raise InputError, naming the field, unless the arch is of this space."""
        if arch.space != self.name:
            raise InputError(f"space = {arch.space!r} is not {self.name!r}: tutelage.search.space.place moves it")
        for field in ("d", "ks", "e", "w"):
            wanted = self.columns(field).stop - self.columns(field).start
            if len(_listed(arch, field)) != wanted:
                raise InputError(
                    f"{field} has {len(_listed(arch, field))} entries; an arch of {self.name} has {wanted}"
                )
        for gene in self.genes:  # depths come first, so the slots below are read with depths known to be right
            value = _listed(arch, gene.field)[gene.place]
            if gene.slot is not None and gene.slot.position >= self._blocks_of(arch)[gene.slot.stage]:
                continue
            if value not in gene.values:
                where = gene.field if gene.field == "r" else f"{gene.field}[{gene.place}]"
                remedy = f"choose of {_short(gene.values)}" + (" or use with_resolutions" if gene.field == "r" else "")
                raise InputError(f"{where} = {value:g} is not in {self.name}: {remedy}")

    def _misshapen(self, archs: Sequence[Arch]) -> list[Arch]:
        """Pick the archs of another space or with lists of other lengths."""
        d, ks, e, w = (self.columns(field).stop - self.columns(field).start for field in ("d", "ks", "e", "w"))
        return [
            arch
            for arch in archs
            if not (
                arch.space == self.name
                and len(arch.d) == d
                and len(arch.ks) == ks
                and len(arch.e) == e
                and len(arch.w) == w
            )
        ]

    def _blocks_of(self, arch: Arch) -> list[int]:
        if self.family == "resnet50":
            return [base + depth for base, depth in zip(_RESNET_BASE, arch.d[1:], strict=True)]
        return [*arch.d, 1] if self.family == "proxyless" else list(arch.d)

    def _extreme(self, choose: Any, r: int | None) -> Arch:
        codes = np.array([[gene.values.index(choose(gene.values)) for gene in self.genes]], dtype=np.int64)
        if r is not None:
            if r not in self.resolutions:
                raise InputError(f"r = {r} is not in {self.name}: choose of {_short(self.resolutions)}")
            codes[0, -1] = self.resolutions.index(r)
        return self.decode(codes)[0]


def find_space(name: str) -> Space:
    """Look a space up by name; raises InputError with the nearest name."""
    if name not in SPACES:
        near = difflib.get_close_matches(name, SPACES, n=1)
        raise InputError(
            f"no space {name!r}: " + (f"did you mean {near[0]}?" if near else f"there are {_short(SPACES)}")
        )
    return SPACES[name]


def _listed(arch: Arch, field: str) -> tuple[float, ...]:
    return (arch.r,) if field == "r" else getattr(arch, field)


def _listed_values(archs: Sequence[Arch], field: str, width: int) -> NDArray[np.float64]:
    """Stack one field of many archs, (n, width); a flat iterator is several times faster than `np.array` of tuples."""
    lists = map(attrgetter(field), archs)
    flat = lists if field == "r" else chain.from_iterable(lists)
    return np.fromiter(flat, dtype=np.float64, count=len(archs) * width).reshape(len(archs), width)


def _short(values: Any) -> str:
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:3], "...", *texts[-2:]])


def divisible(width: float) -> int:
    """Round channels to a multiple of 8 that is not more than 10 % below the wished width (MobileNet's rule)."""
    rounded = max(_DIVISOR, int(width + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * width else rounded


def _scaled(base: Sequence[int], *multipliers: float) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(divisible(width * multiplier) for multiplier in multipliers) for width in base)


# Small sets are 28 px wide, the presets run at 192 and 236; OFA itself trained 128 to 224 in steps of 4.
_SIDES = tuple(range(28, 257, 4))
_MBV3_BASE = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
_PROXYLESS_BASE = (32, 16, 24, 40, 80, 96, 192, 320, 1280)
_RESNET_STEM = _scaled((64,), 0.65, 0.8, 1.0)[0]
_RESNET_WIDTHS = (
    tuple(divisible(width // 2) for width in _RESNET_STEM),
    _RESNET_STEM,
    *_scaled((256, 512, 1024, 2048), 0.65, 0.8, 1.0),
)


def _mobile(name: str, family: str, base: tuple[int, ...], multiplier: float, stem_stride: int = 2) -> Space:
    return Space(name, family, (3, 5, 7), (3, 4, 6), (2, 3, 4), _scaled(base, multiplier), stem_stride, _SIDES)


SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        _mobile("ofa_mbv3_w1.0", "mbv3", _MBV3_BASE, 1.0),
        _mobile("ofa_mbv3_w1.2", "mbv3", _MBV3_BASE, 1.2),
        _mobile("ofa_mbv3_w0.75", "mbv3", _MBV3_BASE, 0.75),
        _mobile("ofa_mbv3_w0.75_stem1", "mbv3", _MBV3_BASE, 0.75, stem_stride=1),
        _mobile("ofa_mbv3_w1.0_stem1", "mbv3", _MBV3_BASE, 1.0, stem_stride=1),
        _mobile("ofa_mbv3_w1.2_stem1", "mbv3", _MBV3_BASE, 1.2, stem_stride=1),
        _mobile("ofa_proxyless_w1.3", "proxyless", _PROXYLESS_BASE, 1.3),
        Space("ofa_resnet50", "resnet50", (3,), (0.2, 0.25, 0.35), (0, 1, 2), _RESNET_WIDTHS, 2, _SIDES),
    )
}
