"""Run the checks on a second device in processes of their own: torch learns of one before its first backward pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def checked(file: str, marked: str) -> str:
    # Without conftest.py: it imports what these checks do not need.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--noconftest", "-m", marked]
    command.append(str(Path(__file__).with_name(file)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_training_and_validation_stay_on_their_device() -> None:
    assert "2 passed" in checked("second_device_quick_checks.py", "not long")


@pytest.mark.long
def test_all_that_trains_scores_and_explains_stays_on_its_device() -> None:
    assert "1 passed" in checked("second_device_quick_checks.py", "long")
    assert " passed" in checked("second_device_checks.py", "not gpu")
