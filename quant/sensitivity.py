"""Find which layers an int8 network loses its answers in.

Enters a float .onnx file, calibration images and images to judge by; leaves, for each layer with weights, how far the
logits move when that layer alone is quantized. Activation ranges are collected once, for all layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tutelage.records import Record

from .calibration import Array, checked_calibration
from .files import read_graph, write_whole
from .ptq import check_float, default_activation_type, prepared, quantize_graph
from .ranges import Method, collect
from .run import run_onnx

# What has weights, and so is worth the bytes of keeping in float.
LAYERS = ("Conv", "Gemm", "MatMul")


class LayerSensitivity(Record):
    """One layer: `noise` is the mean squared change of the logits from it alone in int8, a share of their variance."""

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
    method: Method = "minmax",
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Sensitivity:
    """Quantize one layer after another, alone, and compare logits on `images` (n, c, h, w; some tens are enough)."""
    fp32_path = Path(fp32_path)
    calibration, images = checked_calibration(calibration), checked_calibration(images)
    check_float(fp32_path)
    reference = run_onnx(fp32_path, images, threads=threads)
    scale = max(float(reference.var()), 1e-12)
    layers = []
    with prepared(fp32_path) as graph, tempfile.TemporaryDirectory(prefix="tutelage-quant-") as folder:
        ranges = {name: held.range(method) for name, held in collect(graph, calibration, threads=threads).items()}
        found = weighted_layers(graph)
        for place, (name, operator, num_weights) in enumerate(found):
            content = quantize_graph(graph, ranges, only=[name], activation_type=default_activation_type())
            noise = _noise(content, Path(folder) / "one.onnx", images, reference, threads) / scale
            layers.append(LayerSensitivity(name=name, operator=operator, noise=noise, num_weights=num_weights))
            if progress:
                progress("sensitivity", place + 1, len(found))
    return Sensitivity(model=fp32_path, method=method, num_images=len(images), layers=tuple(layers))


def weighted_layers(graph: Path) -> list[tuple[str, str, int]]:
    """List a graph's layers with constant weights: (name, operator, number of weights)."""
    model = read_graph(graph)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    return [
        (node.name, node.op_type, sizes[node.input[1]])
        for node in model.graph.node
        if node.op_type in LAYERS and node.input[1] in sizes
    ]


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
    axes.set_xlabel("change of the logits with this layer alone in int8 (share of their variance)")
    title = f"{report.model.name}: the {len(worst)} most sensitive of {len(report.layers)} layers"
    axes.set_title(title + (", hatched: kept in fp32" if kept else ""), fontsize=9)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / f"figure{path.suffix}"
        figure.savefig(aside, dpi=150)
        write_whole(path, aside.read_bytes())


def _noise(content: bytes, aside: Path, images: Array, reference: Array, threads: int) -> float:
    aside.write_bytes(content)
    return float(np.square(run_onnx(aside, images, threads=threads) - reference).mean())
