"""A space: the choices of a family's architectures, and genotypes for them. No torch.

Counts, blocks, features, supernets and sampling follow from a space and its `Family`. A genotype is a row of an integer
array (n, num_genes) of choice indices: depths, kernels, expands, widths, resolution, in that order. Genes of blocks
beyond a stage's depth are inactive and 0 (the canonical form), so equal rows are equal architectures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise
from math import prod
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InputError

from .family import Family

Genes = NDArray[np.int64]

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


# Genes are counted in 64 bits: MACs at a larger resolution would not fit.
MAX_RESOLUTION = 65_536


@dataclass(frozen=True)
class Space:
    """A supernet's choices. `widths` lists channel choices (of several in bottleneck families alone) from the stem on.

    mbconv: stem, first block, the stages, then the head's convolutions (one, or two of which the second follows the
    pooling). bottleneck: the stem's inner layers, the stem, the stages. basic: the stem, the stages. `resolutions` are
    the input sides in pixels that `r` may take. Raises InputError where the widths or depths do not fit the family's
    stages.
    """

    name: str
    family: Family
    kernels: tuple[int, ...]
    expands: tuple[float, ...]
    depths: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    stem_stride: int
    resolutions: tuple[int, ...]

    def __post_init__(self) -> None:
        family, fixed = self.family, len(self.family.stages) + self.family.num_stem_widths
        allowed = [fixed + 1, fixed + 2] if family.style == "mbconv" else [fixed]
        if len(self.widths) not in allowed:
            raise InputError(
                f"space {self.name} has {len(self.widths)} widths; a {family.style} family of {len(family.stages)} "
                f"stages takes {' or '.join(map(str, allowed))}"
            )
        if not family.elastic_widths and any(len(choices) != 1 for choices in self.widths):
            raise InputError(f"space {self.name}: a width of style {family.style} has one value, got {self.widths}")
        if not family.elastic_kernels and self.kernels != (3,):
            raise InputError(f"space {self.name}: the kernel of a {family.style} family is (3,), got {self.kernels}")
        extras = {stage.extra for stage in family.stages if stage.extra}
        if extras and max(self.depths) > min(extras):
            raise InputError(f"space {self.name}: depth {max(self.depths)} exceeds the {min(extras)} slots of a stage")
        if family.elastic_widths and (len(extras) > 1 or any(not stage.extra for stage in family.stages)):
            raise InputError(f"space {self.name}: the stages of a bottleneck family have the same depth choices")
        for stage, (before, own) in zip(family.stages, pairwise(self.widths[1:]), strict=False):
            if family.elastic_widths and stage.stride == 1 and set(before) & set(own):
                raise InputError(
                    f"space {self.name}: a bottleneck stage of stride 1 changes the width, got {before} and {own}"
                )

    @cached_property
    def num_depths(self) -> int:
        """Count the entries of an arch's `d`."""
        return bool(self.family.stem_depths) + len(self._elastic_stages)

    @cached_property
    def _elastic_stages(self) -> list[int]:
        return [i for i, stage in enumerate(self.family.stages) if stage.extra]

    def depth_place(self, stage: int) -> int | None:
        """Say which entry of `d` decides the depth of a stage; None for a stage of fixed depth."""
        if stage not in self._elastic_stages:
            return None
        return bool(self.family.stem_depths) + self._elastic_stages.index(stage)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The places for blocks that have genes, in the order of the arch's lists."""
        sizes = [stage.num_slots for stage in self.family.stages]
        return tuple(Slot(stage, position) for stage, size in enumerate(sizes) for position in range(size))

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """What each column of a genotype decides."""
        stem, wide = self.family.stem_depths, self.family.elastic_widths
        columns = [Gene("d", i, stem if stem and i == 0 else self.depths, None) for i in range(self.num_depths)]
        if self.family.elastic_kernels:
            columns += [Gene("ks", i, self.kernels, slot) for i, slot in enumerate(self.slots)]
        columns += [Gene("e", i, self.expands, slot) for i, slot in enumerate(self.slots)]
        if wide:
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
        base = np.array([stage.base for stage in self.family.stages], dtype=np.int64)
        blocks: NDArray[np.int64] = np.tile(base, (len(genes), 1))
        blocks[:, self._elastic_stages] += depths[genes[:, bool(self.family.stem_depths) : self.num_depths]]
        return blocks

    def blocks_of(self, arch: Arch) -> list[int]:
        """Count the active blocks of each stage of an arch."""
        blocks = [stage.base for stage in self.family.stages]
        for stage, depth in zip(self._elastic_stages, arch.d[bool(self.family.stem_depths) :], strict=True):
            blocks[stage] += depth
        return blocks

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
                valid, code = np.zeros(some.shape, dtype=np.bool_), np.zeros(some.shape, dtype=np.int64)
                for choice, value in enumerate(values):
                    equal = some == value
                    valid |= equal
                    code += choice * equal
                at = np.flatnonzero(own) + where.start
                codes[:, at], known[:, at] = code, valid
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
        per_slot = len(self.expands) * (len(self.kernels) if self.family.elastic_kernels else 1)
        stages: int = prod(
            sum(per_slot ** (stage.base + depth) for depth in (self.depths if stage.extra else (0,)))
            for stage in self.family.stages
        )
        if self.family.elastic_widths:
            stages *= prod(len(choices) for choices in self.widths)
        stages *= len(self.family.stem_depths or (0,))
        return stages * len(self.resolutions)

    def smallest(self, r: int | None = None) -> Arch:
        """Give the arch with every choice at its least, at resolution r (the least allowed one when None)."""
        return self._extreme(min, r)

    def largest(self, r: int | None = None) -> Arch:
        """Give the arch with every choice at its most, at resolution r (the largest allowed one when None)."""
        return self._extreme(max, r)

    def with_resolutions(self, resolutions: Sequence[int]) -> Space:
        """Return the same space at other resolutions; raises InputError for none, or one not of 1 to 65,536 px."""
        sides = tuple(sorted({int(side) for side in resolutions}))
        if not sides or sides[0] < 1 or sides[-1] > MAX_RESOLUTION:
            raise InputError(
                f"resolutions {list(resolutions)} of {self.name}: give one or more of 1 px to {MAX_RESOLUTION} px"
            )
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
            if gene.slot is not None and gene.slot.position >= self.blocks_of(arch)[gene.slot.stage]:
                continue
            if value not in gene.values:
                where = gene.field if gene.field == "r" else f"{gene.field}[{gene.place}]"
                remedy = f"choose of {short_list(gene.values)}" + (
                    " or use with_resolutions" if gene.field == "r" else ""
                )
                raise InputError(f"{where} = {value:g} is not in {self.name}: {remedy}")

    def masked(self, arch: Arch) -> Arch:
        """Check an arch and set its inactive slots to 0, as archs of Once for All's spaces have them anyway."""
        return self.decode(self.encode([arch]))[0]

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

    def _extreme(self, choose: Any, r: int | None) -> Arch:
        codes = np.array([[gene.values.index(choose(gene.values)) for gene in self.genes]], dtype=np.int64)
        if r is not None:
            if r not in self.resolutions:
                raise InputError(f"r = {r} is not in {self.name}: choose of {short_list(self.resolutions)}")
            codes[0, -1] = self.resolutions.index(r)
        return self.decode(codes)[0]


def _listed(arch: Arch, field: str) -> tuple[float, ...]:
    return (arch.r,) if field == "r" else getattr(arch, field)


def _listed_values(archs: Sequence[Arch], field: str, width: int) -> NDArray[np.float64]:
    """Stack one field of many archs, (n, width); a flat iterator is several times faster than `np.array` of tuples."""
    lists = map(attrgetter(field), archs)
    flat = lists if field == "r" else chain.from_iterable(lists)
    return np.fromiter(flat, dtype=np.float64, count=len(archs) * width).reshape(len(archs), width)


def short_list(values: Any) -> str:
    """Write values for a message, the middle of a long list left out."""
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:3], "...", *texts[-2:]])
