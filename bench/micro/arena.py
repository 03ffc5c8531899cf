"""The memory that a .tflite file takes in TFLite Micro, counted from the file: `arena_of`.

The arena holds activations and operators' scratch, whose places are planned by their lifetimes (`head`), and what
persists: a structure for each tensor and operator, and each convolution's multipliers (`tail`). The plan is TFLite
Micro's greedy one (memory_planner/greedy_memory_planner.cc): the largest buffer first, each in the first gap among
those that live at the same time. Lifetimes are those of micro_allocation_info.cc: from the operator that writes a
tensor to the last that reads it. `make bench-memory` compares with TFLite Micro's own report.

Scratch is that of the reference kernels. Kernels of CMSIS-NN need more for a convolution, see docs/microcontrollers.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model import INT8, num_bytes, operator_name, read_model, shape_of

_ALIGNMENT = 16
# What persists, on a 64-bit host, as the report of TFLite Micro's Python package lists it: structures a tensor and an
# operator; the data of kernels and parsed options, by operator; the rest is the interpreter's own.
_TENSOR_BYTES, _OPERATOR_BYTES, _INTERPRETER_BYTES = 24, 64, 840
_KERNEL_BYTES = {
    **{"CONV_2D": 108, "DEPTHWISE_CONV_2D": 108, "FULLY_CONNECTED": 104, "ADD": 68, "MEAN": 52, "MUL": 48},
    **{"RESHAPE": 36, "HARD_SWISH": 20, "PAD": 56, "PADV2": 56, "TRANSPOSE": 8, "RELU": 16, "RELU6": 16},
    **{"AVERAGE_POOL_2D": 64, "MAX_POOL_2D": 64, "SOFTMAX": 48, "LOGISTIC": 32, "SUB": 68, "CONCATENATION": 68},
}
_OTHER_KERNEL_BYTES = 48
_BYTES_A_CHANNEL = 8  # a convolution's output multiplier and shift
_SCRATCH_A_SUM = 4  # MEAN at int8 adds in int32


@dataclass(frozen=True)
class Arena:
    """Bytes of TFLite Micro's arena: `head` for activations and scratch, `tail` for what persists."""

    head: int
    tail: int

    @property
    def total(self) -> int:
        """Give the bytes of the whole arena."""
        return self.head + self.tail


@dataclass(frozen=True)
class Buffer:
    """Bytes that live from operator `first` to operator `last`, both included."""

    size: int
    first: int
    last: int


def arena_of(path: Path) -> Arena:
    """Count the arena of a .tflite file; exact for the head. Raises InputError for a file that is none."""
    model = read_model(path)
    return Arena(planned_bytes(buffers_of(model)), _persistent_bytes(model))


def aligned(size: int) -> int:
    """Round up to the alignment of buffers in the arena."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def buffers_of(model: Any) -> list[Buffer]:
    """List what lies in the arena for a time: computed tensors, and scratch while its operator runs."""
    graph = model.subgraphs[0]
    first = {int(number): 0 for number in graph.inputs}
    last = dict(first)
    scratch = []
    for place, operator in enumerate(graph.operators):
        for number in map(int, operator.outputs):
            first.setdefault(number, place)
            last[number] = place
        for number in map(int, operator.inputs):
            if number in first:
                last[number] = place
        needed = _scratch_bytes(model, operator)
        if needed:
            scratch.append(Buffer(needed, place, place))
    for number in map(int, graph.outputs):
        last[number] = len(graph.operators) - 1
    live = [Buffer(num_bytes(graph.tensors[number]), first[number], last[number]) for number in sorted(first)]
    return [*live, *scratch]


def planned_bytes(buffers: list[Buffer]) -> int:
    """Give the bytes that the greedy plan takes; of buffers of one size it places the last one first."""
    placed: list[tuple[int, int, Buffer]] = []  # offset, end, buffer, ascending
    last_first = buffers[::-1]
    for one in sorted(last_first, key=lambda buffer: -aligned(buffer.size)):
        size, offset = aligned(one.size), 0
        for start, end, other in placed:
            if other.first > one.last or other.last < one.first:
                continue
            if start - offset >= size:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, one))
        placed.sort(key=lambda entry: entry[0])
    return max((end for _, end, _ in placed), default=0)


def _scratch_bytes(model: Any, operator: Any) -> int:
    graph, name = model.subgraphs[0], operator_name(model, operator)
    result = graph.tensors[operator.outputs[0]]
    if name == "MEAN" and result.type == INT8:
        return num_bytes(result) * _SCRATCH_A_SUM
    return 0


def _persistent_bytes(model: Any) -> int:
    graph = model.subgraphs[0]
    total = _INTERPRETER_BYTES + _TENSOR_BYTES * len(graph.tensors)
    for operator in graph.operators:
        name = operator_name(model, operator)
        total += _OPERATOR_BYTES + _KERNEL_BYTES.get(name, _OTHER_KERNEL_BYTES)
        result = graph.tensors[operator.outputs[0]]
        per_channel = name in ("CONV_2D", "DEPTHWISE_CONV_2D") or (name == "FULLY_CONNECTED" and result.type == INT8)
        if per_channel:
            total += _BYTES_A_CHANNEL * shape_of(result)[-1]
    return total


def operators_of(path: Path) -> list[str]:
    """List the operators that a file uses, each once, in the order of the schema's names."""
    model = read_model(path)
    return sorted({operator_name(model, operator) for operator in model.subgraphs[0].operators})


def quantization_of(path: Path) -> tuple[tuple[float, int] | None, tuple[float, int] | None]:
    """Give scale and zero point of the input and of the output of a file; None where it is float."""
    model = read_model(path)
    graph = model.subgraphs[0]
    found: list[tuple[float, int] | None] = []
    for number in (graph.inputs[0], graph.outputs[0]):
        tensor = graph.tensors[number]
        quantized = tensor.type == INT8
        how = tensor.quantization
        found.append((float(how.scale[0]), int(how.zeroPoint[0])) if quantized else None)
    return found[0], found[1]
