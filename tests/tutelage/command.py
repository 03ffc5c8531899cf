"""Call the command line as a user does, and expect its one line for bad input."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def tutelage(*arguments: str) -> Done:
    """Call the very entry point of the command, in this process: importing torch anew for each call takes seconds."""
    from tutelage.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["tutelage", *arguments]):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def assert_exit(done: Done, code: int, *words: str) -> None:
    """Expect an exit code and one line, no traceback, that holds the words."""
    assert done.returncode == code, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("tutelage: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]


def image_folder(root: Path, classes: tuple[str, ...] = ("a", "b"), num: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(num):
            Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(root / name / f"{name}{i}.png")
    return root
