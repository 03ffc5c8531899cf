"""ONNX Runtime's `onnxruntime_perf_test`.

It appends a line for each inference to a result file: the model, seconds, peak memory in bytes, processor usage, the
number of the run. One run before those does not count.
"""

from __future__ import annotations

import re

from .entry import BenchmarkProgram, Reported, Turn

_LINE = re.compile(r"^[^,\n]*,([\d.eE+-]+),(\d+),-?\d+,(\d+)\s*$", re.M)
_LOAD = re.compile(r"Session creation time cost:\s*([\d.eE+-]+) s")


def arguments(turn: Turn) -> list[str]:
    """Generate the input, one session thread, no thread that spins; runs that settle are the first of all."""
    return [
        "-I", "-m", "times", "-r", str(turn.settle + turn.runs), "-x", str(turn.threads), "-y", "1", "-D", "-e", "cpu",
        turn.model, turn.result,
    ]  # fmt: skip


def parse(printed: str, turn: Turn) -> Reported:
    """Read each run's seconds."""
    lines = _LINE.findall(printed)
    if len(lines) != turn.settle + turn.runs:
        raise ValueError(f"its result file holds {len(lines)} runs instead of {turn.settle + turn.runs}")
    samples = [float(seconds) * 1000 for seconds, _, _ in lines]
    load = _LOAD.search(printed)
    return Reported(
        samples_ms=tuple(samples[turn.settle :]),
        load_ms=float(load[1]) * 1000 if load else None,
        peak_bytes=max(int(peak) for _, peak, _ in lines) or None,
    )


PERF_TEST = BenchmarkProgram(
    name="onnxruntime_perf_test",
    precisions=("fp32", "int8"),
    arguments=arguments,
    parse=parse,
    reads=".onnx",
    writes_result=True,
)
