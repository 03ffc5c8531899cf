"""Rewrite a converted float network so that it takes less memory on a microcontroller; it computes the same.

`rewrite` does three things. The input is (1, height, width, channels), as a camera gives it: a file whose input has the
channels first begins with a transposition, whose result lies in memory beside its input. A padding before a strided
convolution is made the convolution's own: the padded copy of the largest map often decides the peak. And a shape that
is computed, although the batch is fixed, becomes a constant: TFLite Micro has no operator for some of that.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import FLOAT32, INT32, add_constant, operator_name, schema, shape_of, values_of

_TO_CHANNELS_LAST = (0, 2, 3, 1)
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def rewrite(model: Any) -> None:
    """Change a float model in place, see the module's docstring."""
    _fix_shapes(model)
    _channels_last(model)
    _take_in_paddings(model)
    _drop_unused(model)


def _fix_shapes(model: Any) -> None:
    """Give each RESHAPE the shape that its result has."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if operator_name(model, operator) != "RESHAPE" or len(operator.inputs) < 2:
            continue
        source, result = (graph.tensors[part[0]] for part in (operator.inputs, operator.outputs))
        if values_of(model, graph.tensors[operator.inputs[1]]) is None:
            if prod(shape_of(source)) != prod(shape_of(result)):  # it was not known: what precedes a classifier is flat
                result.shape = np.array([1, prod(shape_of(source))], np.int32)
            shape = np.array(shape_of(result), np.int32)
            number = add_constant(model, shape, f"shape_{operator.outputs[0]}", INT32)
            operator.inputs = np.array([operator.inputs[0], number], np.int32)


def _channels_last(model: Any) -> None:
    """Let the image enter with its channels last, where the first operator transposes it to that.

    One channel needs no transposition: the converter reshapes it, and so is dropped as well.
    """
    graph = model.subgraphs[0]
    (entry,) = graph.inputs
    users = [operator for operator in graph.operators if entry in operator.inputs]
    if len(users) != 1:
        return
    first = users[0]
    name, result = operator_name(model, first), graph.tensors[first.outputs[0]]
    _, channels, height, width = shape_of(graph.tensors[entry])
    order = values_of(model, graph.tensors[first.inputs[1]]) if len(first.inputs) == 2 else None
    transposes = name == "TRANSPOSE" and order is not None and tuple(order) == _TO_CHANNELS_LAST
    if transposes or (name == "RESHAPE" and channels == 1 and shape_of(result) == (1, height, width, 1)):
        moved, result.name = graph.tensors[entry].name, graph.tensors[entry].name
        graph.tensors[entry].name = moved + b"_channels_first"
        graph.operators.remove(first)
        graph.inputs = np.array([first.outputs[0]], np.int32)
        for signature in model.signatureDefs or []:
            for named in signature.inputs:
                named.tensorIndex = int(first.outputs[0])


def _take_in_paddings(model: Any) -> None:
    """Fold a PAD into the one convolution that reads it, where SAME padding reads the same pixels.

    A strided convolution of an odd kernel k pads k // 2 on all sides. At even sizes SAME pads one less at the top and
    left; of a kernel with a further row and column of zeros, at the end, it pads k // 2 there again.
    """
    graph = model.subgraphs[0]
    for pad in [one for one in graph.operators if operator_name(model, one) == "PAD"]:
        users = [one for one in graph.operators if pad.outputs[0] in one.inputs]
        if len(users) != 1 or operator_name(model, users[0]) not in _CONVOLUTIONS:
            continue
        reader, margins = users[0], values_of(model, graph.tensors[pad.inputs[1]])
        if margins is None or not _fits_same(graph, pad, reader, margins):
            continue
        reader.builtinOptions.padding = schema().Padding.SAME
        weights = graph.tensors[reader.inputs[1]]
        source = shape_of(graph.tensors[pad.inputs[0]])
        if source[1] % 2 == 0:
            kernel = values_of(model, weights)
            assert kernel is not None, "a convolution's weights are constant"
            wider = np.pad(kernel, ((0, 0), (0, 1), (0, 1), (0, 0)))
            number = add_constant(model, wider, bytes(weights.name).decode() + "_padded", FLOAT32)
            reader.inputs = np.array([pad.inputs[0], number, *reader.inputs[2:]], np.int32)
        else:
            reader.inputs = np.array([pad.inputs[0], *reader.inputs[1:]], np.int32)
        graph.operators.remove(pad)


def _fits_same(graph: Any, pad: Any, reader: Any, margins: NDArray[Any]) -> bool:
    """Say whether a padded convolution has stride 2, equal margins and a square odd kernel: SAME reads alike then."""
    options, kernel = reader.builtinOptions, shape_of(graph.tensors[reader.inputs[1]])
    _, height, width, _ = shape_of(graph.tensors[pad.inputs[0]])
    half = kernel[1] // 2
    return (
        options.padding == schema().Padding.VALID
        and (options.strideH, options.strideW) == (2, 2)
        and (options.dilationHFactor, options.dilationWFactor) == (1, 1)
        and kernel[1] == kernel[2]
        and kernel[1] % 2 == 1
        and height % 2 == width % 2
        and margins.tolist() == [[0, 0], [half, half], [half, half], [0, 0]]
        and graph.tensors[reader.inputs[1]].type == FLOAT32
    )


def _drop_unused(model: Any) -> None:
    """Remove operators whose results nothing reads, then tensors, buffers and operator codes that nothing names."""
    graph = model.subgraphs[0]
    while True:
        read = {*map(int, graph.outputs), *(int(i) for operator in graph.operators for i in operator.inputs)}
        kept = [operator for operator in graph.operators if read & {int(i) for i in operator.outputs}]
        if len(kept) == len(graph.operators):
            break
        graph.operators = kept
    lists = [graph.inputs, graph.outputs, *(part for one in graph.operators for part in (one.inputs, one.outputs))]
    used = sorted({int(i) for one in lists for i in one if i >= 0})
    new = {old: number for number, old in enumerate(used)} | {-1: -1}

    def moved(numbers: Any) -> Any:
        return np.array([new[int(i)] for i in numbers], np.int32)

    graph.tensors = [graph.tensors[i] for i in used]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
    for signature in model.signatureDefs or []:
        for named in (*signature.inputs, *signature.outputs):
            named.tensorIndex = new[named.tensorIndex]
    _drop_unused_buffers(model)
    codes = sorted({one.opcodeIndex for one in graph.operators})
    for operator in graph.operators:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[i] for i in codes]


def _drop_unused_buffers(model: Any) -> None:
    """Keep buffer 0, which is empty by the schema, and those of tensors and metadata."""
    owners = [*model.subgraphs[0].tensors, *(model.metadata or [])]
    used = sorted({0, *(one.buffer for one in owners)})
    for one in owners:
        one.buffer = used.index(one.buffer)
    model.buffers = [model.buffers[i] for i in used]
