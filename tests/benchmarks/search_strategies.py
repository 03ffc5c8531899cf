"""Play every search strategy on a surrogate of a public table and print hypervolume against evaluations.

    python tests/benchmarks/search_strategies.py --data DIR [--seeds 10] [--evaluations 300] [--keep FOLDER]

DIR holds `accuracy/*.csv`: OFA-MobileNetV3 subnets with their ImageNet top-1 (DyNAS-T, Apache-2.0). The surrogate is
kernel ridge regression on one-hot genes (another model class than the strategies' own predictors), fitted on all rows.
Hypervolume is over (MACs, top-1) from 450 M MACs and 71.0 %, as a share of the front pooled over all runs.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import io
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge

from tutelage.dominance import hypervolume
from tutelage.records import Arch
from tutelage.search.costs.counts import count
from tutelage.search.loop import Objective, SearchResult, search
from tutelage.search.result import non_dominated
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.space import SPACES

Floats = NDArray[np.float64]

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((224,))
REFERENCE = {"macs": 450e6, "error": 29.0}  # error = 100 - top-1, %
CORNER = np.array(list(REFERENCE.values()))
MARKS = (50, 100, 200, 300)
# The evolution finder keeps one budget: the middle of the table.
FINDER_MACS = 300e6


def read_table(data: Path) -> tuple[list[Arch], Floats]:
    """Read the distinct archs of the table and their mean top-1 in %."""
    scores: dict[Arch, list[float]] = {}
    for path in sorted((data / "accuracy").glob("*.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                genes = ast.literal_eval(row["Sub-network"])
                arch = Arch(space=SPACE.name, ks=genes["ks"], e=genes["e"], d=genes["d"], r=genes["r"][0])
                scores.setdefault(arch, []).append(float(row["Top-1 Acc (%)"]))
    if not scores:
        raise SystemExit(f"no accuracy/*.csv with rows in {data}: name the folder of the public tables with --data")
    return list(scores), np.array([statistics.fmean(values) for values in scores.values()])


class Surrogate:
    """Top-1 of any arch of the space by kernel ridge on one-hot genes.

    With this gamma and alpha its 10-fold error is .078 points (the noise of the table is .022).
    """

    def __init__(self, archs: Sequence[Arch], top1: Floats) -> None:
        self.middle = float(top1.mean())
        self.model = KernelRidge(alpha=0.03, kernel="rbf", gamma=0.01).fit(one_hot(archs), top1 - self.middle)

    def error(self, archs: Sequence[Arch]) -> Floats:
        """Give 100 - top-1 in %."""
        predicted: Floats = 100 - self.middle - self.model.predict(one_hot(archs))
        return predicted


def play(surrogate: Surrogate, strategy: str, evaluations: int, seed: int, keep: Path | None = None) -> SearchResult:
    """Run one search on the surrogate, or go on with the one that the folder `keep` holds."""
    objectives = [Objective("macs"), Objective("error", "min", surrogate.error, cheap=False)]
    file = keep / f"{strategy}-{seed}.json" if keep else None
    return search(
        SPACE,
        objectives,
        strategy=strategy,
        evaluations=evaluations,
        seed=seed,
        reference=REFERENCE,
        checkpoint=file,
    )


def shares(played: Mapping[str, Sequence[SearchResult]]) -> dict[str, Floats]:
    """Give each strategy's share of the pooled front's hypervolume, (seeds, marks)."""
    points = {name: [_points_of(result) for result in results] for name, results in played.items()}
    pooled = np.concatenate([rows for runs in points.values() for rows in runs])
    whole = hypervolume(pooled[non_dominated(pooled)], CORNER)
    return {
        name: np.array([[hypervolume(rows[:mark], CORNER) / whole for mark in MARKS] for rows in runs])
        for name, runs in points.items()
    }


def run_evolution_finder(surrogate: Surrogate, seed: int, generations: int) -> tuple[int, float, float]:
    """Run `ofa`'s finder (100 archs; its default is 500 generations) on the surrogate, MACs from our count.

    Gives (accuracy queries, own seconds without both predictors', best top-1 under FINDER_MACS).
    """
    from ofa.nas.accuracy_predictor import MobileNetArchEncoder
    from ofa.nas.search_algorithm import EvolutionFinder

    asked, away = [0], [0.0]

    def as_arch(genes: Mapping[str, Any]) -> Arch:
        return Arch(space=SPACE.name, ks=genes["ks"], e=genes["e"], d=genes["d"], r=224)

    class Accuracy:
        arch_encoder = MobileNetArchEncoder(image_size_list=[224])

        def predict_acc(self, samples: Sequence[Mapping[str, Any]]) -> Floats:
            asked[0] += len(samples)
            begun = time.perf_counter()
            top1: Floats = 100 - surrogate.error([as_arch(genes) for genes in samples])
            away[0] += time.perf_counter() - begun
            return top1

    class Efficiency:
        def get_efficiency(self, genes: Mapping[str, Any]) -> float:
            begun = time.perf_counter()
            macs = float(count([as_arch(genes)]).macs[0])
            away[0] += time.perf_counter() - begun
            return macs

    random.seed(seed)  # the finder draws from the global generators
    np.random.seed(seed)
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        _, best = EvolutionFinder(Efficiency(), Accuracy()).run_evolution_search(
            FINDER_MACS, max_time_budget=generations
        )
    own = time.perf_counter() - begun - away[0]
    return asked[0], own, float(best[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds accuracy/*.csv")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="comma-separated")
    parser.add_argument("--finder-generations", type=int, default=500, help="of ofa's evolution finder")
    parser.add_argument("--no-finder", action="store_true", help="leave ofa's evolution finder out")
    parser.add_argument("--keep", type=Path, help="folder for searches: a bench that was stopped goes on")
    options = parser.parse_args(arguments)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    archs, top1 = read_table(options.data)
    surrogate = Surrogate(archs, top1)
    print(f"surrogate of {len(archs)} archs; {options.seeds} seeds, {options.evaluations} evaluations each", flush=True)
    played: dict[str, list[SearchResult]] = {}
    for name in options.strategies.split(","):
        seeds = range(options.seeds)
        played[name] = [play(surrogate, name, options.evaluations, seed, options.keep) for seed in seeds]
    table = shares(played)
    print("share of the pooled front's hypervolume, median (least-most) over seeds; own seconds = all but scoring")
    marks = [(i, mark) for i, mark in enumerate(MARKS) if mark <= options.evaluations]
    print(f"{'strategy':10}" + "".join(f"{f'at {mark}':>20}" for _, mark in marks) + f"{'own seconds':>14}")
    for name, rows in table.items():
        cells = [f"{np.median(rows[:, i]):.3f} ({rows[:, i].min():.3f}-{rows[:, i].max():.3f})" for i, _ in marks]
        seconds = statistics.median(result.search_seconds for result in played[name])
        print(f"{name:10}" + "".join(f"{cell:>20}" for cell in cells) + f"{seconds:>14.1f}")
    if not options.no_finder:
        _print_finder(surrogate, played, options.finder_generations)


def _print_finder(surrogate: Surrogate, played: Mapping[str, Sequence[SearchResult]], generations: int) -> None:
    queries, own, best = run_evolution_finder(surrogate, 0, generations)
    print(f"under {FINDER_MACS / 1e6:g} M MACs alone (best top-1, scored archs, own seconds):")
    print(f"{'ofa EvolutionFinder':22}{best:8.3f} %{queries:>8}{own:>8.1f}")
    for name, results in played.items():
        bests = [
            100 - min((e for macs, e in _points_of(result) if macs <= FINDER_MACS), default=100.0) for result in results
        ]
        seconds = statistics.median(result.search_seconds for result in results)
        print(f"{name:22}{statistics.median(bests):8.3f} %{len(results[0].evaluated):>8}{seconds:>8.1f}")


def one_hot(archs: Sequence[Arch]) -> Floats:
    """Say which value each gene of each arch takes, (n, 135) of 0 and 1."""
    ks, e, d = (np.array([getattr(arch, field) for arch in archs]) for field in ("ks", "e", "d"))
    parts = [ks == 3, ks == 5, ks == 7, e == 3, e == 4, e == 6, d == 2, d == 3, d == 4]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _points_of(result: SearchResult) -> Floats:
    """Give (MACs, error) of every asked arch, in the order asked."""
    return np.array([[row.counted["macs"], row.measured["error"]] for row in result.evaluated])


if __name__ == "__main__":
    main()
