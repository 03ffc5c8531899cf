"""Export a network after quantization-aware training (QAT): its float graph and its learnt activation ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.quant.export.onnx_export import MAX_RELATIVE_DIFFERENCE, export_bytes
from tutelage.quant.files import write_whole
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

from .qat import finish_qat

Ranges = dict[str, tuple[float, float]]
_LEVELS = 255


def export_learnt(network: nn.Module, path: Path | str, input_shape: Sequence[int]) -> Ranges:
    """Write the float graph of a network of `prepare_qat` to `path`; give (low, high) by the name of each tensor.

    The exporter writes every fake quantization as a pair of QuantizeLinear and DequantizeLinear on its tensor. The
    pairs are removed again and their ranges kept, so that the names are those of the graph that is quantized next.
    Raises InputError where the graph does not compute what the network without fake quantization does.
    """
    import onnx

    path = Path(path)
    example = torch.randn(tuple(input_shape), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="tutelage-export-") as folder:
        traced = Path(folder) / "traced.onnx"
        traced.write_bytes(export_bytes(network.eval(), example, True))
        model = onnx.load(traced)
    ranges = lift_ranges(model)
    write_whole(path, bytes(model.SerializeToString()))
    images = torch.randn((2, *input_shape[1:]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = finish_qat(network)(images).numpy()
    difference = float(np.abs(run_onnx(path, images.numpy()) - expected).max())
    if difference > MAX_RELATIVE_DIFFERENCE * max(1.0, float(np.abs(expected).max())):
        raise InputError(f"{path}: outputs differ from the trained network's by {difference:.2g}; it cannot be traced")
    return ranges


def lift_ranges(model: Any) -> Ranges:
    """Take the QuantizeLinear and DequantizeLinear pairs out of a graph, in place; give each tensor's range.

    Of two pairs in a row the first counts: it is nearest to the operator that makes the tensor.
    """
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    ranges: Ranges = {}
    source: dict[str, str] = {}  # the output of a pair -> the tensor it rounds
    kept = []
    for node in model.graph.node:
        node.input[:] = [source.get(name, name) for name in node.input]
        if node.op_type == "QuantizeLinear":
            scale, zero = (float(constants[name].item()) for name in node.input[1:3])
            ranges.setdefault(node.input[0], (-zero * scale, (_LEVELS - zero) * scale))
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    kept = [node for node in kept if node.op_type != "Constant" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    del model.graph.value_info[:]
    return ranges
