"""Run a model file as it is deployed: float32 logits (n, classes) of normalised float32 images (n, c, h, w).

The number of threads is fixed and they do not spin; an fp32 file is computed in fp32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tutelage.in_file import give_back
from tutelage.records import InputError, NotAvailableError

from .files import read_graph

Array = npt.NDArray[np.float32]


def run_onnx(path: Path | str, images: npt.ArrayLike, *, threads: int = 1, batch_size: int = 64) -> Array:
    """Give the logits (n, classes) that ONNX Runtime computes on the CPU.

    Raises InputError for a missing or broken file, an operator the runtime does not know, or images of another shape.
    """
    return open_onnx(path, threads=threads, batch_size=batch_size)(images)


def open_onnx(path: Path | str, *, threads: int = 1, batch_size: int = 64) -> Callable[[npt.ArrayLike], Array]:
    """Open a file once to run it many times, as `run_onnx` does: opening takes longer than a few images."""
    session = onnx_session(Path(path), threads=threads)
    entry = session.get_inputs()[0]
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    return lambda images: _in_batches(
        lambda batch: np.asarray(session.run(None, {entry.name: batch})[0]), images, shape, batch_size, Path(path)
    )


def onnx_session(path: Path, *, threads: int = 1) -> Any:
    """Open an `onnxruntime.InferenceSession` on the CPU whose idle workers sleep."""
    require("onnxruntime")
    import onnxruntime

    read_graph(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A worker that spins while it waits takes its core from everyone else on the host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"onnxruntime cannot run {path}: {first_line(error)}") from error


def run_openvino(path: Path | str, images: npt.ArrayLike, *, threads: int = 1, batch_size: int = 64) -> Array:
    """Give the logits (n, classes) that OpenVINO computes on the CPU from an IR (.xml) or ONNX file.

    Float operators run in float32: left alone, OpenVINO runs them in bf16 on CPUs that have it.
    """
    size = max(1, min(batch_size, len(np.asarray(images))))
    compiled = openvino_model(Path(path), threads=threads, batch=size)
    shape = tuple(None if side.is_dynamic else side.get_length() for side in compiled.input(0).get_partial_shape())
    request = compiled.create_infer_request()
    return _in_batches(
        lambda batch: np.array(request.infer({0: batch})[compiled.output(0)]), images, shape, batch_size, Path(path)
    )


def openvino_model(path: Path, *, threads: int = 1, batch: int = 1) -> Any:
    """Compile a model for OpenVINO's CPU device with float32 and, where the file leaves it free, the batch pinned.

    OpenVINO 2026.4 gives wrong outputs for int8 networks whose batch is free when it is given one image, so a batch is
    never left free.
    """
    require("openvino")
    import openvino

    if not path.is_file():
        raise InputError(f"{path} is not a file; give an OpenVINO .xml or an .onnx model")
    if path.suffix == ".onnx":
        read_graph(path)
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        shape = model.input(0).get_partial_shape()
        if shape[0].is_dynamic:
            model.reshape([batch, *(side.get_length() for side in list(shape)[1:])])
        return core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise InputError(f"openvino cannot run {path}: {first_line(error)}") from error


def require(package: str, extra: str = "") -> None:
    """Raise InputError with the command that installs a runtime which is not there."""
    if importlib.util.find_spec(package) is None:
        target = f"tutelage[{extra}]" if extra else package
        raise NotAvailableError(f"{package} is not installed; install it with: pip install {target}")


def first_line(error: BaseException) -> str:
    """Give the telling line of a runtime's long message: one on operators, else the first after source positions."""
    lines = [line.strip().lstrip("- ") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "in file"))]
    operators = [line for line in telling if "operation" in line or "operator" in line]
    return (operators or telling or lines or [type(error).__name__])[0][:300]


def _in_batches(
    run: Callable[[Array], npt.NDArray[Any]],
    images: npt.ArrayLike,
    shape: tuple[int | None, ...],
    batch_size: int,
    path: Path,
) -> Array:
    """Run images through a model whose batch is free, or fixed at a size that the last batch is padded to."""
    values = np.ascontiguousarray(images, dtype=np.float32)
    if values.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape[1:], values.shape[1:], strict=True)
    ):
        wanted = tuple("n" if size is None else size for size in shape)
        raise InputError(f"{path} takes images of shape {wanted}, got {values.shape}; resize them or export again")
    if len(values) == 0:
        raise InputError(f"no images to run through {path}; give at least one")
    size = shape[0] or batch_size
    outputs = []
    for start in range(0, len(values), size):
        batch = values[start : start + size]
        missing = size - len(batch) if shape[0] else 0
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        outputs.append(run(batch)[: size - missing].astype(np.float32, copy=False))
        give_back(values)
    return np.concatenate(outputs)
