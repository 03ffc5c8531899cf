"""ncnn's `benchncnn`, of a version that takes `param=` and `shape=`.

It prints min, max and avg of the loops in milliseconds with two digits after the point. It runs eight loops before
those on its own, fills the weights with constants instead of reading them, and computes in half precision where the
processor can.
"""

from __future__ import annotations

import re

from tutelage.records import TurnReport

from .entry import BenchmarkProgram, Reported, Turn

_TIMES = re.compile(r"min =\s*([\d.]+)\s+max =\s*([\d.]+)\s+avg =\s*([\d.]+)")
# It is a hundredth of a millisecond: what takes less cannot be distinguished from nothing.
_LEAST_MS = 0.01


def arguments(turn: Turn) -> list[str]:
    """Loops, threads, all cores (the pinning is taskset's), no GPU, no ten seconds of cooling down."""
    _, channels, height, width = turn.shape
    return [
        str(turn.runs), str(turn.threads), "0", "-1", "0", f"param={turn.model}",
        f"shape=[{width},{height},{channels}]",
    ]  # fmt: skip


def parse(printed: str, turn: Turn) -> Reported:
    """Read the one line of times."""
    found = _TIMES.findall(printed)
    if len(found) != 1:
        raise ValueError(f"it printed {len(found)} lines of min, max and avg: is it a version that takes param= ?")
    low, high, mean = (float(value) for value in found[0])
    if mean < _LEAST_MS:
        raise ValueError("it printed 0.00 ms: it cannot time a network as small as this one")
    return Reported(
        report=TurnReport(runs=turn.runs, mean_ms=mean, min_ms=max(low, _LEAST_MS), max_ms=max(high, _LEAST_MS))
    )


BENCHNCNN = BenchmarkProgram(name="benchncnn", precisions=("fp16",), arguments=arguments, parse=parse, reads=".param")
