"""Read from a model's graph whether it holds 8-bit integers (`holds_int8`), for each format that a runtime loads.

It is copied beside the runner to other hosts and needs only Python and the model that the runtime has opened.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Iterator  # noqa: UP035 - other hosts may have Python 3.8
from xml.etree import ElementTree

# ONNX: QDQ pairs or one of the two (weights in int8), QLinearConv, ConvInteger, and the com.microsoft ones.
_ONNX_INTEGER = ("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "QGemm", "QAttention")
# Fields of ONNX's protobuf messages (onnx.proto) that lead to operators: a message's kind -> field -> kind.
_ONNX_FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
_LITERT_INTEGER = ("int8", "uint8", "int4")
_IR_INTEGER = ("i8", "u8", "i4", "u4")
# ncnn: layers that convert, and the parameter `int8_scale_term` of those that compute.
_NCNN_CONVERT = ("Quantize", "Dequantize", "Requantize")
_NCNN_SCALE_TERM = {
    "Convolution": "8", "ConvolutionDepthWise": "8", "InnerProduct": "8", "Gemm": "18", "MultiHeadAttention": "18",
}  # fmt: skip
# Name spaces of PyTorch's operators on quantized tensors.
_TORCH_INTEGER = ("quantized_decomposed", "quantized", "torchao")
# A `.pte` file does not say what its delegates compute in; those of this project carry a method of this name.
INT8_MARK = "tutelage_int8"


def holds_int8(path: str, opened: Any = None) -> bool:
    """Say whether a model computes on 8-bit integers or keeps weights in them, by its graph.

    `opened` is the loaded model where the graph can only be read from that: LiteRT's interpreter, PyTorch's or
    ExecuTorch's program. An ExecuTorch program is recognised only where this project quantized it.
    Raises ValueError for a file that is not what its suffix says.
    """
    suffix = path[path.rfind(".") :]
    if suffix == ".onnx":
        return any(_is_integer(name) for name in onnx_operators(path))
    if suffix == ".xml":
        return _ir_holds_int8(path)
    if suffix == ".param":
        return _ncnn_holds_int8(path)
    if suffix == ".tflite":
        # An image may come as plain bytes into a float network: only a tensor with a scale stands for real numbers.
        details = opened.get_tensor_details()
        return any(
            one["dtype"].__name__ in _LITERT_INTEGER and len(one["quantization_parameters"]["scales"])
            for one in details
        )
    if suffix == ".pt2":
        return any(str(node.target).split(".")[0] in _TORCH_INTEGER for node in opened.graph.nodes)
    if suffix == ".pte":
        return INT8_MARK in opened.method_names
    raise ValueError(f"{path}: no format whose graph can be read")


def onnx_operators(path: str) -> Iterator[str]:
    """Yield the operator of every node of an ONNX file, those of sub-graphs and functions too.

    Read off the protobuf encoding: another host has the runtime, which does not show its graph, but maybe no `onnx`.
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path} is empty: it is not an ONNX model")
        # Mapped, not read: the weights are skipped, and the memory of a runner is a figure of its model.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    waiting = [("model", data)]
    while waiting:
        kind, message = waiting.pop()
        for field, content in _messages(message, path):
            inner = _ONNX_FIELDS[kind].get(field)
            if inner == "operator":
                yield bytes(content).decode(errors="replace")
            elif inner is not None:
                waiting.append((inner, content))


def _is_integer(operator: str) -> bool:
    return operator.startswith(_ONNX_INTEGER) or "Integer" in operator


def _messages(data: memoryview, path: str) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each length-delimited field of a protobuf message; skip the numbers in it."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place, path)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(data, place, path)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            length, place = _varint(data, place, path)
            if place + length > len(data):
                raise ValueError(f"{path} is truncated: it is not a whole ONNX model")
            yield tag >> 3, data[place : place + length]
            place += length
        else:
            raise ValueError(f"{path} is not an ONNX model")


def _varint(data: memoryview, place: int, path: str) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError(f"{path} is not an ONNX model")


def _ir_holds_int8(path: str) -> bool:
    """OpenVINO: a FakeQuantize, or 8-bit (or 4-bit) constants that are converted to be computed with."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not an OpenVINO IR: {error}") from error
    for scope in root.iter():  # the network, and the bodies of its loops and branches
        types, constants = {}, set()
        for layer in scope.findall("layers/layer"):
            types[layer.get("id")] = layer.get("type")
            data = layer.find("data")
            if layer.get("type") == "Const" and data is not None and data.get("element_type") in _IR_INTEGER:
                constants.add(layer.get("id"))
        if "FakeQuantize" in types.values():
            return True
        for edge in scope.findall("edges/edge"):
            if edge.get("from-layer") in constants and types.get(edge.get("to-layer")) == "Convert":
                return True
    return False


def _ncnn_holds_int8(path: str) -> bool:
    """ncnn: a layer that converts to or from int8, or one that computes with scales of int8 weights."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if not words:
                continue
            term = _NCNN_SCALE_TERM.get(words[0])
            given = [word.partition("=")[2] for word in words if term and word.startswith(f"{term}=")]
            if words[0] in _NCNN_CONVERT or any(value not in ("", "0") for value in given):
                return True
    return False
