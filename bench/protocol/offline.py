"""Offline throughput: images per second of a model at several batch sizes (`measure_throughput`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tutelage.bench.runtimes.registry import find_runtime
from tutelage.records import DeviceProfile, InputError

from .measure import WARM_SECONDS, Progress
from .remote import check_processor, check_reachable, launcher_of
from .worker import ModelFile, Reached, Runner, WorkerError, launch_local, start_workers, stop_workers

BATCHES = (1, 4, 16, 64)
ROUNDS = 5


def measure_throughput(
    model: Path,
    device: DeviceProfile,
    input_shape: tuple[int, int, int],
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    progress: Progress | None = None,
    seed: int = 0,
    launcher: Reached | None = None,
) -> dict[int, float]:
    """Measure images a second by batch size, input `(channels, height, width)` from memory, each for `seconds` or more.

    The batch sizes are interleaved in shuffled rounds, in one process; the result is all images over all their time.
    Sizes that the file does not take (its batch is fixed) are left out. Raises InputError where it takes none.
    """
    if not batches or min(batches) < 1:
        raise InputError(f"batch sizes {list(batches)}: give one or more, each 1 or larger")
    if launcher is None:
        with launcher_of(device) as reached:
            return measure_throughput(
                model, device, input_shape, batches=batches, seconds=seconds, progress=progress, seed=seed,
                launcher=reached,
            )  # fmt: skip
    check_reachable(device)
    local = launcher is launch_local
    find_runtime(device.runtime).check(device.precision, model, here=local)
    files = [ModelFile(str(model), (batch, *input_shape)) for batch in batches]
    workers = start_workers(
        [(device.runtime, files)],
        threads=device.threads,
        precision=device.precision,
        launcher=launcher,
    )
    try:
        check_processor(device, workers[0].cpu, "the machine reached for it")
        return take_turns(workers[0], model, batches, seconds, progress, np.random.default_rng(seed))
    except WorkerError as error:
        raise InputError(f"cannot measure {model.name}: {error}") from error
    finally:
        stop_workers(workers)


def take_turns(
    worker: Runner,
    model: Path,
    batches: Sequence[int],
    seconds: float,
    progress: Progress | None,
    rng: np.random.Generator,
) -> dict[int, float]:
    """Time each batch size that the file takes in shuffled rounds; images a second by batch size."""
    repeats: dict[int, int] = {}
    refusals: list[str] = []
    for index, batch in enumerate(batches):
        try:
            worker.ask({"do": "load", "model": index}, 120)
            typical = worker.ask({"do": "warm", "model": index, "seconds": WARM_SECONDS}, 120)["ms"]
        except WorkerError as error:
            refusals.append(f"batch {batch}: {error}")
            continue
        repeats[index] = max(1, math.ceil(seconds * 1000 / ROUNDS / typical))
    if not repeats:
        raise InputError(f"{model} takes none of the batch sizes {', '.join(map(str, batches))}: {refusals[0]}")
    spent_ms = dict.fromkeys(repeats, 0.0)
    for turn in range(ROUNDS):
        if progress:
            progress("throughput", turn, ROUNDS)
        for index in rng.permutation(list(repeats)).tolist():
            request = {"do": "time", "model": index, "settle": 1, "repeats": repeats[index]}
            spent_ms[index] += sum(worker.ask(request, max(60.0, 100 * seconds))["ms"])
    if progress:
        progress("throughput", ROUNDS, ROUNDS)
    return {batches[index]: batches[index] * ROUNDS * repeats[index] / spent_ms[index] * 1000 for index in repeats}
