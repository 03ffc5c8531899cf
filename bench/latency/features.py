"""Features of architectures for the latency model: sums of measured block times, or counts per stage without them.

`block_features` and `count_features` return an array `(archs, features)` and the group of every column; the columns of
a group have one prior in `model.py`. `design` chooses the architectures to measure (D-optimal design).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import BlockSpec, block_specs
from tutelage.search.costs.numbered import Blocks, by_space

Floats = NDArray[np.float64]

# The whole-net counts, in the order of `_spec_totals`.
TOTALS = ("blocks", "dense", "depthwise", "maps", "params")
# Ridge of the design: small against a standardised feature's variance of 1, so that the first picks are defined.
_DESIGN_RIDGE = 0.01
_DESIGN_NOISE = 0.1


def count_features(archs: Sequence[Arch], num_classes: int, in_channels: int) -> tuple[Floats, list[str]]:
    """Give counts that decide latency where no block was measured.

    At batch 1 on a GPU a launch costs more than its arithmetic, so the number of blocks, per stage, says more than the
    MACs; at a large batch dense MACs, depthwise MACs and the expanded maps (memory traffic) each have a price of their
    own. Every total is a group of its own, so that the fit may keep one and drop another.
    """
    num_depths = max((len(arch.d) for arch in archs), default=0) + 1
    summed, depth = _summed(archs, num_classes, in_channels, _totals, len(TOTALS), num_depths)
    sides = np.array([arch.r for arch in archs], dtype=np.float64)
    groups = [*TOTALS, "size", "size", *["depth"] * num_depths]
    # The first total counts blocks.
    return np.column_stack([summed, sides, sides**2, depth[..., 0]]).reshape(len(archs), len(groups)), groups


def block_features(
    archs: Sequence[Arch], blocks: Mapping[str, float], num_classes: int, in_channels: int, stages: bool = True
) -> tuple[Floats, list[str]]:
    """Give the measured block times of each arch in ms, summed over the net and (`stages`) each stage, and counts.

    The counts add what separately measured blocks cannot show: each call of the runtime has a cost of its own, and a
    whole net's weights do not stay in the cache as one block's do, the more so the more there are (hence the square;
    on small images, where weights outweigh the arithmetic, it halves the error).
    Raises InputError for an arch with a block that is not in the table.
    """
    num_stages = max((len(arch.d) for arch in archs), default=0) + 1

    def values(table: Blocks) -> Floats:
        times = np.array([blocks.get(key, np.nan) for key in table.keys])
        return np.column_stack([times, np.ones(len(times)), _totals(table)[:, TOTALS.index("params")]])

    summed, by_stage = _summed(archs, num_classes, in_channels, values, 3, num_stages)
    unknown = np.flatnonzero(np.isnan(summed[:, 0]))
    if len(unknown):
        arch = archs[unknown[0]]
        key = next(spec.key for spec in block_specs(arch, num_classes, in_channels) if spec.key not in blocks)
        raise InputError(
            f"block {key} of an arch of {arch.space} at {arch.r} px is not in the block table: "
            "add the device again for this space and resolution"
        )
    groups = ["total", "calls", "params", "params squared", *(["stage"] * num_stages if stages else ())]
    columns = [summed, summed[:, 2] ** 2, *([by_stage[..., 0]] if stages else [])]
    return np.column_stack(columns).reshape(len(archs), len(groups)), groups


def _summed(
    archs: Sequence[Arch],
    num_classes: int,
    in_channels: int,
    values: Callable[[Blocks], Floats],
    num_values: int,
    num_stages: int,
) -> tuple[Floats, Floats]:
    """Sum values of blocks, `(specs, num_values)` of a space's, over each arch, and over each stage's slots alone.

    Gives `(archs, num_values)` and `(archs, num_stages, num_values)`; later stages count to the last one.
    """
    summed, by_stage = np.zeros((len(archs), num_values)), np.zeros((len(archs), num_stages, num_values))
    for rows, blocks, numbers in by_space(archs, num_classes, in_channels):
        table = np.vstack([values(blocks), np.zeros((1, num_values))])  # the last row: no block
        for place, column in zip(blocks.places, numbers.T, strict=True):
            found = table[column]
            summed[rows] += found
            if place.stage is not None:
                by_stage[rows, min(place.stage, num_stages - 1)] += found
    return summed, by_stage


@lru_cache(maxsize=256)
def _totals(blocks: Blocks) -> Floats:
    """Count each block of a space, `(specs, TOTALS)`."""
    return np.array([_spec_totals(spec) for spec in blocks.specs])


def _spec_totals(spec: BlockSpec) -> Floats:
    """Count one block: itself (a stem or head is no block), dense MACs, depthwise MACs, expanded maps, parameters."""
    depthwise = [layer for layer in spec.layers if layer.kind == "conv" and layer.groups > 1]
    narrow = sum(layer.macs for layer in depthwise)
    # What a depthwise layer reads and writes: the expanded maps, the bulk of a block's memory traffic.
    maps = sum(layer.in_channels * layer.in_hw**2 + layer.activations for layer in depthwise)
    return np.array([spec.kind == "block", spec.macs - narrow, narrow, maps, spec.params], dtype=np.float64)


def design(features: Floats, groups: Sequence[str], num: int, first: Sequence[int] = ()) -> list[int]:
    """Choose `num` rows by greedy D-optimality: each next one is where a linear model has the largest variance.

    Columns are standardised and divided by the root of their group's size. `first` are rows that are always taken.
    Returns row indices, in the order of choice.
    """
    points = _scaled(features, groups)
    points = np.hstack([np.ones((len(points), 1)), points])
    covariance = np.eye(points.shape[1]) / _DESIGN_RIDGE
    chosen: list[int] = []
    for step in range(min(num, len(points))):
        if step < len(first):
            pick = int(first[step])
        else:
            variance = np.einsum("ij,jk,ik->i", points, covariance, points)
            variance[chosen] = -1
            pick = int(variance.argmax())
        chosen.append(pick)
        gain = covariance @ points[pick]
        covariance -= np.outer(gain, gain) / (_DESIGN_NOISE + points[pick] @ gain)
    return chosen


def choose_archs(archs: Sequence[Arch], num: int, num_classes: int = 1000, in_channels: int = 3) -> list[int]:
    """Choose which of the candidate archs to measure for a latency model; returns their indices."""
    return design(*count_features(archs, num_classes, in_channels), num)


def typical(features: Floats, groups: Sequence[str], num: int) -> list[int]:
    """Choose `num` different rows that stand for all: those nearest to the centres of k-means, scaled as in `design`.

    A design takes the extremes, which say most of slopes. Where the slopes are known beforehand, typical rows say
    more of the level, and outliers among the extremes do not bend it.
    """
    from sklearn.cluster import KMeans

    if num >= len(features):
        return list(range(len(features)))
    points = _scaled(features, groups)
    centres = KMeans(num, n_init=3, random_state=0).fit(points).cluster_centers_
    chosen: list[int] = []
    for centre in centres:
        distance = ((points - centre) ** 2).sum(axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return chosen


def _scaled(features: Floats, groups: Sequence[str]) -> Floats:
    scale = features.std(axis=0) * np.sqrt([groups.count(group) for group in groups])
    used = scale > 0
    return np.asarray((features[:, used] - features[:, used].mean(axis=0)) / scale[used])
