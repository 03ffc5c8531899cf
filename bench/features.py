"""What a latency model sees of an architecture: block-table sums where blocks were measured, else counts per stage.

Enters: archs. Leaves: an array (archs, features) and, for every column, the group it belongs to; a group's columns
share one prior in `latency.py`. Also the design: which architectures to measure so that few of them tell the most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InputError
from tutelage.search.counts import block_specs

Floats = NDArray[np.float64]

# Ridge of the design: small against a standardised feature's variance of 1, so that the first picks are defined.
_DESIGN_RIDGE = 0.01
_DESIGN_NOISE = 0.1


def count_features(archs: Sequence[Arch], num_classes: int, in_channels: int) -> tuple[Floats, list[str]]:
    """Give counts that decide latency where no block was measured: whole-net sums, and depth and MACs per stage.

    At batch 1 on a GPU a launch costs more than its arithmetic, so the number of blocks says more than the MACs;
    at a large batch it is the other way round. The groups let the fit weigh the two.
    """
    rows = []
    groups: list[str] = []
    for arch in archs:
        specs = block_specs(arch, num_classes, in_channels)
        blocks = [spec for spec in specs if spec.kind == "block"]
        stages = range(max(len(arch.d), 1 + max((spec.stage for spec in blocks), default=0)))
        whole = [
            float(len(blocks)),
            float(sum(spec.macs for spec in specs)),
            float(sum(spec.costs[2] for spec in specs)),
            float(sum(spec.params for spec in specs)),
            float(arch.r),
            float(specs[0].in_hw) ** 2,
        ]
        depth = [float(sum(spec.stage == stage for spec in blocks)) for stage in stages]
        macs = [float(sum(spec.macs for spec in blocks if spec.stage == stage)) for stage in stages]
        rows.append(whole + depth + macs)
        groups = ["whole"] * len(whole) + ["depth"] * len(depth) + ["macs"] * len(macs)
    return np.array(rows, dtype=np.float64), groups


def block_features(
    archs: Sequence[Arch], blocks: Mapping[str, float], num_classes: int, in_channels: int
) -> tuple[Floats, list[str]]:
    """Give the measured block times of each arch, summed over the net and over each stage, in ms.

    Raises InputError for an arch with a block that is not in the table.
    """
    rows = []
    width = 1 + max((len(arch.d) for arch in archs), default=0) + 1
    for arch in archs:
        row = np.zeros(width)
        for spec in block_specs(arch, num_classes, in_channels):
            if spec.key not in blocks:
                raise InputError(
                    f"block {spec.key} of an arch of {arch.space} at {arch.r} px is not in the block table: "
                    "add the device again for this space and resolution"
                )
            row[0] += blocks[spec.key]
            if spec.kind == "block":
                row[1 + min(max(spec.stage, 0), width - 2)] += blocks[spec.key]
        rows.append(row)
    return np.array(rows).reshape(len(archs), width), ["total"] + ["stage"] * (width - 1)


def design(features: Floats, num: int, first: Sequence[int] = ()) -> list[int]:
    """Choose `num` rows by greedy D-optimality: each next one is where a linear model knows least.

    `first` are rows that are taken anyway. Returns row indices, in the order of choice.
    """
    scale = features.std(axis=0)
    used = scale > 0
    points = (features[:, used] - features[:, used].mean(axis=0)) / scale[used] / np.sqrt(max(1, used.sum()))
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
    return design(count_features(archs, num_classes, in_channels)[0], num)
