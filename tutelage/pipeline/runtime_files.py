"""Write a network as the file that a runtime loads: ONNX, converted ONNX (LiteRT, ncnn), a PyTorch or Core ML program.

`network_file` writes one from a network, `runtime_file` and `int8_file` those of a run's trained network, and
`answers` runs a file on the runtime it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.convert import convert
from tutelage.bench.converters.litert import quantize_litert
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.in_file import give_back
from tutelage.quant.export.coreml import export_coreml
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.export.programs import export_pt2, export_pte
from tutelage.quant.int8.calibration import calibration_hash, checked_calibration
from tutelage.quant.run import open_onnx, run_onnx, run_openvino
from tutelage.records import InputError

from .context import Opened

Floats = NDArray[np.float32]
Shape = tuple[int, int, int, int]


def _onnx(network: nn.Module, path: Path, shape: Sequence[int]) -> object:
    return export_onnx(network, path, shape, check=False)


EXPORTERS: dict[str, Callable[[nn.Module, Path, Sequence[int]], object]] = {
    ".onnx": _onnx,
    ".pt2": export_pt2,
    ".pte": export_pte,
    ".mlzip": export_coreml,
}
# Of an ONNX file the batch is free; programs take the one they were exported with.
FREE_BATCH = ".onnx"


def export_network(network: nn.Module, path: Path, shape: Shape) -> None:
    """Export `network` for inputs of `shape` (batch, channels, height, width) to what the suffix of `path` says."""
    EXPORTERS[path.suffix](network, path, shape)


def network_file(network: nn.Module, runtime: str, folder: Path, stem: str, shape: Shape, kept: Path) -> Path:
    """Write `network` into `folder` as the fp32 file that a runtime loads; conversions are kept in `kept`.

    `shape` is (batch, channels, height, width). Raises InputError where something that it takes is not installed.
    """
    found = find_runtime(runtime)
    exported = folder / f"{stem}{found.exported}"
    export_network(network, exported, shape)
    if found.exported in found.suffixes:
        return exported
    target = folder / f"{stem}{found.suffixes[0]}"
    convert(found, [Conversion(exported, target, shape)], kept)
    return target


def runtime_file(here: Opened, runtime: str, network: nn.Module, onnx: Path, side: int) -> Path:
    """Give the fp32 file that `runtime` loads: the ONNX file, or what is made of it or of the network beside it.

    It is opened once, so that an operator that the runtime lacks is reported here. Raises InputError with the reason
    for what cannot be converted or opened, and with the remedy for a runtime or converter that is not installed.
    """
    known = find_runtime(runtime)
    if onnx.suffix in known.suffixes:
        return onnx
    known.check("fp32")
    suffix = known.suffixes[0]
    path, shape = onnx.with_suffix(suffix), (1, here.channels, side, side)
    if known.converter:
        convert(known, [Conversion(onnx, path, shape)], here.workspace.path / "cache" / "converted")
    else:
        export_network(network, path, shape)
    known.load(path, here.threads, "fp32", shape)
    return path


def int8_file(
    here: Opened, runtime: str, network: nn.Module | None, fp32: Path, side: int, calibration: Floats
) -> tuple[Path, dict[str, Any]]:
    """Quantize for a runtime whose int8 is no ONNX file: the file, and what a row says of how it was made.

    LiteRT by Google's quantizer from its fp32 file, ExecuTorch by PT2E from the network: both static, by the extremes
    of the calibration images, weights per channel, input and logits of LiteRT in int8 too. Raises InputError for a
    format that nothing here quantizes to, and for a network that cannot be quantized.
    """
    known = find_runtime(runtime)
    if fp32.suffix not in (".tflite", ".pte"):
        raise InputError(f"nothing here makes int8 {fp32.suffix} files: name a scheme that does with quantize.method")
    images = checked_calibration(calibration)
    path, shape = fp32.with_suffix(f".int8{fp32.suffix}"), (1, here.channels, side, side)
    try:
        if fp32.suffix == ".tflite":
            quantize_litert(fp32, path, images)
        else:
            assert network is not None, "a program is quantized before it is exported"
            export_pte(network, path, shape, torch.from_numpy(images))
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:  # the quantizers' own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{runtime} cannot quantize {fp32.name}: {reason}") from error
    if known.load(path, here.threads, "int8", shape).effective_precision != "int8":
        raise InputError(f"{runtime} left {fp32.name} in float: no operator of it was quantized")
    return path, {
        "method": "minmax",
        "num_calibration": len(images),
        "calibration_sha256": calibration_hash(images),
        "activation_type": "int8",
        "weight_type": "int8",
        "per_channel": True,
        "size_ratio": path.stat().st_size / fp32.stat().st_size,
    }


def answers(runtime: str, path: Path, images: Floats, threads: int) -> Floats:
    """Give the logits (n, classes) that `runtime` computes of its own file for normalised images (n, c, h, w)."""
    if runtime == "openvino":
        return run_openvino(path, images, threads=threads)
    if _by_onnxruntime(runtime, path):
        return run_onnx(path, images, threads=threads)
    session = find_runtime(runtime).load(path, threads, "fp32", (1, *images.shape[1:]))
    # Copied at once: a runtime may hand out its own memory, which the next image overwrites.
    found = []
    for image in images:
        found.append(np.array(session.run(np.ascontiguousarray(image[None])), np.float32))
        give_back(image)
    return np.concatenate(found)


def answering(runtime: str, path: Path, threads: int) -> Callable[[Floats], Floats]:
    """Give what computes `answers` of one file, which ONNX Runtime opens once, however often it is called."""
    if _by_onnxruntime(runtime, path):
        return open_onnx(path, threads=threads)
    return lambda images: answers(runtime, path, images, threads)


def _by_onnxruntime(runtime: str, path: Path) -> bool:
    """Say whether ONNX Runtime computes what a runtime makes of a file; other runtimes may load ONNX files, too."""
    return path.suffix == ".onnx" and find_runtime(runtime).module == "onnxruntime"
