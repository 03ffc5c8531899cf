"""LiteRT's (TensorFlow Lite's) `benchmark_model`.

It prints a line of statistics after warming up and one after the runs that count, in microseconds: count, first, curr
(the last), min, max, avg, std, and in newer versions p5, median and p95. It prints no single inference.
"""

from __future__ import annotations

import re

from tutelage.records import TurnReport

from .entry import BenchmarkProgram, Reported, Turn

_FIELD = re.compile(r"(\w+)=([-+.\deE]+)")
_INIT = re.compile(r"Inference timings in us: Init: ([-+.\deE]+)")


def arguments(turn: Turn) -> list[str]:
    """Say the runs that count and those that do not, by number alone: by default it also runs for given seconds."""
    return [
        f"--graph={turn.model}", f"--num_threads={turn.threads}", "--use_xnnpack=true",
        f"--warmup_runs={turn.settle}", "--warmup_min_secs=0", f"--num_runs={turn.runs}", "--min_secs=0",
    ]  # fmt: skip


def parse(printed: str, turn: Turn) -> Reported:
    """Read the last line of statistics."""
    lines = [dict(_FIELD.findall(line)) for line in printed.splitlines() if "count=" in line]
    timed = [{name: float(value) for name, value in line.items()} for line in lines if "avg" in line or "curr" in line]
    if not timed:
        raise ValueError("it printed no line of count=, avg=")
    last = timed[-1]
    runs = int(last["count"])
    if runs != turn.runs:
        raise ValueError(f"it timed {runs} inferences instead of {turn.runs}")
    mean = last.get("avg", last.get("curr", 0.0)) / 1000  # of a single run it prints no statistics
    more = {f"{name}_ms": last[name] / 1000 for name in ("median", "min", "max") if name in last}
    report = TurnReport(runs=runs, mean_ms=mean, **more)
    init = _INIT.search(printed)
    # Of memory it prints what it grew by, and that is no peak of the process.
    return Reported(report=report, load_ms=float(init[1]) / 1000 if init else None)


BENCHMARK_MODEL = BenchmarkProgram(
    name="benchmark_model",
    precisions=("fp32", "int8"),
    arguments=arguments,
    parse=parse,
    reads=".tflite",
)
