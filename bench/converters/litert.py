"""ONNX to LiteRT: the converter's own environment, made on demand, and int8 by Google's quantizer in this one.

The converter (onnx2tf) pins every package it uses to one version, so it lives in a virtual environment in the user's
cache folder and is called as a process. The quantizer is light and comes with `tutelage[litert]`, like the runtime.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.protocol.host import thread_environment
from tutelage.files import home_folder, whole_file
from tutelage.records import InputError, NotAvailableError

from .conversion import Conversion, Done

PINS = Path(__file__).with_name("litert-converter.txt")
SCRIPT = Path(__file__).with_name("litert_script.py")
INSTALL_SECONDS = 1200
# The largest network converts in well under a minute: what takes longer hangs.
CONVERT_SECONDS = 300


def cache_folder() -> Path:
    """Give where this package keeps what it can make again: XDG_CACHE_HOME (or ~/.cache)/tutelage."""
    named, home = os.environ.get("XDG_CACHE_HOME"), home_folder()
    if named:
        return Path(named) / "tutelage"
    if home is None:
        raise NotAvailableError("converters keep files in a cache, and this user has no home: set XDG_CACHE_HOME")
    return home / ".cache" / "tutelage"


def converter_folder() -> Path:
    """Give where the converter's environment lies: in the cache, a folder for these pins."""
    made_of = f"{sys.version_info[:2]}\n{PINS.read_text()}".encode()
    return cache_folder() / f"litert-converter-{hashlib.sha256(made_of).hexdigest()[:12]}"


def version() -> str:
    """Name the pins of the converter's environment."""
    return converter_folder().name


def converter_ready() -> bool:
    """Say whether the environment is there and was installed to the end."""
    return (converter_folder() / "ready").is_file()


def describe_converter() -> str:
    """Say in one line, for `doctor`, whether the converter is there and how it comes to be."""
    if converter_ready():
        return f"ready in {converter_folder()}"
    return (
        f"absent: made in {converter_folder()} when a LiteRT device or model first needs it "
        "(an environment of its own, about 500 MB and a minute; needs a package index)"
    )


def make_converter() -> Path:
    """Make the converter's environment unless it is there; returns its Python. Raises InputError with pip's reason."""
    folder = converter_folder()
    python = folder / "bin" / "python"
    with _locked(folder):
        if converter_ready():
            return python
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
        _install([sys.executable, "-m", "venv", str(folder)], folder)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _install([*pip, "--no-deps", "--ignore-requires-python", "-r", str(PINS)], folder)
        (folder / "ready").touch()
    return python


def convert_to_litert(conversions: Sequence[Conversion], done: Done | None = None, processes: int = 2) -> None:
    """Convert ONNX files to .tflite (float32, input as in the ONNX file), several in one process as starting is slow.

    Raises InputError that names the file for what cannot be converted.
    """
    if not conversions:
        return
    python = make_converter()
    processes = max(1, min(processes, len(conversions), os.cpu_count() or 1))
    shares = [list(conversions[start::processes]) for start in range(processes)]
    with tempfile.TemporaryDirectory(prefix="tutelage-litert-") as folder:
        running = [_start(python, share, Path(folder) / f"{number}.err") for number, share in enumerate(shares)]
        watch = threading.Timer(CONVERT_SECONDS + 60 * len(shares[0]), _kill, [[each for each, _ in running]])
        watch.daemon = True
        watch.start()
        try:
            finished = 0
            for share, (process, errors) in zip(shares, running, strict=True):
                for conversion in share:
                    _take_answer(process, errors, conversion)
                    finished += 1
                    if done:
                        done(finished, len(conversions))
        finally:
            watch.cancel()
            for process, _ in running:
                process.kill()
                process.communicate()


def quantize_litert(source: Path, target: Path, images: NDArray[np.float32]) -> Path:
    """Quantize a float .tflite to int8 weights and activations, ranges from `images` (number, channels, h, w).

    The result takes and gives int8, as the hardware's integer kernels do. Raises InputError without the quantizer.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise NotAvailableError("LiteRT int8 needs the quantizer: pip install 'tutelage[litert]'") from error
    from ai_edge_litert.interpreter import Interpreter

    if not len(images):
        raise InputError(f"{source}: int8 needs calibration images, at least one")
    interpreter = Interpreter(model_path=str(source))
    signatures = interpreter.get_signature_list()
    if signatures:
        key, name = next((key, value["inputs"][0]) for key, value in signatures.items())
    else:
        key, name = "serving_default", interpreter.get_input_details()[0]["name"]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it reports sizes on standard output
            tool = quantizer.Quantizer(str(source))
            tool.load_quantization_recipe(recipe.static_wi8_ai8())
            ranges = tool.calibrate({key: [{name: image[None]} for image in images]})
            with whole_file(target) as aside:
                tool.quantize(ranges).export_model(str(aside), overwrite=True)
    # An operator that the quantizer does not know, or that the runtime cannot prepare for it.
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{source} cannot be quantized for LiteRT: {str(error).strip().splitlines()[0]}") from error
    return target


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process make the environment while others wait."""
    import fcntl  # not on Windows, where no runner runs either

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{folder.name}.lock").open("w")
    except OSError as error:
        raise NotAvailableError(
            f"cannot write {folder.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(
            f"the LiteRT converter was not installed within {INSTALL_SECONDS} s: try again"
        ) from error
    if done.returncode:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no reason"
        )
        raise NotAvailableError(
            f"cannot make the LiteRT converter in {folder}: {reason}; it needs venv and a package index"
        )


def _start(python: Path, share: Sequence[Conversion], log: Path) -> tuple[subprocess.Popen[str], Path]:
    jobs = [
        {"onnx": str(each.onnx.resolve()), "tflite": str(each.target.resolve()), "shape": list(each.shape)}
        for each in share
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), "-I", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **thread_environment(1)},
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(jobs) + "\n")
    process.stdin.flush()
    return process, log


def _kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


def _take_answer(process: subprocess.Popen[str], log: Path, conversion: Conversion) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise NotAvailableError(
            f"the LiteRT converter ended at {conversion.onnx}: {lines[-1] if lines else 'no reason'}"
        )
    error = json.loads(line).get("error")
    if error:
        raise InputError(f"{conversion.onnx} cannot be converted for LiteRT: {error}")
