"""A search that asks for evaluations one by one and takes each result as it comes: `search_in_parallel`.

No batch is waited for: while `slots` evaluations are going on, a free slot takes the next architecture of the last
proposal, and where that is used up the strategy proposes anew from all that is known by then. Architectures that are
going on count as evaluated, with the median score. What is asked depends on the order of the replies and on nothing
else: a search records that order (`SearchResult.order`), and replayed in it, comes to the same result.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tutelage.records import Arch, InputError
from tutelage.search.samplers.draws import new_rows
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.samplers.strategy import Proposal
from tutelage.search.spaces.space import Genes, Space, find_space

from .contenders import AGAIN_BATCH, can_score_again, merged, merged_std_error, pick_again
from .encoding import Floats
from .family import Slicing
from .loop import blank_result, evaluated_rows, finished, history_of, kept_for_contenders, next_proposal, slice_groups
from .loop import why_ended as reason_of_end
from .objectives import Objective, Problem, Scored
from .replies import (
    Evaluation,
    Failed,
    InOrder,
    Recorded,
    Reply,
    Scorer,
    check_replayed,
    identity_of,
    most_failed,
)
from .result import Evaluated, SearchResult

log = logging.getLogger(__name__)


class InTurn:
    """Evaluates in this process, in the order of asking."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._asked: deque[Evaluation] = deque()

    def submit(self, evaluation: Evaluation) -> None:
        self._asked.append(evaluation)

    def next(self) -> tuple[int, Reply]:
        one = self._asked.popleft()
        return one.number, evaluate(self._objectives, one)


def evaluate(objectives: Sequence[Objective], one: Evaluation) -> Reply:
    """Score one arch by the objectives that are not cheap."""
    before = None if one.before is None else [one.before]
    wanted = [o for o in objectives if not o.cheap and (before is None or o.again is not None)]
    scored = {o.name: o.score([one.arch], before) for o in wanted}
    return {name: (float(scores.values[0]), float(scores.std_error[0])) for name, scores in scored.items()}


@dataclass(frozen=True)
class _Asked:
    evaluation: Evaluation
    genes: Genes  # (1, num_genes)
    predicted: Mapping[str, Floats]  # (1,) each
    batch: int
    initial: bool = False
    row: int | None = None  # that is scored again


def search_in_parallel(
    space: Space | str,
    objectives: Sequence[Objective],
    bounds: Mapping[str, float] | None = None,
    *,
    slots: int,
    scorer: Scorer | None = None,
    replay: SearchResult | None = None,
    record: Path | None = None,
    strategy: str = "default",
    evaluations: int,
    seed: int = 0,
    initial: Sequence[Arch] = (),
    num_classes: int = 1000,
    in_channels: int = 3,
    progress: Callable[[int, int], None] | None = None,
    num_finalists: int = 4,
    slicing: Slicing | None = None,
) -> SearchResult:
    """Search as `loop.search` does, with `slots` evaluations going on; the result depends on the order of replies.

    scorer: default: this process, one after the other. replay: an earlier result, whose order is taken, and whose
    evaluations that failed are left out here, too. record: a file of the replies, from which an interrupted search goes
    on. Raises InputError for a result or a record of another search, and where too many evaluations failed;
    InfeasibleBudgetError before anything is scored.
    """
    slicing = slicing or Slicing()
    problem, blank, wanted = _begun(
        space, objectives, bounds, slots=slots, strategy=strategy, evaluations=evaluations, seed=seed, initial=initial,
        num_classes=num_classes, in_channels=in_channels, num_finalists=num_finalists, slicing=slicing,
    )  # fmt: skip
    going = _Search(problem, blank, wanted, slicing)
    replies: Scorer = scorer or InTurn(problem.objectives)
    if record is not None:
        replies = Recorded(replies, record, identity_of(blank), most_failed(evaluations))
    if replay is not None:
        check_replayed(replay, blank)
        replies = InOrder(replies, replay.order, replay.failed)
    begun, waited = time.perf_counter(), 0.0
    while going.ask(slots, replies):
        since = time.perf_counter()
        number, reply = replies.next()
        waited += time.perf_counter() - since
        going.tell(number, reply)
        going.check_failed()
        if progress is not None:
            progress(min(len(going.order), evaluations), evaluations)
    ended = {} if going.num_asked >= evaluations else {"ended": reason_of_end(problem, len(going.rows))}
    found = {"evaluated": tuple(going.rows), "order": tuple(going.order), "failed": going.failed}
    result = blank.model_copy(update={**found, **ended})
    if replay is not None and [row.arch for row in result.evaluated] != [row.arch for row in replay.evaluated]:
        log.warning(
            "the replayed search came to other architectures than its file holds: scores differ, as they may with "
            "other libraries or on another processor"
        )
    done = finished(problem, result, going.corner, num_finalists)
    times = {"search_seconds": time.perf_counter() - begun - waited, "scoring_seconds": waited}
    return done.model_copy(update=times)


def check_replay(
    replay: SearchResult,
    space: Space | str,
    objectives: Sequence[Objective],
    bounds: Mapping[str, float] | None = None,
    **settings: Any,
) -> None:
    """Refuse an earlier result that `search_in_parallel` could not replay with these arguments (InputError)."""
    _, blank, _ = _begun(space, objectives, bounds, **settings)
    check_replayed(replay, blank)


def _begun(
    space: Space | str,
    objectives: Sequence[Objective],
    bounds: Mapping[str, float] | None,
    *,
    slots: int,
    strategy: str = "default",
    evaluations: int,
    seed: int = 0,
    initial: Sequence[Arch] = (),
    num_classes: int = 1000,
    in_channels: int = 3,
    num_finalists: int = 4,
    slicing: Slicing | None = None,
) -> tuple[Problem, SearchResult, Genes]:
    """Give the problem, the result that has nothing yet, and the genes of `initial`, each once."""
    space = find_space(space) if isinstance(space, str) else space
    STRATEGIES.find(strategy).check()
    if evaluations < 1 or slots < 1:
        raise InputError(f"evaluations = {evaluations}, slots = {slots}: give at least 1 of each")
    problem = Problem(space, tuple(objectives), dict(bounds or {}), num_classes, in_channels)
    problem.check_bounds()
    wanted = space.encode(list(initial)) if initial else np.zeros((0, space.num_genes), dtype=np.int64)
    wanted = wanted[new_rows(wanted, wanted[:0])]
    slicing = slicing or Slicing()
    blank = blank_result(problem, strategy, evaluations, seed, wanted, num_finalists, None, slicing)
    return problem, blank.model_copy(update={"settings": {**blank.settings, "parallel": slots}}), wanted


class _Search:
    """What was asked and what came back so far."""

    def __init__(self, problem: Problem, blank: SearchResult, wanted: Genes, slicing: Slicing) -> None:
        self._problem, self._blank, self._wanted, self._slicing = problem, blank, wanted, slicing
        self.corner: list[float | None] = [None] * len(problem.objectives)
        self.rows: list[Evaluated] = []
        self.order: list[int] = []
        self.num_asked = 0
        self.failed: dict[int, str] = {}  # reasons by number
        self._queue: deque[_Asked] = deque()
        self._going: dict[int, _Asked] = {}
        self._given_up: list[_Asked] = []
        self._batch = 0
        self._exhausted = False

    def ask(self, slots: int, scorer: Scorer) -> bool:
        """Fill the slots; says whether anything is going on."""
        while len(self._going) < slots and self.num_asked < self._blank.evaluations:
            if not self._queue:
                self._propose()
            if not self._queue:
                break
            one = self._queue.popleft()
            self._going[one.evaluation.number] = one
            self.num_asked += 1
            scorer.submit(one.evaluation)
        return bool(self._going)

    def tell(self, number: int, reply: Reply | Failed) -> None:
        """Take what an evaluation came to."""
        one = self._going.pop(number)
        self.order.append(number)
        if isinstance(reply, Failed):
            self.failed[number] = reply.reason
            self._given_up.append(one)
            return
        if one.row is None:
            scores = {name: Scored(np.array([value]), np.array([error])) for name, (value, error) in reply.items()}
            proposal = Proposal(one.genes, one.predicted)
            archs = [one.evaluation.arch]
            self.rows += evaluated_rows(self._problem, proposal, archs, scores, one.initial, one.batch)
            return
        row, had = self.rows[one.row], one.evaluation.before
        assert had is not None
        values = {name: value for name, (value, _) in reply.items()}
        errors = {name: error for name, (_, error) in reply.items() if not np.isnan(error)}
        update = {
            "measured": merged(row.measured, values, had),
            "std_error": merged_std_error(row.std_error, errors, had),
            "again": (*row.again, one.batch),
        }
        self.rows[one.row] = row.model_copy(update=update)

    def check_failed(self) -> None:
        """Raise InputError where so many evaluations failed that it is no accident of one architecture."""
        none_came = not self.rows and len(self.order) == self.num_asked
        if self.failed and (none_came or len(self.failed) > most_failed(self._blank.evaluations)):
            raise InputError(
                f"{len(self.failed)} of {len(self.order)} evaluations failed, the last one: "
                f"{list(self.failed.values())[-1]}: mend it, and the same command goes on where it was"
            )

    def _propose(self) -> None:
        """Queue what comes next, from what is known now; nothing where replies must be waited for, or no more is."""
        if self._exhausted or (self.num_asked and not self.rows):
            return
        again = self._contenders()
        if again:
            self._batch += 1
            for index in again:
                arch, had = self.rows[index].arch, self.rows[index].num_evaluations
                genes = self._problem.space.encode([arch])
                self._add(arch, genes, {}, row=index, before=had)
            return
        left = self._blank.evaluations - self.num_asked
        kept = kept_for_contenders(self._blank.evaluations) if can_score_again(self._problem) else 0
        history = history_of(self._problem, [*self.rows, *self._assumed()], self.corner)
        before = len(history.genes)
        proposal = next_proposal(
            self._problem, history, self._wanted, self._blank.strategy, left - kept if left > kept else left,
            self._blank.seed,
        )  # fmt: skip
        self._exhausted = not len(proposal.genes)
        initial = before < len(self._wanted)
        self._batch += not initial
        for place, arch in enumerate(self._problem.space.decode(proposal.genes)):
            predicted = {name: values[place : place + 1] for name, values in proposal.predicted.items()}
            self._add(arch, proposal.genes[place : place + 1], predicted, initial=initial)

    def _add(
        self,
        arch: Arch,
        genes: Genes,
        predicted: Mapping[str, Floats],
        *,
        initial: bool = False,
        row: int | None = None,
        before: int | None = None,
    ) -> None:
        evaluation = Evaluation(self.num_asked + len(self._queue), arch, before)
        self._queue.append(_Asked(evaluation, genes, predicted, self._batch, initial, row))

    def _assumed(self) -> list[Evaluated]:
        """Give the new archs that are going on or failed as if they had the median score."""
        going = [one for one in (*self._going.values(), *self._given_up) if one.row is None]
        if not going:
            return []
        names = [one.name for one in self._problem.expensive]
        median = {name: float(np.median([row.measured[name] for row in self.rows])) for name in names}
        scores = {name: Scored(np.array([value]), np.array([np.nan])) for name, value in median.items()}
        rows: list[Evaluated] = []
        for one in going:
            proposal = Proposal(one.genes, one.predicted)
            archs = [one.evaluation.arch]
            rows += evaluated_rows(self._problem, proposal, archs, scores, one.initial, one.batch)
        return rows

    def _contenders(self) -> list[int]:
        """Give the rows to score again next, none of which is going on; see `loop.search`."""
        left, total = self._blank.evaluations - self.num_asked, self._blank.evaluations
        history = history_of(self._problem, self.rows, self.corner)
        if not can_score_again(self._problem) or left > kept_for_contenders(total) or not history.started:
            return []
        going = {one.row for one in (*self._going.values(), *self._given_up)}
        groups = slice_groups(self.rows, self._slicing)
        groups = np.where([index in going for index in range(len(groups))], -1, groups)
        counts = np.array([row.num_evaluations for row in self.rows], dtype=np.int64)
        rng = np.random.default_rng([self._blank.seed, self.num_asked, 1])
        with threadpool_limits(1, user_api="blas"):
            return pick_again(self._problem, history, counts, groups, min(AGAIN_BATCH, left), rng)
