"""The benches of searches run as programs, and one search's own time is watched by pytest-benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.search.loop import Objective, search
from tutelage.search.spaces.space import SPACES

PROGRAM = Path(__file__).with_name("search_strategies.py")


def test_the_program_prints_a_line_a_strategy(data_dir: Path) -> None:
    options = ["--seeds", "2", "--evaluations", "60", "--strategies", "random,nsga2", "--no-finder"]
    command = [sys.executable, str(PROGRAM), "--data", str(data_dir), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    lines = [line.split() for line in printed[-2:]]
    assert [line[0] for line in lines] == ["random", "nsga2"]
    assert all(0 < float(line[1]) < 1 for line in lines)


def test_the_comparison_prints_a_line_a_method_and_noise(data_dir: Path) -> None:
    pytest.importorskip("optuna")
    options = ["--seeds", "2", "--evaluations", "25", "--methods", "ours,nsga2", "--noise", "0,0.5"]
    command = [sys.executable, str(PROGRAM.with_name("search_comparison.py")), "--data", str(data_dir), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout.splitlines()
    rows = [line.split() for line in printed if line.startswith(("ours", "Optuna"))]
    assert [row[0] for row in rows] == ["ours", "Optuna"] * 2
    shares = [float(row[row.index("25") + 1]) for row in rows]
    assert all(0.3 < share <= 1 for share in shares)
    regrets = [float(row[row.index("25") + 3]) for row in rows]
    assert regrets[:2] == [0.0, 0.0]  # exact scores: the best score is the best


def test_default_search_own_time(benchmark: Any) -> None:
    goals = [Objective("error", "min", lambda archs: np.array([1 - sum(a.e) / 240 for a in archs]), cheap=False)]
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    result = benchmark.pedantic(
        search, args=(space, [*goals, Objective("macs")]), kwargs={"evaluations": 60, "seed": 0}, rounds=1
    )
    assert len(result.evaluated) == 60
