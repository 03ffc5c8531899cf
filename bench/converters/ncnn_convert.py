"""ONNX to ncnn: a text graph (.param) and its weights (.bin), by pnnx, which comes with `tutelage[ncnn]`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tutelage.bench.protocol.host import thread_environment
from tutelage.files import whole_file
from tutelage.records import InputError, NotAvailableError

from .conversion import Conversion, Done

CONVERT_SECONDS = 300


def convert_to_ncnn(conversions: Sequence[Conversion], done: Done | None = None) -> None:
    """Convert ONNX files to .param and .bin, weights in float32. Raises InputError that names the file."""
    for number, conversion in enumerate(conversions, 1):
        with tempfile.TemporaryDirectory(prefix="tutelage-ncnn-") as folder:
            _convert(conversion, Path(folder))
        if done:
            done(number, len(conversions))


def version() -> str:
    """Give the version of pnnx, empty where it is not installed."""
    try:
        return importlib.metadata.version("pnnx")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _convert(conversion: Conversion, folder: Path) -> None:
    command = [_pnnx(), "net.onnx", f"inputshape=[{','.join(map(str, conversion.shape))}]", "fp16=0"]
    (folder / "net.onnx").write_bytes(conversion.onnx.read_bytes())  # pnnx writes its results beside its input
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONVERT_SECONDS,
            env={**os.environ, **thread_environment(1)},
        )
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(f"{conversion.onnx} was not converted for ncnn within {CONVERT_SECONDS} s") from error
    graph, weights = folder / "net.ncnn.param", folder / "net.ncnn.bin"
    if done.returncode < 0:  # ended by a signal: the host's memory, or somebody
        raise NotAvailableError(
            f"{conversion.onnx} was not converted for ncnn: pnnx ended by signal {-done.returncode}"
        )
    if done.returncode or not graph.is_file():
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        raise InputError(f"{conversion.onnx} cannot be converted for ncnn: {lines[-1] if lines else 'no reason'}")
    # pnnx keeps the PyTorch name of an operator it has no layer for; ncnn could not load such a file.
    kinds = {line.split()[0] for line in graph.read_text().splitlines()[2:] if line.strip()}
    if unknown := sorted(kind for kind in kinds if "." in kind):
        raise InputError(f"{conversion.onnx} cannot be converted for ncnn: it has no layer for {', '.join(unknown)}")
    # The graph last: where it exists, its weights do too.
    for part, target in ((weights, conversion.target.with_suffix(".bin")), (graph, conversion.target)):
        with whole_file(target) as aside:
            aside.write_bytes(part.read_bytes())


def _pnnx() -> str:
    """Find pnnx's program in its package, without importing it."""
    found = importlib.util.find_spec("pnnx")
    if found is None or found.origin is None:
        raise NotAvailableError("ncnn models are made by pnnx, which is not installed: pip install 'tutelage[ncnn]'")
    return str(Path(found.origin).with_name("pnnx"))
