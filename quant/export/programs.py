"""Export a network as a program: `.pt2` for PyTorch, eager or compiled, and `.pte` for ExecuTorch with XNNPACK.

Each export takes an `nn.Module`, the shape of its input and, for int8, calibration images, and writes one file
atomically.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.quant.files import write_whole
from tutelage.records import NotAvailableError

from .normalise import normalise

# ExecuTorch's runner reads the precision off this method's presence (bench/runtimes/graph.py has the same word).
INT8_MARK = "tutelage_int8"


def export_pt2(model: nn.Module, path: Path, input_shape: Sequence[int]) -> Path:
    """Write `model`, in eval mode and for inputs of exactly `input_shape` (batch, c, h, w), as a `.pt2` program."""
    program = torch.export.export(normalise(model), (torch.zeros(tuple(input_shape)),))
    with tempfile.TemporaryDirectory(prefix="tutelage-export-") as folder:
        made = Path(folder) / "net.pt2"
        torch.export.save(program, made)
        write_whole(path, made.read_bytes())
    return path


def export_pte(model: nn.Module, path: Path, input_shape: Sequence[int], calibration: Tensor | None = None) -> Path:
    """Write `model` as an ExecuTorch program for XNNPACK; with `calibration` (number, c, h, w) its operators are int8.

    int8 is per-channel symmetric weights and static activations by PT2E, input and output in float.
    Raises NotAvailableError where ExecuTorch is not installed.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise NotAvailableError("ExecuTorch is not installed: pip install 'tutelage[executorch]'") from error
    example = (torch.zeros(tuple(input_shape)),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: Any = normalise(model)
        if calibration is not None:
            network = _quantized(torch.export.export(network, example).module(), calibration, input_shape[0])
        lowered = to_edge_transform_and_lower(
            torch.export.export(network, example),
            partitioner=[XnnpackPartitioner()],
            constant_methods={INT8_MARK: 1} if calibration is not None else None,
        ).to_executorch()
    write_whole(path, bytes(lowered.buffer))
    return path


def _quantized(network: Any, calibration: Tensor, batch: int) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(network, quantizer)
    with torch.no_grad():
        for start in range(0, len(calibration) - batch + 1, batch):
            prepared(calibration[start : start + batch])
    return convert_pt2e(prepared)
