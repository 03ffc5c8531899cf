"""ExecuTorch's `executor_runner`, of a version that prints the time of its executions.

It prints the time of all executions together, the first one included: there is no warming up.
"""

from __future__ import annotations

import re

from tutelage.records import TurnReport

from .entry import BenchmarkProgram, Reported, Turn

_TIME = re.compile(r"Model executed successfully (\d+) time\(s\) in ([\d.]+) ms")


def arguments(turn: Turn) -> list[str]:
    """All executions count, so those that settle are added: the cold first one weighs less."""
    return [
        f"--model_path={turn.model}", f"--num_executions={turn.settle + turn.runs}", f"--cpu_threads={turn.threads}"
    ]  # fmt: skip


def parse(printed: str, turn: Turn) -> Reported:
    """Read the time of all executions."""
    found = _TIME.search(printed)
    if found is None:
        raise ValueError("it printed no 'Model executed successfully N time(s) in M ms': is it an older version?")
    runs, total = int(found[1]), float(found[2])
    return Reported(report=TurnReport(runs=runs, mean_ms=total / runs))


EXECUTOR_RUNNER = BenchmarkProgram(
    name="executor_runner", precisions=("fp32", "int8"), arguments=arguments, parse=parse, reads=".pte"
)
