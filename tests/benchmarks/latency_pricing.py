"""What predicting latency costs: `python tests/benchmarks/latency_pricing.py [--space S] [--resolution R]`.

Prints microseconds an architecture of a model with a block table, against summing the same blocks from the list of
each architecture (`block_specs`, as it was done before), in turns; and how long it takes to refuse a latency budget
that no architecture keeps, with how many were priced for it. Times are the processor's, of one thread
(`OMP_NUM_THREADS=1`). Asked: 20 microseconds, and 1 s for 17,933.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from tutelage.bench.latency.calibrate import block_table_specs
from tutelage.bench.latency.model import LatencyModel
from tutelage.records import Arch, InfeasibleBudgetError
from tutelage.search.costs.counts import block_specs
from tutelage.search.objectives import Objective, Problem
from tutelage.search.spaces.space import Space, find_space


def listed(archs: Sequence[Arch], table: dict[str, float]) -> np.ndarray:
    """Sum the blocks of each arch, one after the other."""
    return np.array([sum(table[spec.key] for spec in block_specs(arch)) for arch in archs])


def refuse(space: Space, model: LatencyModel, bound: float) -> tuple[float, int]:
    """Refuse a bound; gives the seconds, and how many architectures were priced."""
    priced = 0

    def upper(archs: Sequence[Arch]) -> np.ndarray:
        nonlocal priced
        priced += len(archs)
        return model.predict(archs)[2]

    objectives = (Objective("error", fn=lambda archs: np.zeros(len(archs)), cheap=False), Objective("ms", fn=upper))
    begun = time.process_time()
    try:
        Problem(space, objectives, {"ms": bound}).check_bounds()
    except InfeasibleBudgetError:
        return time.process_time() - begun, priced
    raise SystemExit(f"{bound} ms can be kept: nothing was refused")


def spread(values: Sequence[float], digits: int) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--archs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    space = find_space(options.space).with_resolutions((options.resolution,))
    rng = np.random.default_rng(0)
    table = {spec.key: 0.01 + spec.macs / 2e7 for spec in block_table_specs(space, 1000, 3)}
    train = space.decode(space.random(20, rng))
    ms = 1.1 * listed(train, table) * rng.normal(1, 0.02, len(train))
    model = LatencyModel.fit(train, ms, blocks=table)
    model.predict(train)
    ours, before, refusals = [], [], []
    for _ in range(options.rounds):
        archs = space.decode(space.random(options.archs, rng))
        begun = time.process_time()
        model.predict(archs)
        ours.append((time.process_time() - begun) / len(archs) * 1e6)
        begun = time.process_time()
        listed(archs, table)
        before.append((time.process_time() - begun) / len(archs) * 1e6)
        refusals.append(refuse(space, model, float(model.predict([space.smallest()])[0][0]) / 2))
    ratios = [old / new for old, new in zip(before, ours, strict=True)]
    print(f"{space.name} at {options.resolution} px, {options.rounds} rounds, median and range")
    print(f"predict: {spread(ours, 1)} us an architecture; block lists alone: {spread(before, 0)} us; "
          f"{spread(ratios, 1)} times faster")  # fmt: skip
    print(f"refusing a latency budget: {spread([one[0] for one in refusals], 2)} s for {refusals[0][1]:,} priced")


if __name__ == "__main__":
    main()
