"""The anchor nets: three fixed tiny nets measured in every session, so that times of different sessions compare.

They are made from fixed numbers, the same bits every time: a dense convolution net, a depthwise one and a net of
matrix products, as what a host slows down (arithmetic, memory, dispatch) differs between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .worker import ModelFile


@dataclass(frozen=True)
class AnchorNet:
    """One anchor: its kind, its channels (or matrix width) and its input side in pixels."""

    name: str
    channels: int
    side: int
    groups: int
    layers: int


ANCHORS = (
    AnchorNet("dense", channels=32, side=20, groups=1, layers=4),
    AnchorNet("depthwise", channels=96, side=24, groups=96, layers=6),
    AnchorNet("pointwise", channels=128, side=8, groups=1, layers=10),
)
# Widths of the numpy anchors, for runtimes that cannot read ONNX.
NUMPY_WIDTHS = (48, 96, 160)


def anchor_files(runtime: str, folder: Path) -> list[ModelFile]:
    """Write the anchors where a runtime can read them, and say where they are."""
    if runtime == "anchor":
        return [ModelFile(str(width), (1,)) for width in NUMPY_WIDTHS]
    files = []
    for anchor in ANCHORS:
        path = folder / f"anchor-{anchor.name}.onnx"
        path.write_bytes(anchor_onnx(anchor))
        files.append(ModelFile(str(path), (1, anchor.channels, anchor.side, anchor.side)))
    return files


def anchor_onnx(anchor: AnchorNet) -> bytes:
    """Build an anchor as an ONNX file: convolutions with fixed weights and ReLU, then the mean over the image."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = 1 if anchor.name == "pointwise" else 3
    rng = np.random.default_rng(anchor.channels)
    nodes: list[Any] = []
    weights: list[Any] = []
    name = "images"
    shape = (anchor.channels, anchor.channels // anchor.groups, kernel, kernel)
    for layer in range(anchor.layers):
        values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        pads = [kernel // 2] * 4
        conv = helper.make_node(
            "Conv", [name, f"w{layer}"], [f"c{layer}"], group=anchor.groups, pads=pads, kernel_shape=[kernel, kernel]
        )
        nodes += [conv, helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"])]
        name = f"r{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["out"]))
    sides = [1, anchor.channels, anchor.side, anchor.side]
    graph = helper.make_graph(
        nodes,
        f"anchor-{anchor.name}",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, anchor.channels, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
