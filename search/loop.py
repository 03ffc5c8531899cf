"""The search itself: a strategy proposes, the objectives score; then the front and the finalists.

`search` gives a `SearchResult`. Every batch is written to the checkpoint, and randomness is drawn from (seed,
evaluations so far): an interrupted search, called again, goes on from its last batch to the same end as one that was
not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tutelage.records import Arch, InputError
from tutelage.search.samplers.draws import RANDOM_DRAWS, new_rows, remaining
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.samplers.strategy import History, Proposal
from tutelage.search.spaces.space import Genes, Space, find_space

from .encoding import Floats
from .objectives import COUNTS, Objective, Problem
from .result import (
    Evaluated,
    SearchResult,
    choose_finalists,
    hypervolume,
    non_dominated,
    reference_point,
    same_search,
)

__all__ = ["Evaluated", "Objective", "SearchResult", "search"]

logger = logging.getLogger(__name__)


def search(
    space: Space | str,
    objectives: Sequence[Objective],
    bounds: Mapping[str, float] | None = None,
    *,
    strategy: str = "default",
    evaluations: int,
    seed: int = 0,
    initial: Sequence[Arch] = (),
    checkpoint: Path | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    progress: Callable[[int, int], None] | None = None,
    num_finalists: int = 4,
    reference: Mapping[str, float] | None = None,
) -> SearchResult:
    """Search a space under upper bounds; `evaluations` counts every scored arch, `initial` ones included.

    `initial` archs are scored first, whatever they cost; those that break a bound are marked and never win. All others
    keep every bound, and none is evaluated twice. A search that runs out of them ends early and says why in `ended`.
    `reference` fixes the hypervolume's corner by objective name.
    Raises InfeasibleBudgetError before anything is scored, InputError on a checkpoint of another search.
    """
    space = find_space(space) if isinstance(space, str) else space
    STRATEGIES.find(strategy).check()
    if evaluations < 1:
        raise InputError(f"evaluations = {evaluations}: give at least 1")
    problem = Problem(space, tuple(objectives), dict(bounds or {}), num_classes, in_channels)
    started = time.perf_counter()
    problem.check_bounds()
    wanted = space.encode(list(initial)) if initial else np.zeros((0, space.num_genes), dtype=np.int64)
    wanted = wanted[new_rows(wanted, wanted[:0])]
    result = _blank(problem, strategy, evaluations, seed, wanted, num_finalists, reference)
    if checkpoint is not None and checkpoint.exists():
        result = _resumed(result, checkpoint)
        logger.info("search goes on from %s with %d of %d scored", checkpoint, len(result.evaluated), evaluations)
    corner = [(reference or {}).get(objective.name) for objective in problem.objectives]
    rows = list(result.evaluated)
    seconds, scoring = result.search_seconds, result.scoring_seconds
    while len(rows) < evaluations:
        history = _history(problem, rows, corner)
        proposal = _next(problem, history, wanted, strategy, evaluations, seed)
        if not len(proposal.genes):
            result = result.model_copy(update={"ended": _why_ended(problem, len(rows))})
            logger.warning("%s; %d were wanted", result.ended, evaluations)
            break
        archs = space.decode(proposal.genes)
        begun = time.perf_counter()
        scores = {objective.name: objective.evaluate(archs) for objective in problem.expensive}
        spent = time.perf_counter() - begun
        rows += _evaluated(problem, proposal, archs, scores, len(rows) < len(wanted), _batch(rows, len(wanted)))
        scoring += spent
        times = {"search_seconds": seconds + time.perf_counter() - started - (scoring - result.scoring_seconds)}
        current = result.model_copy(update={"evaluated": tuple(rows), "scoring_seconds": scoring, **times})
        if checkpoint is not None:
            current.to_json(checkpoint)
        if progress is not None:
            progress(min(len(rows), evaluations), evaluations)
    spent_here = scoring - result.scoring_seconds
    done = _finished(problem, result.model_copy(update={"evaluated": tuple(rows)}), corner, num_finalists)
    own = seconds + time.perf_counter() - started - spent_here
    done = done.model_copy(update={"search_seconds": own, "scoring_seconds": scoring})
    if checkpoint is not None:
        done.to_json(checkpoint)
    return done


def _blank(
    problem: Problem,
    strategy: str,
    evaluations: int,
    seed: int,
    wanted: Genes,
    num_finalists: int,
    reference: Mapping[str, float] | None,
) -> SearchResult:
    return SearchResult(
        space=problem.space.name,
        strategy=strategy,
        seed=seed,
        evaluations=evaluations,
        objectives={objective.name: objective.direction for objective in problem.objectives},
        cheap={objective.name: objective.cheap for objective in problem.objectives},
        bounds=dict(problem.bounds),
        settings={
            "num_classes": problem.num_classes,
            "in_channels": problem.in_channels,
            "resolutions": list(problem.space.resolutions),
            "initial": [arch.id for arch in problem.space.decode(wanted)],
            "num_finalists": num_finalists,
            "reference": dict(reference or {}),
        },
    )


def _resumed(blank: SearchResult, checkpoint: Path) -> SearchResult:
    """Read a checkpoint and make sure that it is of this very search."""
    earlier = SearchResult.from_json(checkpoint)
    differs = same_search(blank, earlier)
    if differs:
        raise InputError(
            f"{checkpoint} is of another search ({differs} was {getattr(earlier, differs)}, "
            f"now {getattr(blank, differs)}): remove it or name another file"
        )
    return earlier


def _history(problem: Problem, rows: Sequence[Evaluated], corner: Sequence[float | None]) -> History:
    """Put the record into arrays; the reference is fixed by the first batches alone, so that it never moves."""
    archs = tuple(row.arch for row in rows)
    names = [objective.name for objective in problem.objectives]
    signs = np.array([objective.sign for objective in problem.objectives])
    points = np.array([[row.value(name) for name in names] for row in rows]).reshape(len(rows), len(names)) * signs
    feasible = np.array([row.feasible for row in rows], dtype=np.bool_)
    batches = np.array([row.batch for row in rows], dtype=np.int64)
    genes = problem.space.encode(archs) if archs else np.zeros((0, problem.space.num_genes), dtype=np.int64)
    return History(genes, archs, points, feasible, batches, _reference(problem, points, feasible, batches, corner))


def _reference(
    problem: Problem,
    points: Floats,
    feasible: np.ndarray[tuple[int], np.dtype[np.bool_]],
    batches: np.ndarray[tuple[int], np.dtype[np.int64]],
    corner: Sequence[float | None],
) -> Floats:
    """Give the corner of the hypervolume, signed: the caller's, else just beyond the worst of the first batches."""
    signs = np.array([objective.sign for objective in problem.objectives])
    given = [None if value is None else value * sign for value, sign in zip(corner, signs, strict=True)]
    early = points[(batches <= 1) & feasible]
    if not len(early):
        early = points if len(points) else np.zeros((1, len(signs)))
    return reference_point(early, given)


def _next(problem: Problem, history: History, wanted: Genes, strategy: str, evaluations: int, seed: int) -> Proposal:
    done = len(history.genes)
    if done < len(wanted):
        return Proposal(wanted[done:evaluations])
    chosen = STRATEGIES[strategy]
    size = chosen.first if not (history.batches > 0).any() else chosen.batch
    size = min(size, evaluations - done)
    left = remaining(problem, history.genes)
    if left is not None and len(left) <= size:  # no strategy has a choice
        return Proposal(left)
    rng = np.random.default_rng([seed, done])
    # Matrices of a few hundred rows: two threads of BLAS spend their time waiting for each other (36 s against 13 s for
    # 300 evaluations of the default on two cores), and their number would change the last digits.
    with threadpool_limits(1, user_api="blas"):
        return chosen.propose(problem, history, size, rng)


def _why_ended(problem: Problem, num_evaluated: int) -> str:
    if problem.listed is not None:
        return f"the feasible set is exhausted after {num_evaluated} architectures"
    return (
        f"no new architecture within the bounds after {num_evaluated}: the search drew up to {RANDOM_DRAWS:,} more "
        "for the next batch; raise a bound"
    )


def _batch(rows: Sequence[Evaluated], num_wanted: int) -> int:
    """Number the batches: 0 is the caller's, the strategy's start at 1."""
    if len(rows) < num_wanted:
        return 0
    return max((row.batch for row in rows), default=0) + 1


def _evaluated(
    problem: Problem,
    proposal: Proposal,
    archs: Sequence[Arch],
    scores: Mapping[str, Floats],
    initial: bool,
    batch: int,
) -> list[Evaluated]:
    cheap = problem.cheap(proposal.genes, archs)
    keeps = problem.feasible(cheap)
    rows = []
    for i, arch in enumerate(archs):
        predicted = {name: float(values[i]) for name, values in proposal.predicted.items()}
        predicted |= {name: float(values[i]) for name, values in cheap.items() if name not in COUNTS}
        rows.append(
            Evaluated(
                arch=arch,
                predicted=predicted,
                counted={name: float(cheap[name][i]) for name in COUNTS},
                measured={name: float(values[i]) for name, values in scores.items()},
                feasible=bool(keeps[i]),
                initial=initial,
                batch=batch,
            )
        )
    return rows


def _finished(
    problem: Problem, result: SearchResult, corner: Sequence[float | None], num_finalists: int
) -> SearchResult:
    """Find front, finalists and the hypervolume after every batch, all among archs that keep the bounds."""
    history = _history(problem, result.evaluated, corner)
    allowed = np.flatnonzero(history.feasible)
    front = allowed[non_dominated(history.points[allowed])]
    picked, gains = choose_finalists(history.points[front], history.reference, num_finalists)
    trace = []
    for batch in np.unique(history.batches):
        rows = (history.batches <= batch) & history.feasible
        trace.append((int((history.batches <= batch).sum()), hypervolume(history.points[rows], history.reference)))
    natural = {
        objective.name: float(objective.sign * value)
        for objective, value in zip(problem.objectives, history.reference, strict=True)
    }
    return result.model_copy(
        update={
            "front": tuple(int(i) for i in front),
            "finalists": tuple(int(front[i]) for i in picked),
            "finalist_gains": tuple(gains),
            "reference": natural,
            "hypervolume": tuple(trace),
        }
    )
