"""Compare this package's search with Optuna's samplers on one surrogate, with and without noise, and print the tables.

    python tests/benchmarks/search_comparison.py --data DIR [--seeds 3] [--noise 0,0.5] [--methods ours,tpe,...]

The task is that of `tutelage search`: error and latency of OFA-MobileNetV3 subnets under a latency bound. Error is that
of the surrogate in `search_strategies.py` (public ImageNet table), with normal noise of `--noise` points of top-1 an
evaluation; latency is a made one, a sum over blocks. Every method gets the same number of evaluations, of which ours
spends the last on contenders again; of Optuna's, whose constraint the bound is, every trial counts.

Hypervolume is of the true values of what was evaluated, as a fraction of the front pooled over all runs. A method's
choice is the best posterior mean for ours, the best observed error else. Its regret is its true error less the least
true error that the same run evaluated, and less the least of all runs. Optuna's GP sampler is slow: it is asked
for `--gp-evaluations` only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

from search_strategies import SPACE, Surrogate, read_table

from tutelage.dominance import hypervolume
from tutelage.records import Arch
from tutelage.search.costs.counts import count
from tutelage.search.loop import search
from tutelage.search.objectives import Objective, Scores
from tutelage.search.result import non_dominated

Floats = NDArray[np.float64]

BOUND_MS = 24.0  # the smallest subnet takes 7.2, the largest 43.3
CORNER = np.array([BOUND_MS, 29.0])  # error = 100 - top-1, %


@dataclass(frozen=True)
class Run:
    """What one method evaluated, in order, and which row it calls the best at each mark."""

    archs: tuple[Arch, ...]
    rows: dict[int, slice]  # evaluations -> what was evaluated with so many
    chosen: dict[int, int]  # evaluations -> the row that the method calls the best
    observed: dict[int, int]  # evaluations -> the feasible row of least observed error
    seconds: float


def latency_ms(archs: Sequence[Arch]) -> Floats:
    """Give a made latency: MACs, and for each block a start and a term that grows with its kernel, as on a CPU."""
    macs = count(list(archs)).macs / 2.5e7
    blocks = []
    for arch in archs:
        used = [slot for stage, depth in enumerate(arch.d) for slot in range(4 * stage, 4 * stage + depth)]
        blocks.append(sum(0.15 + 0.012 * arch.ks[slot] ** 2 * arch.e[slot] / 4 for slot in used))
    return macs + np.array(blocks)


class Task:
    """The surrogate with noise that depends on the seed, the architecture and how often it was evaluated before."""

    def __init__(self, surrogate: Surrogate, noise: float, seed: int) -> None:
        self.surrogate, self.noise, self.seed = surrogate, noise, seed

    def observe(self, archs: Sequence[Arch], before: Sequence[int] | None = None) -> Scores:
        """Give one noisy evaluation of each arch."""
        draws = [self._draw(arch, had) for arch, had in zip(archs, before or [0] * len(archs), strict=True)]
        values = self.surrogate.error(archs) + self.noise * np.array(draws)
        return Scores(values, np.full(len(archs), self.noise))

    def _draw(self, arch: Arch, before: int) -> float:
        digest = hashlib.sha256(f"{arch.id} {before} {self.seed}".encode()).digest()
        return float(np.random.default_rng(list(digest[:8])).standard_normal())


def ours(task: Task, evaluations: Sequence[int], *, strategy: str = "default", again: bool = True) -> Run:
    """Run one search of this package for each number of evaluations: each keeps its last for contenders."""
    begun = time.perf_counter()
    further: dict[str, Any] = {"again": task.observe, "most": 50} if task.noise and again else {}
    goals = [Objective("latency_ms", fn=latency_ms), Objective("error", fn=task.observe, cheap=False, **further)]
    archs: list[Arch] = []
    rows, chosen, observed = {}, {}, {}
    for number in evaluations:
        found = search(SPACE, goals, {"latency_ms": BOUND_MS}, strategy=strategy, evaluations=number, seed=task.seed)
        start = len(archs)
        archs += [row.arch for row in found.evaluated]
        rows[number] = slice(start, len(archs))
        chosen[number] = start + found.finalists[0]
        observed[number] = start + int(np.argmin([row.measured["error"] for row in found.evaluated]))
    return Run(tuple(archs), rows, chosen, observed, time.perf_counter() - begun)


def optuna_run(sampler: Callable[[int], Any], task: Task, evaluations: Sequence[int]) -> Run:
    """Run an Optuna sampler on the choices of the genes; the bound is its constraint, and every trial counts."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    begun = time.perf_counter()
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(task.seed))
    archs: list[Arch] = []
    errors: list[float] = []

    def trial_values(trial: Any) -> tuple[float, float]:
        genes = np.array([[trial.suggest_int(f"g{i}", 0, int(n) - 1) for i, n in enumerate(SPACE.num_choices)]])
        (arch,) = SPACE.decode(SPACE.canonical(genes))
        again = sum(one == arch for one in archs)  # a repeated proposal is a new evaluation
        archs.append(arch)
        errors.append(float(task.observe([arch], [again]).values[0]))
        ms = float(latency_ms([arch])[0])
        trial.set_user_attr("excess", ms - BOUND_MS)
        return ms, errors[-1]

    study.optimize(trial_values, n_trials=max(evaluations))
    kept = np.where(latency_ms(archs) <= BOUND_MS, errors, np.inf)
    best = {number: int(np.argmin(kept[:number])) for number in evaluations}
    rows = {number: slice(0, number) for number in evaluations}
    return Run(tuple(archs), rows, best, best, time.perf_counter() - begun)


def _excess(trial: Any) -> tuple[float]:
    return (trial.user_attrs["excess"],)


def tpe(task: Task, evaluations: Sequence[int]) -> Run:
    import optuna

    return optuna_run(lambda seed: optuna.samplers.TPESampler(seed=seed, constraints_func=_excess), task, evaluations)


def optuna_nsga2(task: Task, evaluations: Sequence[int]) -> Run:
    import optuna

    def sampler(seed: int) -> Any:
        return optuna.samplers.NSGAIISampler(seed=seed, constraints_func=_excess)

    return optuna_run(sampler, task, evaluations)


def optuna_gp(task: Task, evaluations: Sequence[int]) -> Run:
    import optuna

    return optuna_run(
        lambda seed: optuna.samplers.GPSampler(
            seed=seed, constraints_func=_excess, deterministic_objective=not task.noise
        ),
        task,
        evaluations,
    )


METHODS: dict[str, tuple[str, Callable[[Task, Sequence[int]], Run]]] = {
    "ours": ("ours", ours),
    "once": ("ours, none again", lambda task, evaluations: ours(task, evaluations, again=False)),
    "tpe": ("Optuna TPE", tpe),
    "nsga2": ("Optuna NSGA-II", optuna_nsga2),
    "gp": ("Optuna GP", optuna_gp),
}


@cache
def _surrogate(data: Path) -> Surrogate:
    return Surrogate(*read_table(data))


def _play(data: Path, method: str, noise: float, seed: int, evaluations: Sequence[int]) -> Run:
    warnings.filterwarnings("ignore")  # Optuna's experimental samplers, BoTorch's scaling
    return METHODS[method][1](Task(_surrogate(data), noise, seed), evaluations)


def print_tables(surrogate: Surrogate, runs: Mapping[tuple[str, float, int], Run], noises: Sequence[float]) -> None:
    """Print hypervolume and regrets, median (least to most) over seeds, a table for each level of noise."""
    true = {key: surrogate.error(run.archs) for key, run in runs.items()}
    ms = {key: latency_ms(run.archs) for key, run in runs.items()}
    kept = {key: ms[key] <= BOUND_MS for key in runs}
    points = {key: np.stack([ms[key], true[key]], axis=1) for key in runs}
    pooled = np.concatenate([rows[kept[key]] for key, rows in points.items()])
    whole, least = hypervolume(pooled[non_dominated(pooled)], CORNER), pooled[:, 1].min()
    for noise in noises:
        print(f"\nnoise of {noise:g} points of top-1")
        heads = ("hypervolume", "regret in its run", "regret of all", "own regret of the best score")
        print(f"{'method':20}{'evaluations':>12}" + "".join(f"{head:>30}" for head in heads) + f"{'seconds':>9}")
        for method in METHODS:
            mine = [key for key in runs if key[:2] == (method, noise)]
            for number in runs[mine[0]].rows if mine else ():
                cells: list[list[float]] = [[], [], [], []]
                for key in mine:
                    run, part = runs[key], runs[key].rows[number]
                    own = float(np.where(kept[key], true[key], np.inf)[part].min())
                    choice, observed = true[key][run.chosen[number]], true[key][run.observed[number]]
                    cells[0].append(hypervolume(points[key][part][kept[key][part]], CORNER) / whole)
                    cells[1].append(choice - own)
                    cells[2].append(choice - least)
                    cells[3].append(observed - own)
                shown = "".join(f"{f'{np.median(c):.3f} ({min(c):.3f}-{max(c):.3f})':>30}" for c in cells)
                seconds = np.median([runs[key].seconds for key in mine])
                print(f"{METHODS[method][0]:20}{number:>12}{shown}{seconds:>9.0f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Play all methods, seeds and levels of noise in a process a core, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds accuracy/*.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", default="0,0.5", help="comma-separated, in points of top-1")
    parser.add_argument("--evaluations", default="25,200", help="comma-separated")
    parser.add_argument("--gp-evaluations", type=int, default=25, help="of Optuna's GP sampler, at most")
    parser.add_argument("--methods", default="ours,tpe,nsga2,gp", help=f"comma-separated, of {', '.join(METHODS)}")
    options = parser.parse_args(arguments)
    numbers, noises = [int(n) for n in options.evaluations.split(",")], [float(n) for n in options.noise.split(",")]
    methods = options.methods.split(",")
    for unknown in {*methods} - {*METHODS}:
        raise SystemExit(f"no method {unknown}: known are {', '.join(METHODS)}")
    surrogate = _surrogate(options.data)
    print(f"{options.seeds} seeds; median (least-most)", flush=True)
    slow_first = sorted(methods, key=["gp", "tpe", "ours", "once", "nsga2"].index)
    jobs = [(m, noise, seed) for m in slow_first for noise in noises for seed in range(options.seeds)]
    begun = time.perf_counter()
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting = {}
        for method, noise, seed in jobs:
            mine = [n for n in numbers if method != "gp" or n <= options.gp_evaluations]
            if mine:
                waiting[method, noise, seed] = pool.submit(_play, options.data, method, noise, seed, mine)
        runs = {key: one.result() for key, one in waiting.items()}
    print_tables(surrogate, runs, noises)
    print(f"\n{time.perf_counter() - begun:.0f} s in {workers} processes")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
