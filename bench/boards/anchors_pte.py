"""The anchor nets as ExecuTorch programs: PyTorch modules made of the ONNX graphs, lowered for XNNPACK."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tutelage.bench.protocol.anchors import anchor_files
from tutelage.bench.protocol.worker import ModelFile
from tutelage.records import NotAvailableError


def export_anchors(folder: Path) -> list[ModelFile]:
    """Write the anchors into `folder` as `.pte` files. Raises NotAvailableError where ExecuTorch is not installed."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise NotAvailableError("ExecuTorch is not installed: pip install 'tutelage[executorch]'") from error
    import torch

    exported = []
    for one in anchor_files("onnxruntime", folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(anchor_module(Path(one.path)), (torch.zeros(one.shape),))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        path = Path(one.path).with_suffix(".pte")
        path.write_bytes(bytes(lowered.buffer))
        exported.append(ModelFile(str(path), one.shape))
    return exported


def anchor_module(path: Path) -> Any:
    """Give an anchor's ONNX file as an `nn.Module` of the same operators and weights."""
    import onnx
    import torch
    from torch import nn
    from torch.nn import functional

    graph = onnx.load(path).graph
    weights = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
    simple: dict[str, Any] = {
        "Relu": functional.relu, "HardSwish": functional.hardswish, "HardSigmoid": functional.hardsigmoid,
        "Add": torch.add, "Mul": torch.mul, "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    }  # fmt: skip

    class Anchor(nn.Module):
        """Runs the graph's nodes in their order."""

        def __init__(self) -> None:
            super().__init__()
            for name, value in weights.items():
                self.register_buffer(name, value)

        def forward(self, images: Any) -> Any:
            """Give the mean of the last operator's output over the image."""
            values = {"images": images}
            for node in graph.node:
                if node.op_type == "Conv":
                    options = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
                    out = functional.conv2d(
                        values[node.input[0]], getattr(self, node.input[1]), stride=options["strides"],
                        padding=options["pads"][:2], groups=options["group"],
                    )  # fmt: skip
                else:
                    out = simple[node.op_type](*(values[name] for name in node.input))
                values[node.output[0]] = out
            return values["out"]

    return Anchor().eval()
