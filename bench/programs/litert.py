"""LiteRT's (TensorFlow Lite's) `benchmark_model`.

It prints a line of statistics after warming up and one after the runs that count, in microseconds: count, first, curr
(the last), min, max, avg, std, and in newer versions p5, median and p95. It prints no single inference.

With `--enable_op_profiling=true` it prints tables of operators as well (`tensorflow/core/util/stats_calculator.cc`),
columns apart by tabs: one of the initialization, which is not read, and one of the runs, in their order.
"""

from __future__ import annotations

import re

from tutelage.bench.layers.profilers import DELEGATE, litert_kernel
from tutelage.records import TurnReport

from .entry import BenchmarkProgram, ProfilesLayers, Reported, TimedLayer, Turn

_FIELD = re.compile(r"(\w+)=([-+.\deE]+)")
_OF_RUNS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_RUN_ORDER = "= Run Order ="
_TYPE, _NAME, _DELEGATED = "[node type]", "[Name]", "Delegate/"
_BRACKETS = re.compile(r"^\[(.*)\](:\d+)?$")
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


def parse_layers(printed: str, int8: bool) -> list[TimedLayer]:
    """Read the operators of the runs; those that XNNPACK ran stand among them, or in a table of their own.

    An operator that was not quantized in an int8 model is noted, as is one that XNNPACK left to the built-in kernels.
    """
    _, found, runs = printed.partition(_OF_RUNS)
    tables = [_table(part) for part in runs.split(_RUN_ORDER)[1:]]
    if not found or not tables or not tables[0]:
        raise ValueError(f"it printed no table after {_OF_RUNS!r}")
    rows, internal = tables[0], [row for table in tables[1:] for row in table if row[_NAME].startswith(_DELEGATED)]
    delegated = [row for row in rows if row[_NAME].startswith(_DELEGATED)] or internal
    if delegated:  # what stands for all of XNNPACK's operators would count them again
        whole = next((place for place, row in enumerate(rows) if DELEGATE.match(row[_TYPE])), len(rows))
        rows = [*rows[:whole], *internal, *rows[whole:]]
        rows = [row for row in rows if not DELEGATE.match(row[_TYPE])]
    layers = []
    for row in rows:
        by_xnnpack = row[_NAME].startswith(_DELEGATED)
        kernel, note = litert_kernel(row[_TYPE], by_xnnpack=by_xnnpack, int8=int8, beside_xnnpack=bool(delegated))
        ms = float(row["[avg ms]"]) * max(1.0, float(row["[times called]"]))
        name = _BRACKETS.sub(r"\1\2", row[_NAME].removeprefix(_DELEGATED))
        layers.append(TimedLayer(name, row[_TYPE], ms, kernel, note))
    return layers


def _table(part: str) -> list[dict[str, str]]:
    """Read a table by its header, up to the first empty line. Raises ValueError for a column that is missing."""
    lines = part.split("\n")[1:]
    cells = [[cell.strip() for cell in line.strip().split("\t")] for line in lines]
    header = cells[0] if cells else []
    missing = [name for name in (_TYPE, "[avg ms]", "[times called]", _NAME) if name not in header]
    if missing:
        raise ValueError(f"its table of operators has no column {missing[0]}")
    end = next((place for place, line in enumerate(lines) if not line.strip()), len(lines))
    return [dict(zip(header, row, strict=True)) for row in cells[1:end]]


BENCHMARK_MODEL = BenchmarkProgram(
    name="benchmark_model",
    precisions=("fp32", "int8"),
    arguments=arguments,
    parse=parse,
    reads=".tflite",
    layers=ProfilesLayers(("--enable_op_profiling=true",), parse_layers),
)
