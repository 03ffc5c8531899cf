"""Prepare what a training reads next in threads beside it: `ahead` gives the same items, in order, with any number."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")


@dataclass
class Spent:
    """Seconds that items took to prepare, summed over threads, and seconds that their reader waited for them."""

    num_items: int = 0
    prepare_s: float = 0.0
    wait_s: float = 0.0


def ahead(make: Callable[[int], Item], num: int, workers: int, spent: Spent | None = None) -> Iterator[Item]:
    """Yield make(0) ... make(num - 1) in order; `workers` threads prepare them, at most workers + 1 before their use.

    With 0 workers each is made when it is asked for. An error of `make` is raised at its item's turn. Threads and not
    processes: what is prepared lies in memory or in a memory map, and numpy and torch release Python's lock (GIL).
    """
    spent, lock = spent or Spent(), Lock()

    def timed(number: int) -> Item:
        began = time.perf_counter()
        item = make(number)
        with lock:
            spent.num_items += 1
            spent.prepare_s += time.perf_counter() - began
        return item

    if workers == 0:
        for number in range(num):
            began = time.perf_counter()
            item = timed(number)
            spent.wait_s += time.perf_counter() - began
            yield item
        return
    num_threads = torch.get_num_threads()
    # A thread an operation: several threads of ours share the cores with the training's own.
    pool = ThreadPoolExecutor(workers, "batches", initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting: deque[Future[Item]] = deque()
        for number in range(num):
            while len(waiting) <= workers and number + len(waiting) < num:
                waiting.append(pool.submit(timed, number + len(waiting)))
            began = time.perf_counter()
            item = waiting.popleft().result()
            spent.wait_s += time.perf_counter() - began
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)  # threads that start later take over what was set last
