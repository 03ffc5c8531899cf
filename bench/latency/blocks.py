"""Which blocks of a space are measured for a latency model, and what the others take by them.

Blocks that differ in kernel and expanded width alone take `c + a_k * width`: each call has a cost of its own, and every
channel of the expanded maps costs its two 1x1 convolutions and a depthwise one of kernel k. One block more than there
are kernels settles that; `chosen_blocks` takes the ends of the range (the D-optimal design of a line), and
`completed_table` computes the rest. docs/measuring.md says how far the sums are off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tutelage.search.costs.counts import BlockSpec

# A computed block takes at least this fraction of the fastest measured one like it.
_LEAST = 0.1


def chosen_blocks(specs: Sequence[BlockSpec]) -> list[BlockSpec]:
    """Choose the blocks to measure, in the order given: all that no other ones tell."""
    measured = {spec.key for group in _alike(specs) for spec in _settling(group)}
    return [spec for spec in specs if spec.key in measured]


def completed_table(specs: Sequence[BlockSpec], measured_ms: Mapping[str, float]) -> dict[str, float]:
    """Give the milliseconds of every block by key, where those of `chosen_blocks` were measured."""
    table: dict[str, float] = {}
    for group in _alike(specs):
        known = [spec for spec in group if spec.key in measured_ms]
        table |= {spec.key: measured_ms[spec.key] for spec in known}
        rest = [spec for spec in group if spec.key not in measured_ms]
        if not rest:
            continue
        kernels = sorted({spec.kernel for spec in group})
        times = np.array([measured_ms[spec.key] for spec in known])
        # Relative errors count: a block of half the time is to be known as well as the others.
        design = _design(known, kernels) / times[:, None]
        weights = np.linalg.lstsq(design, np.ones(len(known)), rcond=None)[0]
        computed = np.maximum(_design(rest, kernels) @ weights, _LEAST * times.min())
        table |= dict(zip((spec.key for spec in rest), computed.tolist(), strict=True))
    return {spec.key: table[spec.key] for spec in specs}


def _alike(specs: Sequence[BlockSpec]) -> list[list[BlockSpec]]:
    """Group the blocks that differ in kernel and expanded width alone; a stem or a head is a group of its own.

    So is a bottleneck, whose inner convolution costs the square of its width.
    """
    groups: dict[BlockSpec, list[BlockSpec]] = {}
    for spec in specs:
        inverted = spec.kind == "block" and spec.style != "bottleneck"
        # Stage and slot are no part of what is computed: one of several places stands for all.
        like = dataclasses.replace(spec, kernel=1, mid_channels=1, stage=0, slot=0) if inverted else spec
        groups.setdefault(like, []).append(spec)
    return list(groups.values())


def _settling(group: Sequence[BlockSpec]) -> list[BlockSpec]:
    """Choose the widest block of each kernel, and the narrowest of the smallest kernel; a group without these whole."""
    by_place = {(spec.kernel, spec.mid_channels): spec for spec in group}
    kernels = sorted({spec.kernel for spec in group})
    widths = sorted({spec.mid_channels for spec in group})
    wanted = [(kernels[0], widths[0]), *((kernel, widths[-1]) for kernel in kernels)]
    if len(by_place) < len(group) or len(widths) < 2 or not all(place in by_place for place in wanted):
        return list(group)
    return [by_place[place] for place in wanted]


def _design(specs: Sequence[BlockSpec], kernels: Sequence[int]) -> np.ndarray:
    """Give the columns of `c + a_k * width`: one, and the width in the column of the block's kernel."""
    rows = [[1.0, *(spec.mid_channels * (spec.kernel == kernel) for kernel in kernels)] for spec in specs]
    return np.array(rows, dtype=np.float64)
