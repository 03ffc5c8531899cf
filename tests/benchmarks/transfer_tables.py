"""Print what transfer gains on the public GPU table: `python tests/benchmarks/transfer_tables.py DATA_DIR`.

The targets are the six columns of HELP's OFA table (Lee et al. 2021), two GPUs at batch 1, 32 and 64; the sources are
the catalogue's entries of the other GPU, none of the target's own ("strict"), or of all five other columns ("all").
Training subnets are chosen from 1,000 that no entry holds; the model is tested on 1,500 others. `afresh` is the model
that `device add` fits on counts, of nets chosen by design; `transferred` the one with the sources as its prior, of nets
chosen as `--transfer` does; `kept` the one that `device add --transfer` keeps, which knows its training subnets alone.
Medians over the draws, with the range.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from catalogue_entries import GPUS, drawn_nets
from latency_tables import read_table
from scipy.stats import spearmanr

from tutelage.bench.devices.entries import transfer_sources
from tutelage.bench.latency.features import count_features, design, typical
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.transfer import transfer
from tutelage.records import Arch

POOL, TESTED = 1000, 1500
Floats = np.ndarray


@dataclass(frozen=True)
class Score:
    """Figures on nets that were not measured: Spearman, mean relative error in percent, share inside 90 % intervals."""

    spearman: float
    mape: float
    covered: float


def score(model: LatencyModel, archs: list[Arch], true: Floats) -> Score:
    mean, low, high = model.predict(archs)
    return Score(
        float(spearmanr(mean, true).statistic), float(100 * np.mean(np.abs(mean / true - 1))),
        float(np.mean((low <= true) & (true <= high))),
    )  # fmt: skip


def entry_of(column: str) -> str:
    """Name the catalogue's entry of a column of the table."""
    gpu, _, batch = column.removesuffix("_ms").rpartition("_batch")
    return GPUS[gpu][0] if batch == "1" else f"{GPUS[gpu][0]}-b{batch}"


def sources_of(column: str, columns: list[str], strict: bool) -> list[str]:
    """Name the entries that a target may use: of the other GPU alone, or of all other columns."""
    gpu = column.rpartition("_batch")[0]
    return [entry_of(one) for one in columns if one != column and not (strict and one.startswith(gpu))]


def draw(
    archs: list[Arch], ms: Floats, sources: Mapping[str, LatencyModel], num: int, seed: int
) -> tuple[dict[str, Score], bool]:
    """Fit on one draw of `num` subnets; gives three scores, and whether the transferred model was kept."""
    others = drawn_nets(len(archs))[1]
    pool = np.random.default_rng(seed).permutation(others)[:POOL]
    features = count_features([archs[i] for i in pool], 1000, 3)
    # Each model on the networks that `device add` chooses for it.
    train, own = pool[typical(*features, num)], pool[design(*features, num)]
    test = np.setdiff1d(others, pool)[:TESTED]
    nets, tested = [archs[i] for i in train], [archs[i] for i in test]
    afresh = LatencyModel.fit([archs[i] for i in own], ms[own])
    found = transfer(nets, ms[train], sources)
    used = {name: sources[name] for name in found.sources}
    transferred = found.model if found.helped else LatencyModel.fit(nets, ms[train], sources=used)
    scores = {"afresh": score(afresh, tested, ms[test]), "transferred": score(transferred, tested, ms[test])}
    return {**scores, "kept": score(found.model, tested, ms[test])}, found.helped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--nets", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--all", action="store_true", help="the target's GPU at other batch sizes is a source, too")
    options = parser.parse_args()
    archs, times = read_table(options.data)
    models = transfer_sources((), None)
    print("| target | nets | model | Spearman | MAPE % | 90 % interval covers | kept |")
    print("|---|---|---|---|---|---|---|")
    means: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for column, ms in times.items():
        sources = {name: models[name] for name in sources_of(column, list(times), not options.all)}
        for num in options.nets:
            found = [draw(archs, ms, sources, num, seed) for seed in range(options.draws)]
            for which in ("afresh", "transferred", "kept"):
                rows = np.array([(one.spearman, one.mape, one.covered) for one in (f[0][which] for f in found)])
                middle, low, high = np.median(rows, axis=0), rows.min(axis=0), rows.max(axis=0)
                means.setdefault((num, which), []).append(tuple(middle))
                kept = f"{np.mean([f[1] for f in found]):.0%}" if which == "kept" else ""
                print(
                    f"| {entry_of(column)} | {num} | {which} | {middle[0]:.3f} ({low[0]:.3f} to {high[0]:.3f}) "
                    f"| {middle[1]:.2f} ({low[1]:.2f} to {high[1]:.2f}) | {middle[2]:.0%} | {kept} |",
                    flush=True,
                )
    for (num, which), rows in means.items():
        spearman, mape, covered = np.mean(rows, axis=0)
        print(f"| mean of six | {num} | {which} | {spearman:.3f} | {mape:.2f} | {covered:.0%} | |")


if __name__ == "__main__":
    main()
