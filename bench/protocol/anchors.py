"""The anchor nets: fixed nets measured in every session, so that times of different sessions compare.

They are made from fixed numbers, the same bits every time. Three are tiny: a dense convolution net, a depthwise one and
a net of matrix products, as what a host slows down (arithmetic, memory, dispatch) differs between them; single blocks
drift as they do. Three are small classifiers of 3 to 8 MB that stream their weights as the measured networks do: they
carry the scale. Tiny ones fit the inner cache and are not slowed by a busy neighbour that slows a network by 20 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.bench.runtimes.entry import Runtime

from .worker import Board, ModelFile, Reached


@dataclass(frozen=True)
class AnchorNet:
    """One anchor: its kind, its channels (or matrix width) and its input size `side` x `side` in pixels."""

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
# Inverted-residual blocks a stage of the anchors that stream their weights.
STREAMING = (1, 2, 3)
# Channels and strides of their stages, as MobileNetV3's at 64 px; each block widens by six.
_STAGES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
_STEM, _WIDEN, _SIDE = 16, 6, 64
_HEAD = (960, 1280)
# Widths of the numpy anchors, for runtimes that cannot read ONNX: .07 to .8 MB of weights, then 2 to 8 MB.
NUMPY_WIDTHS = (48, 96, 160, 256, 384, 512)
NUM_ANCHORS = len(ANCHORS) + len(STREAMING)
# Written into a latency model beside what the anchors took: times of other anchors say nothing about these.
ANCHOR_SET = 2


def anchor_files(runtime: str, folder: Path) -> list[ModelFile]:
    """Write the anchors where a runtime can read them, and say where they are."""
    if runtime in ("anchor", "torch-cuda"):  # they make them of a width
        return [ModelFile(str(width), (1,)) for width in NUMPY_WIDTHS]
    files = []
    for anchor in ANCHORS:
        path = folder / f"anchor-{anchor.name}.onnx"
        path.write_bytes(anchor_onnx(anchor))
        files.append(ModelFile(str(path), (1, anchor.channels, anchor.side, anchor.side)))
    for depth in STREAMING:
        path = folder / f"anchor-streaming-{depth}.onnx"
        path.write_bytes(streaming_onnx(depth))
        files.append(ModelFile(str(path), (1, 3, _SIDE, _SIDE)))
    return files


def anchor_names() -> list[str]:
    """Name the anchors in the order of `anchor_files`: the tiny ones first."""
    return [*(anchor.name for anchor in ANCHORS), *(f"streaming {depth}" for depth in STREAMING)]


@dataclass(frozen=True)
class Seat:
    """Where a model sits: the worker's index and the model's index in it."""

    worker: int
    model: int


def seat_models(
    models: Sequence[tuple[str, ModelFile]], runtime: Runtime, reached: Reached, folder: Path
) -> tuple[list[Seat], list[tuple[str, list[ModelFile]]]]:
    """Give every model `(group, file)` a seat in a worker, and the anchors, made in `folder`, workers of their own.

    Models of one named group share a worker, others have their own. Returns the seats, the anchors' last, and what the
    workers hold, `(runtime, files)`.
    """
    if isinstance(reached, Board):
        anchor_runtime, anchors = runtime.name, reached.anchors(folder)
    else:
        anchor_runtime, anchors = runtime.anchors, anchor_files(runtime.anchors, folder)
    groups: dict[str, list[ModelFile]] = {}
    order: list[str] = []
    seats = []
    for number, (group, file) in enumerate(models):
        key = f"group {group}" if group else f"job {number}"
        if key not in groups:
            groups[key] = []
            order.append(key)
        seats.append(Seat(order.index(key), len(groups[key])))
        groups[key].append(file)
    # Each streaming anchor has its own process, which sleeps in between like those of the measured networks.
    tiny, streaming = list(anchors[: -len(STREAMING)]), anchors[-len(STREAMING) :]
    seats += [Seat(len(order), index) for index in range(len(tiny))]
    seats += [Seat(len(order) + 1 + index, 0) for index in range(len(streaming))]
    together = [tiny, *([anchor] for anchor in streaming)]
    return seats, [(runtime.name, groups[key]) for key in order] + [(anchor_runtime, held) for held in together]


def streaming_onnx(depth: int) -> bytes:
    """Build an anchor that streams its weights: stages of `depth` inverted-residual blocks as MobileNetV3's."""
    net = _Chain(np.random.default_rng(depth))
    net.convolve(3, _STEM, 3, stride=2, active="HardSwish")
    channels = _STEM
    for wide, stride in _STAGES:
        for block in range(depth):
            start, inner = net.last, _WIDEN * channels
            net.convolve(channels, inner, 1, active="HardSwish")
            net.convolve(inner, inner, 5, stride=stride if block == 0 else 1, groups=inner, active="HardSwish")
            net.squeeze(inner, inner // 4)
            net.convolve(inner, wide, 1, active="")
            if block:
                net.add("Add", [net.last, start])
            channels = wide
    for wide in _HEAD:
        net.convolve(channels, wide, 1, active="HardSwish")
        channels = wide
    return net.model(f"anchor-streaming-{depth}", [1, 3, _SIDE, _SIDE], channels)


def anchor_onnx(anchor: AnchorNet) -> bytes:
    """Build a tiny anchor as an ONNX file: convolutions with fixed weights and ReLU, then the mean over the image."""
    kernel = 1 if anchor.name == "pointwise" else 3
    net = _Chain(np.random.default_rng(anchor.channels))
    for _ in range(anchor.layers):
        net.convolve(anchor.channels, anchor.channels, kernel, groups=anchor.groups)
    return net.model(f"anchor-{anchor.name}", [1, anchor.channels, anchor.side, anchor.side], anchor.channels)


class _Chain:
    """Operators one after another as an ONNX graph, the weights drawn from fixed numbers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self.last = "images"

    def add(self, operator: str, inputs: list[str], **attributes: object) -> None:
        """Add an operator; its output is the last one."""
        from onnx import helper

        self.last = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [self.last], **attributes))

    def convolve(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: str = "Relu"
    ) -> None:
        """Add a convolution with "same" padding (output = input / stride), and its activation unless empty."""
        from onnx import numpy_helper

        name = f"w{len(self._weights)}"
        shape = (outputs, inputs // groups, kernel, kernel)
        values = self._rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        self.add(
            "Conv", [self.last, name], group=groups, pads=[kernel // 2] * 4, kernel_shape=[kernel, kernel],
            strides=[stride, stride],
        )  # fmt: skip
        if active:
            self.add(active, [self.last])

    def squeeze(self, channels: int, inner: int) -> None:
        """Add squeeze-and-excitation over `inner` channels."""
        start = self.last
        self.add("GlobalAveragePool", [start])
        self.convolve(channels, inner, 1)
        self.convolve(inner, channels, 1, active="")
        self.add("HardSigmoid", [self.last], alpha=1 / 6, beta=0.5)
        self.add("Mul", [start, self.last])

    def model(self, name: str, shape: list[int], channels: int) -> bytes:
        """Give the file's bytes, the mean over the image last."""
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("GlobalAveragePool", [self.last], ["out"]))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, 1, 1])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        data: bytes = model.SerializeToString()
        return data
