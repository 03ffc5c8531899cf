"""A search that asks for evaluations one by one and takes each result as it comes: `search_in_parallel`.

No batch is waited for: while `slots` evaluations are going on, a free slot takes the next architecture of the last
proposal, and where that is used up the strategy proposes anew from all that is known by then. Architectures that are
going on count as evaluated, with the median score. What is asked depends on the order of the replies and on nothing
else: a search records that order (`SearchResult.order`), and replayed in it, comes to the same result.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from tutelage.files import write_text
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
from .result import Evaluated, SearchResult

# By objective: the value and its standard error (NaN: unknown).
Reply = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation that is asked for. before: evaluations that the arch had, where it is scored again; else None."""

    number: int
    arch: Arch
    before: int | None = None


class Scorer(Protocol):
    """What evaluates, here or elsewhere, several at a time."""

    def submit(self, evaluation: Evaluation) -> None:
        """Begin an evaluation."""

    def next(self) -> tuple[int, Reply]:
        """Wait for one that ends; gives its number and what it came to."""
        ...


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
    order: Sequence[int] = (),
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

    scorer: default: this process, one after the other. order: of an earlier result, which is replayed. record: a file
    of the replies, from which an interrupted search goes on. Raises InputError for an order or a record of another
    search, InfeasibleBudgetError before anything is scored.
    """
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
    blank = blank.model_copy(update={"settings": {**blank.settings, "parallel": slots}})
    going = _Search(problem, blank, wanted, slicing)
    replies: Scorer = scorer or InTurn(problem.objectives)
    if record is not None:
        replies = _Recorded(replies, record, _identity(blank))
    if order:
        replies = _InOrder(replies, order)
    begun, waited = time.perf_counter(), 0.0
    while going.ask(slots, replies):
        since = time.perf_counter()
        number, reply = replies.next()
        waited += time.perf_counter() - since
        going.tell(number, reply)
        if progress is not None:
            progress(min(len(going.order), evaluations), evaluations)
    ended = {} if going.num_asked >= evaluations else {"ended": reason_of_end(problem, len(going.rows))}
    result = blank.model_copy(update={"evaluated": tuple(going.rows), "order": tuple(going.order), **ended})
    done = finished(problem, result, going.corner, num_finalists)
    times = {"search_seconds": time.perf_counter() - begun - waited, "scoring_seconds": waited}
    return done.model_copy(update=times)


class _Search:
    """What was asked and what came back so far."""

    def __init__(self, problem: Problem, blank: SearchResult, wanted: Genes, slicing: Slicing) -> None:
        self._problem, self._blank, self._wanted, self._slicing = problem, blank, wanted, slicing
        self.corner: list[float | None] = [None] * len(problem.objectives)
        self.rows: list[Evaluated] = []
        self.order: list[int] = []
        self.num_asked = 0
        self._queue: deque[_Asked] = deque()
        self._going: dict[int, _Asked] = {}
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

    def tell(self, number: int, reply: Reply) -> None:
        """Take what an evaluation came to."""
        one = self._going.pop(number)
        self.order.append(number)
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
        """Give the new archs that are going on as if they had the median score."""
        going = [one for one in self._going.values() if one.row is None]
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
        going = {one.row for one in self._going.values()}
        groups = slice_groups(self.rows, self._slicing)
        groups = np.where([index in going for index in range(len(groups))], -1, groups)
        counts = np.array([row.num_evaluations for row in self.rows], dtype=np.int64)
        rng = np.random.default_rng([self._blank.seed, self.num_asked, 1])
        with threadpool_limits(1, user_api="blas"):
            return pick_again(self._problem, history, counts, groups, min(AGAIN_BATCH, left), rng)


class _InOrder:
    """Gives replies in the order of an earlier search, whenever they come."""

    def __init__(self, scorer: Scorer, order: Sequence[int]) -> None:
        self._scorer, self._order = scorer, deque(order)
        self._asked: set[int] = set()
        self._early: dict[int, Reply] = {}

    def submit(self, evaluation: Evaluation) -> None:
        self._asked.add(evaluation.number)
        self._scorer.submit(evaluation)

    def next(self) -> tuple[int, Reply]:
        if not self._order:
            return self._scorer.next()
        number = self._order.popleft()
        if number not in self._asked:
            raise InputError(f"the order is of another search: it has evaluation {number}, which was not asked here")
        while number not in self._early:
            came, reply = self._scorer.next()
            self._early[came] = reply
        return number, self._early.pop(number)


class _Recorded:
    """Gives the replies that a file holds, then those of a scorer, which it writes down."""

    def __init__(self, scorer: Scorer, path: Path, identity: str) -> None:
        self._scorer, self._path = scorer, path
        self._left: deque[tuple[int, str, Reply]] = deque()
        lines = path.read_text().splitlines() if path.is_file() else []
        if not lines:
            write_text(path, identity + "\n")
        elif lines[0] != identity:
            raise InputError(f"{path} is of another search: remove it or name another file")
        kept = [_line(line) for line in lines[1:]]
        if kept and kept[-1] is None:  # torn by a kill
            kept.pop()
            write_text(path, "".join(f"{line}\n" for line in lines[: len(kept) + 1]))
        for one in kept:
            if one is None:
                raise InputError(f"{path} is damaged: remove it, and the search begins anew")
            self._left.append(one)
        self._archs = {number: arch for number, arch, _ in self._left}

    def submit(self, evaluation: Evaluation) -> None:
        known = self._archs.get(evaluation.number)
        if known is None:
            self._archs[evaluation.number] = evaluation.arch.id
            self._scorer.submit(evaluation)
        elif known != evaluation.arch.id:
            raise InputError(f"{self._path} is of another search: remove it, and the search begins anew")

    def next(self) -> tuple[int, Reply]:
        if self._left:
            number, _, reply = self._left.popleft()
            return number, reply
        number, reply = self._scorer.next()
        known = {name: [value] if np.isnan(error) else [value, error] for name, (value, error) in reply.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"number": number, "arch": self._archs[number], "reply": known}) + "\n")
        return number, reply


def _line(text: str) -> tuple[int, str, Reply] | None:
    try:
        one = json.loads(text)
        reply = {name: (pair[0], pair[1] if len(pair) > 1 else np.nan) for name, pair in one["reply"].items()}
        return one["number"], one["arch"], reply
    except (ValueError, LookupError, TypeError):
        return None


def _identity(blank: SearchResult) -> str:
    names = ("format", "space", "strategy", "seed", "evaluations", "objectives", "cheap", "bounds", "settings")
    return json.dumps({name: getattr(blank, name) for name in names}, sort_keys=True)
