"""Where the head of a cluster saturates: a run of many tasks on 1,000 workers and 200 boards, by discrete events.

`python tests/benchmarks/cluster_simulation.py --overhead SECONDS` (of the head, a task). Trainings are drawn log-normal
around their median, 2 % are stragglers that take five times as long, and each worker or board dies at 1 % an hour; what
it did begins anew elsewhere, at most three times. The head starts and ends one task after the other: it is a queue of
its own. Each training is followed by three short tasks and one session on a board.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

STRAGGLERS, SLOWER, DEATHS_AN_HOUR, ATTEMPTS = 0.02, 5.0, 0.01, 3


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
    worked: float = 0.0
    done: int = 0
    repeated: int = 0
    lost: int = 0
    events: list[tuple[float, int, str, int, int, bool, float]] = field(default_factory=list)

    def run(self, trainings: int, medians: dict[str, float], spread: float) -> None:
        """Do trainings, and what follows each, until nothing is left."""
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
                    seconds = self._seconds(medians[kind], spread)
                    dies = self.rng.exponential(3600 / DEATHS_AN_HOUR)
                    begun = self._by_head()
                    lasted = min(seconds, dies)
                    event = (begun + lasted, number, kind, attempt, place == "board", dies < seconds, lasted)
                    heapq.heappush(self.events, event)
            if not self.events:
                return
            self.now, _, kind, attempt, on_board, died, lasted = heapq.heappop(self.events)
            place = "board" if on_board else "worker"
            self.worked += lasted
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
                waiting["worker"].extend([("short", 1)] * 3)
                waiting["board"].append(("session", 1))

    def _seconds(self, median: float, spread: float) -> float:
        seconds = median * float(np.exp(spread * self.rng.standard_normal()))
        return seconds * (SLOWER if self.rng.random() < STRAGGLERS else 1.0)

    def _by_head(self) -> float:
        """Let the head do half a task's overhead; gives when it is done."""
        self.head_free = max(self.head_free, self.now) + self.overhead / 2
        self.head_busy += self.overhead / 2
        return self.head_free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overhead", type=float, required=True, help="seconds of the head a task")
    parser.add_argument("--training", type=float, nargs="+", default=[10, 60, 600, 3600], help="median seconds")
    parser.add_argument("--short", type=float, default=20.0, help="median seconds of export, int8, evaluation")
    parser.add_argument("--session", type=float, default=60.0, help="median seconds of a session on a board")
    parser.add_argument("--spread", type=float, default=0.3, help="of the logarithm of the times")
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--boards", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("training_s workers tasks hours head_busy workers_busy repeated lost")
    for training in options.training:
        for workers in options.workers:
            cluster = Cluster(workers, options.boards, options.overhead, np.random.default_rng(options.seed))
            medians = {"training": training, "short": options.short, "session": options.session}
            cluster.run(5 * workers, medians, options.spread)
            head, used = cluster.head_busy / cluster.now, cluster.worked / cluster.now / (workers + options.boards)
            print(
                f"{training:10.0f} {workers:7} {cluster.done:5} {cluster.now / 3600:5.2f} {head:9.1%} {used:12.1%} "
                f"{cluster.repeated:8} {cluster.lost:4}"
            )


if __name__ == "__main__":
    main()
