"""NSGA-II on genotypes, by pymoo: survivors, one generation of children, and whole runs on a predictor.

Points are to be minimised. Crossover and mutation are the space's own, so every child is canonical; bounds are pymoo's
inequality constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

Predict = Callable[[Genes], Mapping[str, Floats]]

_CROSSOVER_PROBABILITY = 0.9
# On a predictor children are cheap, and 4 or 5 genes anew explore more (OFA: 0.1); scored ones keep Deb's 1 / genes.
_PREDICTED_MUTATION = 0.1


@dataclass(frozen=True)
class Visited:
    """Every genotype a run evaluated, once each, with its points and the sum of its violations (0 is feasible)."""

    genes: Genes
    points: Floats
    violation: Floats

    def best_first(self) -> Genes:
        """Order by non-domination rank, then crowding distance; infeasible ones left out."""
        keep = self.violation <= 0
        genes, points = self.genes[keep], self.points[keep]
        return genes[rank_order(points)] if len(genes) else genes


def rank_order(points: Floats) -> NDArray[np.int64]:
    """Order rows as NSGA-II keeps them (Deb et al. 2002): by non-domination rank, then largest crowding distance first.

    Rows of equal distance stay in their order, where pymoo's survival draws lots: the result depends on nothing else.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    order: list[int] = []
    for front in NonDominatedSorting().do(points):
        crowding = calc_crowding_distance(points[front])
        order.extend(front[np.argsort(-crowding, kind="stable")])
    return np.array(order, dtype=np.int64)


def survive(
    points: Floats, batches: NDArray[np.int64], feasible: NDArray[np.bool_], population: int
) -> NDArray[np.int64]:
    """Give the rows that NSGA-II would hold after all batches: best of (survivors + batch), batch by batch."""
    survivors = np.zeros(0, dtype=np.int64)
    for batch in np.unique(batches):
        rows = np.flatnonzero((batches == batch) & feasible)
        merged = np.concatenate([survivors, rows])
        if len(merged):
            survivors = merged[rank_order(points[merged])[:population]]
    return survivors


def breed(problem: Problem, genes: Genes, points: Floats, n: int, rng: np.random.Generator) -> Genes:
    """Make up to n children of evaluated parents by pymoo's NSGA-II: binary tournaments, crossover, mutation.

    Fewer, or none, come back where the space around the parents is small: no child equals a parent or another child.
    """
    from pymoo.core.population import Population

    parents = Population.new("X", genes, "F", points, "G", np.zeros((len(genes), 1)))
    for individual in parents:
        individual.evaluated.update({"F", "G"})
    algorithm = _nsga2(problem, parents, len(genes), n, mutation=1 / problem.space.num_genes)
    algorithm.setup(_as_pymoo(problem, None, []), seed=int(rng.integers(2**31)), termination=("n_gen", 10**6))
    algorithm.tell(infills=algorithm.ask())
    children = algorithm.ask()
    if children is None:  # pymoo's result when 100 rounds of mating bring nothing but the parents again
        return genes[:0]
    return np.asarray(children.get("X"), dtype=np.int64).reshape(-1, problem.space.num_genes)


def run_nsga2(
    problem: Problem, predict: Predict, start: Genes, rng: np.random.Generator, *, population: int, generations: int
) -> Visited:
    """Run NSGA-II where expensive objectives are predicted; the best of `start` are the first population.

    Where all feasible architectures are few enough to list, every one is predicted instead.
    """
    from pymoo.optimize import minimize

    seen: list[tuple[Genes, Floats, Floats]] = []
    task = _as_pymoo(problem, predict, seen)
    if problem.listed is not None:
        task._evaluate(problem.listed, {})
        return Visited(*seen[0])
    candidates = np.unique(start, axis=0)
    task._evaluate(candidates, {})
    _, points, violation = seen[0]
    best = rank_order(points)
    best = best[np.argsort(violation[best], kind="stable")][:population]  # feasible ones first
    algorithm = _nsga2(problem, candidates[best], population, population, mutation=_PREDICTED_MUTATION)
    minimize(task, algorithm, ("n_gen", generations), seed=int(rng.integers(2**31)), verbose=False)
    genes, points, violation = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    _, once = np.unique(genes, axis=0, return_index=True)
    once = np.sort(once)
    return Visited(genes[once], points[once], violation[once])


def _nsga2(problem: Problem, sampling: Any, population: int, offspring: int, mutation: float) -> Any:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.duplicate import DefaultDuplicateElimination
    from pymoo.core.mutation import Mutation

    space = problem.space

    class GeneCrossover(Crossover):  # type: ignore[misc]
        def _do(self, _: Any, X: Genes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genes:
            first, second = X.astype(np.int64)
            return np.stack(
                [space.crossover(first, second, random_state), space.crossover(second, first, random_state)]
            )

    class GeneMutation(Mutation):  # type: ignore[misc]
        def _do(self, _: Any, X: Genes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genes:
            return space.mutate(X.astype(np.int64), random_state, mutation)

    return NSGA2(
        pop_size=population,
        n_offsprings=offspring,
        sampling=sampling,
        crossover=GeneCrossover(2, 2, prob=_CROSSOVER_PROBABILITY),
        mutation=GeneMutation(),
        eliminate_duplicates=DefaultDuplicateElimination(),
    )


def _as_pymoo(problem: Problem, predict: Predict | None, seen: list[tuple[Genes, Floats, Floats]]) -> Any:
    """Wrap a problem for pymoo; what is evaluated is appended to `seen`."""
    import pymoo.core.problem

    bounds = list(problem.bounds.items())

    class Task(pymoo.core.problem.Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            upper = problem.space.num_choices - 1
            super().__init__(
                n_var=problem.space.num_genes,
                n_obj=len(problem.objectives),
                n_ieq_constr=max(len(bounds), 1),
                xl=np.zeros_like(upper),
                xu=upper,
                vtype=int,
            )

        def _evaluate(self, X: Genes, out: dict[str, Floats], *args: Any, **kwargs: Any) -> None:
            assert predict is not None
            genes = X.astype(np.int64)
            values = problem.cheap(genes)
            excess = [values[name] / bound - 1 for name, bound in bounds] or [np.zeros(len(genes))]
            out["G"] = np.stack(excess, axis=1)
            signed = predict(genes)  # expensive objectives come signed, to be minimised
            columns = [
                signed[objective.name] if not objective.cheap else objective.sign * values[objective.name]
                for objective in problem.objectives
            ]
            out["F"] = np.stack(columns, axis=1)
            seen.append((genes, out["F"], np.maximum(out["G"], 0).sum(axis=1)))

    return Task()
