"""Find the layers whose rounding changes an int8 network's outputs most, in one pass.

The figure of a layer with weights is the noise that its own rounding makes. Every layer gets a twin with rounded input
and weights beside it in one graph; both read the same float activations, which are computed once for all layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tutelage.quant.files import read_graph, write_whole
from tutelage.records import Record

from .calibration import Array, checked_calibration
from .onnxruntime_ptq import check_float, prepared
from .placement import float_stem, weighted_layers
from .ranges import collect, whole_batches
from .saturation import WEIGHT_STEPS, weight_bits
from .schemes.registry import find_ranges

_BATCH = 16
_LEVELS = 255


class LayerSensitivity(Record):
    """One layer: `noise` is the mean squared error of its output from its own rounding, over that output's power."""

    name: str
    operator: str
    noise: float
    num_weights: int


class Sensitivity(Record):
    """All layers of a network in its own order."""

    model: Path
    method: str
    num_images: int
    layers: tuple[LayerSensitivity, ...]

    def worst(self) -> list[LayerSensitivity]:
        """Give the layers by falling noise; equal ones in the network's order."""
        return sorted(self.layers, key=lambda layer: -layer.noise)


def sensitivity(
    fp32_path: Path | str,
    calibration: npt.ArrayLike,
    images: npt.ArrayLike,
    *,
    method: str = "minmax",
    threads: int = 1,
) -> Sensitivity:
    """Run `images` (n, c, h, w; some tens are enough) once and give the noise of every layer that would be in int8."""
    fp32_path = Path(fp32_path)
    calibration, images = checked_calibration(calibration), checked_calibration(images)
    clip = find_ranges(method)
    check_float(fp32_path)
    with prepared(fp32_path) as graph:
        ranges = {name: clip(held) for name, held in collect(graph, calibration, threads=threads).items()}
        model = read_graph(graph)
        stem = float_stem(model)
        layers = [layer for layer in weighted_layers(model) if layer[0] not in stem]
        noises = _noises(model, [name for name, _, _ in layers], ranges, images, threads)
    return Sensitivity(
        model=fp32_path,
        method=method,
        num_images=len(images),
        layers=tuple(
            LayerSensitivity(name=name, operator=operator, noise=noises[name], num_weights=num_weights)
            for name, operator, num_weights in layers
        ),
    )


def draw_sensitivity(
    report: Sensitivity, path: Path | str, *, kept: tuple[str, ...] = (), num_layers: int = 30
) -> None:
    """Draw the worst layers as bars on a log scale into a PNG or SVG; layers in `kept` (left in float) are hatched."""
    from matplotlib.figure import Figure

    path = Path(path)
    worst = report.worst()[:num_layers]
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(worst)), layout="constrained")
    axes = figure.subplots()
    floor = max(min((layer.noise for layer in worst if layer.noise > 0), default=1e-9), 1e-12)
    bars = axes.barh(range(len(worst)), [max(layer.noise, floor) for layer in worst], color="#33658a")
    for bar, layer in zip(bars, worst, strict=True):
        if layer.name in kept:
            bar.set(hatch="//", facecolor="#f6ae2d")
    axes.set_yticks(range(len(worst)), [layer.name.strip("/") for layer in worst], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("noise from the layer's own rounding (fraction of its output's power)")
    title = f"{report.model.name}: the {len(worst)} most sensitive of {len(report.layers)} layers"
    axes.set_title(title + (", hatched: kept in fp32" if kept else ""), fontsize=9)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / f"figure{path.suffix}"
        figure.savefig(aside, dpi=150)
        write_whole(path, aside.read_bytes())


def _noises(
    model: Any, names: list[str], ranges: Mapping[str, tuple[float, float]], images: Array, threads: int
) -> dict[str, float]:
    """Put the twins into `model` and give each named layer's error power over its output power."""
    import onnxruntime

    nodes = {node.name: node for node in model.graph.node}
    del model.graph.output[:]
    for name in names:
        _add_twin(model, nodes[name], ranges[nodes[name].input[0]])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    sums = np.zeros((len(names), 2))
    for batch in whole_batches(images, entry.shape[0], _BATCH):
        found = session.run(None, {entry.name: batch})
        sums += len(batch) * np.array([float(value) for value in found]).reshape(len(names), 2)
    return {name: float(error / max(power, 1e-20)) for name, (error, power) in zip(names, sums, strict=True)}


def _add_twin(model: Any, node: Any, held: tuple[float, float]) -> None:
    """Add the node's twin on rounded values to the graph, and two outputs: its error's power and the output's own."""
    import onnx
    from onnx import helper, numpy_helper

    graph, mark = model.graph, f"{node.name}/twin"
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weight = numpy_helper.to_array(constants[node.input[1]])
    low, high = min(held[0], 0.0), max(held[1], 0.0)
    scale = max((high - low) / _LEVELS, 1e-12)
    zero = np.uint8(np.clip(round(-low / scale), 0, _LEVELS))
    graph.initializer.extend(
        [
            numpy_helper.from_array(rounded(weight, axis=_channel_axis(node)), f"{mark}/weight"),
            numpy_helper.from_array(np.array(scale, np.float32), f"{mark}/scale"),
            numpy_helper.from_array(np.array(zero, np.uint8), f"{mark}/zero"),
        ]
    )
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = mark
    twin.input[0], twin.input[1] = f"{mark}/input", f"{mark}/weight"
    twin.output[0] = f"{mark}/output"
    grid = [f"{mark}/scale", f"{mark}/zero"]
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", [node.input[0], *grid], [f"{mark}/integers"], name=f"{mark}/quantize"),
            helper.make_node("DequantizeLinear", [f"{mark}/integers", *grid], [f"{mark}/input"], name=f"{mark}/back"),
            twin,
            helper.make_node("Sub", [twin.output[0], node.output[0]], [f"{mark}/difference"], name=f"{mark}/sub"),
        ]
    )
    for what, value in (("error", f"{mark}/difference"), ("power", node.output[0])):
        graph.node.extend(
            [
                helper.make_node("Mul", [value, value], [f"{mark}/{what}/square"], name=f"{mark}/{what}/mul"),
                helper.make_node(
                    "ReduceMean", [f"{mark}/{what}/square"], [f"{mark}/{what}"], name=f"{mark}/{what}/mean", keepdims=0
                ),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(f"{mark}/{what}", onnx.TensorProto.FLOAT, []))


def _channel_axis(node: Any) -> int:
    """Give the axis of a layer's output channels in its weights."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else -1


def rounded(weight: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Round weights to the steps of each output channel's own largest value that the int8 file has."""
    others = tuple(place for place in range(weight.ndim) if place != axis % weight.ndim)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / WEIGHT_STEPS[weight_bits()]
    return np.asarray(np.rint(weight / scale) * scale, dtype=np.float32)
