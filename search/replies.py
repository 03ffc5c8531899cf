"""What the evaluations of a search that asks for several at a time come to: recorded, resumed and replayed.

`Recorded` writes replies to a file, from which an interrupted search goes on; `InOrder` gives them in the order of an
earlier search.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tutelage.files import write_text
from tutelage.records import Arch, InputError

from .result import SearchResult

# So many evaluations may always fail; of many, a tenth.
_SPARED = 2

# By objective: the value and its standard error (NaN: unknown).
Reply = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Failed:
    """Stands for the reply of an evaluation that was tried and given up."""

    reason: str


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

    def next(self) -> tuple[int, Reply | Failed]:
        """Wait for one that ends; gives its number and what it came to."""
        ...


class InOrder:
    """Gives replies in the order of an earlier search, whenever they come; what failed there fails."""

    def __init__(self, scorer: Scorer, order: Sequence[int], failed: Mapping[int, str]) -> None:
        self._scorer, self._order, self._failed = scorer, deque(order), failed
        self._asked: set[int] = set()
        self._early: dict[int, Reply | Failed] = {}

    def submit(self, evaluation: Evaluation) -> None:
        self._asked.add(evaluation.number)
        if evaluation.number in self._failed:
            self._early[evaluation.number] = Failed(self._failed[evaluation.number])
        else:
            self._scorer.submit(evaluation)

    def next(self) -> tuple[int, Reply | Failed]:
        number = self._order.popleft() if self._order else None
        if number is None or number not in self._asked:
            raise InputError(
                "the replayed search went on otherwise than its file says: it is of other networks or images"
            )
        while number not in self._early:
            came, reply = self._scorer.next()
            self._early[came] = reply
        return number, self._early.pop(number)


class Recorded:
    """Gives the replies that a file holds, then those of a scorer, which it writes down."""

    def __init__(self, scorer: Scorer, path: Path, identity: str, may_fail: int) -> None:
        self._scorer, self._path = scorer, path
        lines = path.read_text().splitlines() if path.is_file() else []
        if not lines:
            write_text(path, identity + "\n")
        elif lines[0] != identity:
            raise InputError(f"{path} is of another search: remove it or name another file")
        read = [_line(line) for line in lines[1:]]
        if read and read[-1] is None:  # torn by a kill
            read.pop()
        kept = [one for one in read if one is not None]
        if len(kept) < len(read):
            raise InputError(f"{path} is damaged: remove it, and the search begins anew")
        failed = [place for place, (_, _, reply) in enumerate(kept) if isinstance(reply, Failed)]
        if failed and (len(failed) > may_fail or len(failed) == len(kept)):  # it ended for them: they are tried again
            kept = kept[: failed[0]]
        if len(kept) + 1 < len(lines):
            write_text(path, "".join(f"{line}\n" for line in lines[: len(kept) + 1]))
        self._left = deque(kept)
        self._archs = {number: arch for number, arch, _ in self._left}

    def submit(self, evaluation: Evaluation) -> None:
        known = self._archs.get(evaluation.number)
        if known is None:
            self._archs[evaluation.number] = evaluation.arch.id
            self._scorer.submit(evaluation)
        elif known != evaluation.arch.id:
            raise InputError(f"{self._path} is of another search: remove it, and the search begins anew")

    def next(self) -> tuple[int, Reply | Failed]:
        if self._left:
            number, _, reply = self._left.popleft()
            return number, reply
        number, reply = self._scorer.next()
        line: dict[str, Any] = {"number": number, "arch": self._archs[number]}
        if isinstance(reply, Failed):
            line["failed"] = reply.reason
        else:
            pairs = reply.items()
            line["reply"] = {name: [value] if np.isnan(error) else [value, error] for name, (value, error) in pairs}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return number, reply


def _line(text: str) -> tuple[int, str, Reply | Failed] | None:
    try:
        one = json.loads(text)
        if "failed" in one:
            return one["number"], one["arch"], Failed(one["failed"])
        reply = {name: (pair[0], pair[1] if len(pair) > 1 else np.nan) for name, pair in one["reply"].items()}
        return one["number"], one["arch"], reply
    except (ValueError, LookupError, TypeError):
        return None


_NAMES = ("format", "space", "strategy", "seed", "evaluations", "objectives", "cheap", "bounds", "settings")


def identity_of(blank: SearchResult) -> str:
    """Give what a record is of."""
    return json.dumps({name: getattr(blank, name) for name in _NAMES}, sort_keys=True)


def check_replayed(replay: SearchResult, blank: SearchResult) -> None:
    """Refuse to replay a search of something else, or one that holds no order."""
    if not replay.order:
        raise InputError("the replayed search holds no order: it is not of several evaluations at once")
    then, now = (one.pop("settings") | one for one in map(json.loads, map(identity_of, (replay, blank))))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise InputError(f"the replayed search has {name} {then.get(name)}, this one has {now.get(name)}")


def most_failed(evaluations: int) -> int:
    """Give how many evaluations may fail."""
    return max(_SPARED, evaluations // 10)
