"""Where the head of a cluster saturates: a run of many tasks on 1,000 workers and 200 boards, by discrete events.

`python tests/benchmarks/cluster_simulation.py --journal WORKSPACE/journal.jsonl --overhead SECONDS`: what a task costs
the head, as `cluster_overhead.py` measures it. How long tasks take is drawn from those of a measured run, by kind; 2 %
are stragglers that take five times as long, and each worker or board dies at 1 % an hour: what it did begins anew
elsewhere, at most three times. The head starts and ends one task after the other. Each training is
followed by as many exports, quantizations and evaluations as in the measured run, and by one session on a board.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

STRAGGLERS, SLOWER, DEATHS_AN_HOUR, ATTEMPTS = 0.02, 5.0, 0.01, 3
# By the first word of a stage's title; `measure` holds a board.
TRAININGS, AFTER, SESSION = ("train", "distil"), ("export", "quantize", "evaluate"), "measure"
SHORTEST_S = 0.5  # the journal's times are whole seconds


def measured(journal: Path) -> dict[str, list[float]]:
    """Read how long the stages of a run took, by kind."""
    begun: dict[str, datetime] = {}
    found: dict[str, list[float]] = {kind: [] for kind in ("training", *AFTER, SESSION)}
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        now, word = datetime.fromisoformat(event["time"]), event["stage"].partition(" ")[0]
        if event["event"] == "start":
            begun[event["key"]] = now
        elif event["key"] in begun:
            kind = "training" if word in TRAININGS else word
            if kind in found:
                found[kind].append(max(SHORTEST_S, (now - begun[event["key"]]).total_seconds()))
    if missing := [kind for kind, seconds in found.items() if not seconds]:
        raise SystemExit(f"{journal} holds no finished {missing[0]}: name the journal of a run that has all kinds")
    return found


@dataclass
class Cluster:
    """Counts of a simulated run. All times in seconds."""

    workers: int
    boards: int
    overhead: float  # of the head a task: half when it starts, half when it ends
    rng: np.random.Generator
    now: float = 0.0
    head_free: float = 0.0
    head_busy: float = 0.0
    worked: float = 0.0  # by workers, boards apart
    done: int = 0
    repeated: int = 0
    lost: int = 0
    events: list[tuple[float, int, str, int, int, bool, float]] = field(default_factory=list)

    def run(self, trainings: int, times: Mapping[str, Sequence[float]]) -> None:
        """Do trainings, and what follows each, until nothing is left; `times` are drawn from, by kind."""
        free = {"board": self.boards, "worker": self.workers}
        waiting: dict[str, deque[tuple[str, int]]] = {"board": deque(), "worker": deque()}
        waiting["worker"].extend([("training", 1)] * trainings)
        number = 0
        while True:
            for place, queue in waiting.items():
                while queue and free[place]:
                    kind, attempt = queue.popleft()
                    free[place] -= 1
                    number += 1
                    seconds = self._seconds(times[kind])
                    dies = self.rng.exponential(3600 / DEATHS_AN_HOUR)
                    begun = self._by_head()
                    lasted = min(seconds, dies)
                    event = (begun + lasted, number, kind, attempt, place == "board", dies < seconds, lasted)
                    heapq.heappush(self.events, event)
            if not self.events:
                return
            self.now, _, kind, attempt, on_board, died, lasted = heapq.heappop(self.events)
            place = "board" if on_board else "worker"
            self.worked += 0.0 if on_board else lasted
            self.now = max(self.now, self._by_head())
            free[place] += 1  # another machine takes the place of one that died
            if died:
                self.repeated += 1
                if attempt < ATTEMPTS:
                    waiting[place].append((kind, attempt + 1))
                else:
                    self.lost += 1
                continue
            self.done += 1
            if kind == "training":
                for after in AFTER:
                    number_of = round(len(times[after]) / len(times["training"]))
                    waiting["worker"].extend([(after, 1)] * max(1, number_of))
                waiting["board"].append((SESSION, 1))

    def _seconds(self, times: Sequence[float]) -> float:
        seconds = float(self.rng.choice(times))
        return seconds * (SLOWER if self.rng.random() < STRAGGLERS else 1.0)

    def _by_head(self) -> float:
        """Let the head do half a task's overhead; gives when it is done."""
        self.head_free = max(self.head_free, self.now) + self.overhead / 2
        self.head_busy += self.overhead / 2
        return self.head_free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overhead", type=float, required=True, help="seconds of the head a task")
    parser.add_argument("--journal", type=Path, required=True, help="journal.jsonl of a finished run")
    parser.add_argument("--faster", type=float, nargs="+", default=[1, 10, 100], help="workers than the measured one")
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--boards", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    taken = measured(options.journal)
    print({kind: f"{len(seconds)}, median {np.median(seconds):.0f} s" for kind, seconds in taken.items()})
    print("| workers faster by | training s | workers | tasks | hours | head busy | workers busy | repeated | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for faster in options.faster:
        times = {kind: np.array(seconds) / (1 if kind == SESSION else faster) for kind, seconds in taken.items()}
        for workers in options.workers:
            cluster = Cluster(workers, options.boards, options.overhead, np.random.default_rng(options.seed))
            cluster.run(5 * workers, times)
            head, used = cluster.head_busy / cluster.now, cluster.worked / cluster.now / workers
            print(
                f"| {faster:g} | {np.median(times['training']):.0f} | {workers:,} | {cluster.done:,} | "
                f"{cluster.now / 3600:.2f} | {head:.1%} | {used:.0%} | {cluster.repeated} | {cluster.lost} |"
            )


if __name__ == "__main__":
    main()
