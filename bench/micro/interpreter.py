"""Run a .tflite file in TFLite Micro, by its Python package, and read what its memory report says.

`run_micro` gives outputs, `allocations` the report. The package's interpreter is TFLite Micro's own, with its reference
kernels, on this machine's 64-bit processor.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError, NotAvailableError

# The interpreter is given so much: what it takes of it is in the report. Files of this package take a few MB.
ARENA_BYTES = 256_000_000
_SECONDS = 300
_LINE = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
# The report goes to the C library's standard error, so it is read from a process of its own.
_REPORT = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
one = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
entry = one.get_input_details(0)
one.set_input(np.zeros(entry["shape"], entry["dtype"]), 0)
one.invoke()
one.print_allocations()
"""


@dataclass(frozen=True)
class Allocations:
    """Bytes of the arena as TFLite Micro reports them: `head` holds activations and scratch, `tail` what persists."""

    head: int
    tail: int
    total: int


def installed() -> bool:
    """Say whether the Python package of TFLite Micro is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def require() -> None:
    """Raise NotAvailableError with the command that installs TFLite Micro."""
    if not installed():
        raise NotAvailableError("TFLite Micro is not installed: pip install 'tutelage[micro]'")


def allocations(path: Path) -> Allocations:
    """Run a model once on zeros and read the recorded allocations. Raises InputError for one that it cannot run."""
    require()
    command = [sys.executable, "-c", _REPORT, str(path), str(ARENA_BYTES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} did not run in TFLite Micro within {_SECONDS} s: give a smaller network") from error
    found = {name: int(number) for name, number in _LINE.findall(done.stderr)}
    if done.returncode or len(found) != 3:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
        raise InputError(f"TFLite Micro cannot run {path}: {lines[0] if lines else 'no reason'}")
    return Allocations(**found)


def run_micro(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give outputs (n, classes) for images (n, h, w, c); a quantized file is given quantized images.

    Raises InputError for a file that TFLite Micro cannot run.
    """
    require()
    from tflite_micro.python.tflite_micro import runtime

    try:
        one = runtime.Interpreter.from_file(str(path), arena_size=ARENA_BYTES)
    except RuntimeError as error:
        raise InputError(f"TFLite Micro cannot run {path}: {error}") from error
    entry, leave = one.get_input_details(0), one.get_output_details(0)
    outputs = []
    for image in images:
        one.set_input(_quantized(image[None], entry), 0)
        one.invoke()
        outputs.append(_dequantized(one.get_output(0), leave)[0])
    return np.stack(outputs)


def _quantized(image: NDArray[np.float32], entry: dict[str, Any]) -> NDArray[Any]:
    if entry["dtype"] is np.float32:
        return np.ascontiguousarray(image, np.float32)
    scale, zero = (entry["quantization_parameters"][name][0] for name in ("scales", "zero_points"))
    limits = np.iinfo(entry["dtype"])
    found: NDArray[Any] = np.clip(np.round(image / scale + zero), limits.min, limits.max).astype(entry["dtype"])
    return found


def _dequantized(values: NDArray[Any], leave: dict[str, Any]) -> NDArray[np.float32]:
    if leave["dtype"] is np.float32:
        return values.copy()
    scale, zero = (leave["quantization_parameters"][name][0] for name in ("scales", "zero_points"))
    found: NDArray[np.float32] = ((values.astype(np.float32) - zero) * scale).astype(np.float32)
    return found
