"""What an inference takes of energy, above the idle device, by the counter of the machine that runs the model.

`measure_energy` asks the runners of a session, which read it (`bench/runtimes/energy.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Counters step every millisecond or so and count the whole package: a model must be busy for much longer.
ENERGY_SECONDS = 1.0

Asked = dict[str, Any]


@dataclass(frozen=True)
class Energy:
    """Millijoules of an inference of each model, None where it takes no more than idling or there is no counter."""

    mj: tuple[float | None, ...]
    method: str = ""
    missing: str = ""  # what the machine lacks of a counter


def net_millijoules(total_mj: float, seconds: float, idle_mw: float) -> float | None:
    """Take off what the idle device takes in the same time; None where nothing is left."""
    net = total_mj - idle_mw * seconds
    return net if net > 0 else None


def measure_energy(
    typical_ms: Sequence[float],
    settle: Callable[[float], int],
    resting: Callable[[Asked], Asked],
    busy: Callable[[int, int], Asked],
) -> Energy:
    """Let each model be busy for a stretch of its own, after one in which nothing runs.

    `settle` gives a turn's uncounted inferences by its model's typical time; `resting` asks a runner while all others
    sleep; `busy` has a model run so many inferences, with the counter read before and after.
    """
    found = resting({"do": "meter"})
    if "missing" in found:
        return Energy((None,) * len(typical_ms), missing=found["missing"])
    idle = resting({"do": "idle", "seconds": ENERGY_SECONDS})
    each: list[float | None] = []
    for index, typical in enumerate(typical_ms):
        repeats = max(10, math.ceil(ENERGY_SECONDS * 1000 / typical))
        work = busy(index, repeats)
        net = net_millijoules(work["mj"], work["seconds"], idle["mj"] / idle["seconds"])
        # The interval includes the settling inferences, which are as much work as the others.
        each.append(None if net is None else net / (settle(typical) + repeats))
    return Energy(tuple(each), found["method"])
