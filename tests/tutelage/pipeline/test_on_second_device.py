"""Run `second_device_checks.py` in a process of its own: torch learns of a device before its first backward pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CHECKS = Path(__file__).with_name("second_device_checks.py")


def checked(marked: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", marked, str(CHECKS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_what_trains_scores_and_explains_stays_on_its_device() -> None:
    assert " passed" in checked("not long")


@pytest.mark.long
def test_the_stages_of_a_run_stay_on_their_device() -> None:
    assert " passed" in checked("long")
