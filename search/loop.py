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
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tutelage.dominance import hypervolume
from tutelage.records import Arch, InputError
from tutelage.search.samplers.draws import RANDOM_DRAWS, new_rows, remaining
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.samplers.strategy import History, Proposal
from tutelage.search.spaces.space import Genes, Space, find_space

from .contenders import AGAIN_BATCH, AGAIN_FRACTION, can_score_again, merged, merged_std_error, pick_again, posteriors
from .encoding import Floats
from .family import Slicing, slice_numbers, slices_of
from .objectives import COUNTS, Objective, Problem, Scored
from .result import (
    Evaluated,
    SearchResult,
    choose_finalists,
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
    slicing: Slicing | None = None,
) -> SearchResult:
    """Search a space under upper bounds; `evaluations` counts every scored arch, `initial` ones included.

    `initial` archs are scored first, whatever they cost; those that break a bound are marked and never win. All others
    keep every bound. None is evaluated twice but by an objective's `again`: then the last of the evaluations go to the
    contenders of each slice of `slicing`. A search that runs out of archs ends early and says why in `ended`.
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
    slicing = slicing or Slicing()
    result = blank_result(problem, strategy, evaluations, seed, wanted, num_finalists, reference, slicing)
    if checkpoint is not None and checkpoint.exists():
        result = _resumed(result, checkpoint)
        logger.info("search goes on from %s with %d of %d scored", checkpoint, len(result.evaluated), evaluations)
    corner = [(reference or {}).get(objective.name) for objective in problem.objectives]
    rows = list(result.evaluated)
    seconds, scoring = result.search_seconds, result.scoring_seconds
    while num_evaluations(rows) < evaluations:
        history = history_of(problem, rows, corner)
        repeated = _contenders(problem, history, rows, slicing, evaluations, seed)
        if repeated:
            scoring += _score_again(problem, rows, repeated)
        else:
            proposal = next_proposal(
                problem, history, wanted, strategy, _left_for_new(problem, rows, evaluations), seed
            )
            if not len(proposal.genes):
                result = result.model_copy(update={"ended": why_ended(problem, len(rows))})
                logger.warning("%s; %d were wanted", result.ended, evaluations)
                break
            scoring += _score_new(problem, rows, proposal, len(wanted))
        times = {"search_seconds": seconds + time.perf_counter() - started - (scoring - result.scoring_seconds)}
        current = result.model_copy(update={"evaluated": tuple(rows), "scoring_seconds": scoring, **times})
        if checkpoint is not None:
            current.to_json(checkpoint)
        if progress is not None:
            progress(min(num_evaluations(rows), evaluations), evaluations)
    spent_here = scoring - result.scoring_seconds
    done = finished(problem, result.model_copy(update={"evaluated": tuple(rows)}), corner, num_finalists)
    own = seconds + time.perf_counter() - started - spent_here
    done = done.model_copy(update={"search_seconds": own, "scoring_seconds": scoring})
    if checkpoint is not None:
        done.to_json(checkpoint)
    return done


def blank_result(
    problem: Problem,
    strategy: str,
    evaluations: int,
    seed: int,
    wanted: Genes,
    num_finalists: int,
    reference: Mapping[str, float] | None,
    slicing: Slicing,
) -> SearchResult:
    """Give the result of a search that has not begun: what was asked of it, and nothing evaluated."""
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
            **({"slicing": slicing.to_dict()} if slicing != Slicing() else {}),
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


def history_of(problem: Problem, rows: Sequence[Evaluated], corner: Sequence[float | None]) -> History:
    """Put the record into arrays; the reference is fixed by the first batches alone, so that it never moves."""
    archs = tuple(row.arch for row in rows)
    names = [objective.name for objective in problem.objectives]
    signs = np.array([objective.sign for objective in problem.objectives])
    points = np.array([[row.value(name) for name in names] for row in rows]).reshape(len(rows), len(names)) * signs
    feasible = np.array([row.feasible for row in rows], dtype=np.bool_)
    batches = np.array([row.batch for row in rows], dtype=np.int64)
    genes = problem.space.encode(archs) if archs else np.zeros((0, problem.space.num_genes), dtype=np.int64)
    noise = [[0.0 if o.cheap else row.std_error.get(o.name, np.nan) for o in problem.objectives] for row in rows]
    std_error = np.array(noise, dtype=np.float64).reshape(len(rows), len(names))
    reference = _reference(problem, points, feasible, batches, corner)
    return History(genes, archs, points, feasible, batches, reference, std_error)


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


def next_proposal(
    problem: Problem, history: History, wanted: Genes, strategy: str, left_over: int, seed: int
) -> Proposal:
    """Propose the next batch, of at most `left_over` archs: the caller's own first, then the strategy's."""
    done = len(history.genes)
    if done < len(wanted):
        return Proposal(wanted[done : done + left_over])
    chosen = STRATEGIES[strategy]
    size = chosen.first if not history.started else chosen.batch
    size = min(size, left_over)
    left = remaining(problem, history.genes)
    if left is not None and len(left) <= size:  # no strategy has a choice
        return Proposal(left)
    rng = np.random.default_rng([seed, done])
    # Matrices of a few hundred rows: two threads of BLAS spend their time waiting for each other (36 s against 13 s for
    # 300 evaluations of the default on two cores), and their number would change the last digits.
    with threadpool_limits(1, user_api="blas"):
        return chosen.propose(problem, history, size, rng)


def _score_new(problem: Problem, rows: list[Evaluated], proposal: Proposal, num_wanted: int) -> float:
    """Score what was proposed, add it to `rows`, and give the seconds that the scoring took."""
    archs = problem.space.decode(proposal.genes)
    begun = time.perf_counter()
    scores = {objective.name: objective.score(archs) for objective in problem.expensive}
    spent = time.perf_counter() - begun
    rows += evaluated_rows(problem, proposal, archs, scores, len(rows) < num_wanted, _batch(rows, num_wanted))
    return spent


def _contenders(
    problem: Problem, history: History, rows: Sequence[Evaluated], slicing: Slicing, evaluations: int, seed: int
) -> list[int]:
    """Give the rows to score again in the next batch: none before the last evaluations, or where nothing can be."""
    left = evaluations - num_evaluations(rows)
    if not can_score_again(problem) or left > kept_for_contenders(evaluations) or not history.started:
        return []
    groups = slice_groups(rows, slicing)
    counts = np.array([row.num_evaluations for row in rows], dtype=np.int64)
    rng = np.random.default_rng([seed, num_evaluations(rows), 1])
    with threadpool_limits(1, user_api="blas"):
        return pick_again(problem, history, counts, groups, min(AGAIN_BATCH, left), rng)


def kept_for_contenders(evaluations: int) -> int:
    return round(AGAIN_FRACTION * evaluations)


def _left_for_new(problem: Problem, rows: Sequence[Evaluated], evaluations: int) -> int:
    """Count the evaluations that new archs may take; where contenders are not to be scored, or no more, all of them."""
    left = evaluations - num_evaluations(rows)
    kept = kept_for_contenders(evaluations) if can_score_again(problem) else 0
    return left - kept if left > kept else left


def slice_groups(rows: Sequence[Evaluated], slicing: Slicing) -> NDArray[np.int64]:
    """Say which slice each row that keeps the bounds is in, -1 of the others."""
    feasible = np.array([row.feasible for row in rows], dtype=np.bool_)
    if not slicing.cost:
        return np.where(feasible, 0, -1).astype(np.int64)
    cost = np.array([row.value(slicing.cost) for row in rows])
    return slice_numbers(cost, feasible, slices_of(cost, feasible, slicing))


def _score_again(problem: Problem, rows: list[Evaluated], repeated: Sequence[int]) -> float:
    """Score rows of `rows` again, in place, and give the seconds that the scoring took."""
    batch, archs = _last_batch(rows) + 1, [rows[i].arch for i in repeated]
    before = [rows[i].num_evaluations for i in repeated]
    begun = time.perf_counter()
    scores = {o.name: o.score(archs, before) for o in problem.expensive if o.again is not None}
    spent = time.perf_counter() - begun
    for place, (index, had) in enumerate(zip(repeated, before, strict=True)):
        values, errors = _scored_at(scores, place)
        row = rows[index]
        update = {
            "measured": merged(row.measured, values, had),
            "std_error": merged_std_error(row.std_error, errors, had),
            "again": (*row.again, batch),
        }
        rows[index] = row.model_copy(update=update)
    return spent


def _scored_at(scores: Mapping[str, Scored], place: int) -> tuple[dict[str, float], dict[str, float]]:
    """Give values and known standard errors of one arch, by objective."""
    values = {name: float(scored.values[place]) for name, scored in scores.items()}
    errors = {name: float(scored.std_error[place]) for name, scored in scores.items()}
    return values, {name: error for name, error in errors.items() if not np.isnan(error)}


def num_evaluations(rows: Sequence[Evaluated]) -> int:
    """Count evaluations, those of an arch again included."""
    return sum(row.num_evaluations for row in rows)


def _last_batch(rows: Sequence[Evaluated]) -> int:
    return max((batch for row in rows for batch in (row.batch, *row.again)), default=0)


def why_ended(problem: Problem, num_evaluated: int) -> str:
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
    return _last_batch(rows) + 1


def evaluated_rows(
    problem: Problem,
    proposal: Proposal,
    archs: Sequence[Arch],
    scores: Mapping[str, Scored],
    initial: bool,
    batch: int,
) -> list[Evaluated]:
    """Give a row for each scored arch: its scores, what was predicted of it, and whether it keeps the bounds."""
    cheap = problem.cheap(proposal.genes, archs)
    keeps = problem.feasible(cheap)
    rows = []
    for i, arch in enumerate(archs):
        predicted = {name: float(values[i]) for name, values in proposal.predicted.items()}
        predicted |= {name: float(values[i]) for name, values in cheap.items() if name not in COUNTS}
        values, errors = _scored_at(scores, i)
        rows.append(
            Evaluated(
                arch=arch,
                predicted=predicted,
                counted={name: float(cheap[name][i]) for name in COUNTS},
                measured=values,
                std_error=errors,
                feasible=bool(keeps[i]),
                initial=initial,
                batch=batch,
            )
        )
    return rows


def finished(
    problem: Problem, result: SearchResult, corner: Sequence[float | None], num_finalists: int
) -> SearchResult:
    """Find front, finalists and the hypervolume after every batch, all among archs that keep the bounds.

    The first finalists are the most accurate: by the posterior, and as scored.
    """
    history = history_of(problem, result.evaluated, corner)
    with threadpool_limits(1, user_api="blas"):
        known = posteriors(problem, history)
    allowed = np.flatnonzero(history.feasible)
    front = allowed[non_dominated(history.points[allowed])]
    best = _most_accurate(problem, history, known, allowed)
    pool = np.array(list(dict.fromkeys([*best, *front])), dtype=np.int64)
    picked, gains = choose_finalists(history.points[pool], history.reference, num_finalists, range(len(best)))
    again = [(batch, row) for row, one in enumerate(result.evaluated) for batch in one.again]
    trace = []
    for batch in sorted({*history.batches.tolist(), *(batch for batch, _ in again)}):
        rows = (history.batches <= batch) & history.feasible
        done = int((history.batches <= batch).sum()) + sum(one <= batch for one, _ in again)
        trace.append((done, hypervolume(history.points[rows], history.reference)))
    evaluated = tuple(
        row.model_copy(update={"posterior": _posterior_of(known, index)}) for index, row in enumerate(result.evaluated)
    )
    natural = {
        objective.name: float(objective.sign * value)
        for objective, value in zip(problem.objectives, history.reference, strict=True)
    }
    return result.model_copy(
        update={
            "evaluated": evaluated,
            "front": tuple(int(i) for i in front),
            "finalists": tuple(int(pool[i]) for i in picked),
            "finalist_gains": tuple(gains),
            "reference": natural,
            "hypervolume": tuple(trace),
        }
    )


def _most_accurate(
    problem: Problem, history: History, known: Mapping[str, tuple[Floats, Floats]], allowed: NDArray[np.int64]
) -> list[int]:
    """Give the best feasible rows of the first scored objective: by the posterior's mean, then as it was scored."""
    if not len(allowed):
        return []
    column, objective = next((i, o) for i, o in enumerate(problem.objectives) if not o.cheap)
    expected = objective.sign * known[objective.name][0][allowed]
    scored = history.points[allowed, column]
    return list(dict.fromkeys([int(allowed[np.argmin(expected)]), int(allowed[np.argmin(scored)])]))


def _posterior_of(known: Mapping[str, tuple[Floats, Floats]], index: int) -> dict[str, float]:
    means = {name: float(mean[index]) for name, (mean, _) in known.items()}
    return means | {f"{name}_std": float(std[index]) for name, (_, std) in known.items()}
