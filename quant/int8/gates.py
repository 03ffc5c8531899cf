"""Hard-swish and hard-sigmoid on integers, exactly and almost for nothing.

`gate_ranges` prepares a float graph's activation ranges, `fold_gates` turns the gates of the QDQ graph made with them
into clipped integers. ONNX Runtime has no integer kernel for either function: left alone, each carries a tensor to
float and back, an eighth of a small student's time at 224 px. But hard-sigmoid(x) = clip(x + 3, 0, 6) / 6 is the
integers of x read with another zero point, once x starts at -3; and since both functions are flat below -3, a range
that starts there loses nothing and has finer steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.quant.files import read_graph

LEVELS = 255
# A gate whose input never rises above -3 is 0 everywhere; its range still needs a width.
LEAST_HIGH = 0.05


def split_hard_swish(model: Any) -> None:
    """Write each HardSwish of a graph as HardSigmoid and Mul, in place, as ONNX Runtime does when it loads one."""
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        name = node.name or f"HardSwish_of_{node.output[0]}"
        gate = f"{node.output[0]}_gate"
        nodes.append(
            helper.make_node("HardSigmoid", [node.input[0]], [gate], name=f"{name}/gate", alpha=1 / 6, beta=0.5)
        )
        nodes.append(helper.make_node("Mul", [node.input[0], gate], [node.output[0]], name=f"{name}/mul"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def gate_ranges(graph: Path, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Give ranges in which every tensor that feeds only a gate starts where the gate does, on a whole zero point."""
    changed = dict(ranges)
    model = read_graph(graph)
    uses = _uses(model)
    for node in model.graph.node:
        if node.op_type != "HardSigmoid" or node.input[0] not in ranges:
            continue
        name, gate = node.input[0], node.output[0]
        others = [user for user in uses[name] if user is None or user.output[0] != gate]
        if any(user is None or user.op_type != "Mul" or gate not in user.input for user in others):
            continue  # somebody else needs the values below the gate
        start, width = _start_and_width(node)
        changed[name] = gate_range(start, np.inf if others else width, ranges[name][1])
    return changed


def gate_range(start: float, width: float, high: float) -> tuple[float, float]:
    """Give the range of a gate's input whose highest value is `high`: from -start, with 0 on a whole level.

    It ends where the slope of that width does; width is infinite where the values themselves are needed too.
    """
    high = max(min(high, width - start), LEAST_HIGH)
    zero = max(1, int(LEVELS * start / (high + start)))
    return -start, start * (LEVELS - zero) / zero


def fold_gates(model: Any) -> int:
    """Put a clip on the integers for each DequantizeLinear, HardSigmoid, QuantizeLinear, in place; count them."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = _uses(model)
    gone: set[str] = set()  # nodes by their output
    added: dict[str, list[Any]] = {}
    for gate in model.graph.node:
        before = makers.get(gate.input[0]) if gate.op_type == "HardSigmoid" else None
        if before is None or before.op_type != "DequantizeLinear":
            continue
        after = uses[gate.output[0]]
        if len(after) != 1 or after[0] is None or after[0].op_type != "QuantizeLinear":
            continue
        readers = uses[after[0].output[0]]
        scale = float(numpy_helper.to_array(constants[before.input[1]]))
        zero = numpy_helper.to_array(constants[before.input[2]])
        start, width = _start_and_width(gate)
        if zero.dtype != np.uint8 or abs(float(zero) * scale - start) > 1e-3 * scale:
            continue  # a range that gate_ranges did not make
        integers, cap = before.input[0], round(width / scale)
        place = gate.output[0]
        added[place] = []
        if cap < LEVELS:
            clipped, limit = f"{gate.output[0]}_clipped", f"{gate.output[0]}_cap"
            model.graph.initializer.append(numpy_helper.from_array(np.array(cap, np.uint8), limit))
            added[place].append(helper.make_node("Clip", [integers, "", limit], [clipped], name=f"{gate.name}/clip"))
            integers = clipped
        new_scale, new_zero = f"{gate.output[0]}_gate_scale", f"{gate.output[0]}_gate_zero"
        model.graph.initializer.append(numpy_helper.from_array(np.array(scale / width, np.float32), new_scale))
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), new_zero))
        for reader in readers:
            reader.input[0], reader.input[1], reader.input[2] = integers, new_scale, new_zero
        gone |= {place, after[0].output[0]}
        if len(uses[before.output[0]]) == 1:
            gone.add(before.output[0])
    nodes = []
    for node in list(model.graph.node):
        nodes += added.get(node.output[0], [])
        nodes += [] if node.output[0] in gone else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(added)


def free_outputs(model: Any) -> None:
    """Give the graph's outputs in float, unrounded, in place: an output beyond the calibrated range is not clipped."""
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = _uses(model)
    for value in model.graph.output:
        last = makers[value.name]
        before = makers.get(last.input[0]) if last.op_type == "DequantizeLinear" else None
        if before is None or before.op_type != "QuantizeLinear" or len(uses[last.input[0]]) > 1:
            continue
        source = makers[before.input[0]]
        if len(uses[before.input[0]]) > 1:
            continue
        source.output[list(source.output).index(before.input[0])] = value.name
        model.graph.node.remove(before)
        model.graph.node.remove(last)
    _drop_unused_constants(model)


def shorten_names(model: Any) -> None:
    """Give tensors short names, and QDQ operators none, in place: in 1.25 M weights, names were 8 % of the file.

    Inputs and outputs of the graph, and operators that compute, keep theirs.
    """
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    short: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return name if name in kept else short.setdefault(name, f"t{len(short):x}")

    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed(name) for name in names]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
    for tensor in model.graph.initializer:
        tensor.name = renamed(tensor.name)
    del model.graph.value_info[:]  # shapes of inner tensors: runtimes infer them


def _drop_unused_constants(model: Any) -> None:
    """Remove the initializers that no node reads any more; a runtime would warn of each."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _start_and_width(gate: Any) -> tuple[float, float]:
    """Give how far below 0 a hard-sigmoid clip(alpha x + beta, 0, 1) leaves 0, and how wide its slope is."""
    values = {attribute.name: attribute.f for attribute in gate.attribute}
    alpha, beta = values.get("alpha", 0.2), values.get("beta", 0.5)
    return beta / alpha, 1 / alpha


def _uses(model: Any) -> dict[str, list[Any]]:
    """List the nodes that read each tensor; None stands for the graph's own output."""
    uses: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            uses[name].append(node)
    for value in model.graph.output:
        uses[value.name].append(None)
    return uses
