"""Where a network computes on integers: which operators gain from it, which layers have weights, what stays in float,
and what fraction of the MACs of a file runs on integers.

Its functions take ONNX graphs and give names of operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.quant.files import read_graph
from tutelage.records import InputError

from .schemes.entry import QuantReport

# Operators that gain from integers on CPUs. Softmax, LayerNormalization and the rest stay in float: their integer forms
# are no faster and cost accuracy. Reshapes and pools stand here so that no float island is left between convolutions.
OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "GlobalAveragePool", "AveragePool", "MaxPool",
    "Concat", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
)  # fmt: skip
# What has weights, and so is worth the bytes of keeping in float.
LAYERS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip", "HardSigmoid", "Mul", "HardSwish")

# A first convolution that sums so few products is faster in float (3 x 3 on 3 channels: 27): ONNX Runtime's integer
# kernel is made for long sums, and the image need not be quantized. Left in float, a small student at 224 px was 7 %
# faster and MobileNetV2 4 %; DenseNet's 7 x 7 stem (147 products) would make it 17 % slower.
MAX_FLOAT_STEM_PRODUCTS = 32


def float_stem(model: Any) -> tuple[str, ...]:
    """Name the image's convolution and its activation where float is faster for them; nothing where it is not."""
    entry = model.graph.input[0].name
    readers = [node for node in model.graph.node if entry in node.input]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    if len(readers) != 1 or readers[0].op_type != "Conv":
        return ()
    products = int(np.prod(shapes.get(readers[0].input[1], (0, 10**9))[1:]))
    if products > MAX_FLOAT_STEM_PRODUCTS:
        return ()
    names, reached = [readers[0].name], {readers[0].output[0]}
    for node in model.graph.node:
        if node.op_type in _ACTIVATIONS and node.input[0] in reached:
            names.append(node.name)
            reached.add(node.output[0])
    return tuple(names)


def weighted_layers(model: Any) -> list[tuple[str, str, int]]:
    """List a graph's layers with constant weights: (name, operator, number of weights)."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    return [
        (node.name, node.op_type, sizes[node.input[1]])
        for node in model.graph.node
        if node.op_type in LAYERS and node.input[1] in sizes
    ]


def with_feeders(graph: Path, layers: Sequence[str]) -> list[str]:
    """Add the operators without weights that make a layer's input: left in int8, they would round it all the same."""
    nodes = list(read_graph(graph).graph.node)
    makers = {name: node for node in nodes for name in node.output}
    by_name = {node.name: node for node in nodes}
    freed = dict.fromkeys(layers)
    for name in layers:
        maker = makers.get(by_name[name].input[0])
        while maker is not None and maker.op_type in OPERATORS and maker.op_type not in LAYERS:
            freed[maker.name] = None
            maker = makers.get(maker.input[0]) if len(maker.input) == 1 else None
    return list(freed)


def count_operators(model: Any) -> tuple[int, tuple[str, ...]]:
    """Count the operators on integers; name the kinds that compute on float tensors nobody quantized."""
    integers = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    skip = ("QuantizeLinear", "DequantizeLinear", "Constant", "Shape")
    nodes = [node for node in model.graph.node if node.op_type not in skip and node.input[0] not in integers]
    integer = [node for node in nodes if any(name in dequantized for name in node.input)]
    kinds = {
        node.op_type for node in nodes if node.op_type not in OPERATORS or not any(i in dequantized for i in node.input)
    }
    return len(integer), tuple(sorted(kinds))


def check_integer(report: QuantReport) -> None:
    """Refuse, and remove, a file that is called int8 and computes nothing on integers. Raises InputError."""
    if report.excluded or (report.integer_macs != 0.0 and report.num_quantized):
        return  # layers that went back to float did so to hold a loss, and the report says which
    report.path.unlink(missing_ok=True)
    raise InputError(
        f"{report.path.name} would be float: of its operators ({', '.join(report.float_operators) or 'no layer'}) none "
        "runs on integers; quantize a network with Conv, Gemm or MatMul layers whose weights are constants"
    )


def integer_macs(path: Path, input_shape: tuple[int, ...]) -> float:
    """Give the fraction of the MACs of an ONNX file's layers that ONNX Runtime computes on integers, 0 to 1.

    A layer counts where image and weights come from integers (DequantizeLinear) and its result goes back to them or is
    the network's output. `input_shape` is (batch, channels, height, width). A network without layers gives 0.
    """
    import onnx

    model = read_graph(path)
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, input_shape, strict=True):
        dimension.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    total = integer = 0
    for node in graph.node:
        if node.op_type not in LAYERS:
            continue
        macs = _macs(node, shapes)
        total += macs
        if all(name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2]):
            integer += macs
    return integer / total if total else 0.0


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim)


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Count one layer's MACs: outputs times the products that each sums (a convolution's weights of one channel)."""
    out, weights = shapes.get(node.output[0], ()), shapes.get(node.input[1], ())
    if node.op_type == "Conv":
        return int(np.prod(out) * np.prod(weights[1:]))
    entry = shapes.get(node.input[0], ())
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return int(np.prod(out) * (entry[0 if transposed else -1] if entry else 1))
