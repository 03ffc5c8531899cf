"""Convert ONNX files to LiteRT; runs in the converter's own environment, which has only onnx and onnx2tf.

Reads one JSON line from standard input, `[{"onnx": path, "tflite": path, "shape": [b, c, h, w]}, ..]`, writes the
.tflite files (float32, input and output as in the ONNX file) and prints a JSON line each: `{}` or `{"error": reason}`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def spell_out_hard_sigmoid(graph: Any) -> None:
    """Write HardSigmoid of slope 1/6 as ReLU6(x + 3) / 6, which XNNPACK runs; as its own operator it would not."""
    constants = {"hs_three": 3.0, "hs_sixth": 1 / 6, "hs_zero": 0.0, "hs_six": 6.0}
    graph.initializer.extend(numpy_helper.from_array(np.float32(value), name) for name, value in constants.items())
    nodes = []
    for node in graph.node:
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        slope, offset = settings.get("alpha", 0.2), settings.get("beta", 0.5)
        if node.op_type != "HardSigmoid" or abs(slope - 1 / 6) > 1e-6 or abs(offset - 0.5) > 1e-6:
            nodes.append(node)
            continue
        out = node.output[0]
        nodes += [
            helper.make_node("Add", [node.input[0], "hs_three"], [out + "_moved"]),
            helper.make_node("Clip", [out + "_moved", "hs_zero", "hs_six"], [out + "_clipped"]),
            helper.make_node("Mul", [out + "_clipped", "hs_sixth"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def fix_shape(graph: Any, shape: Sequence[int]) -> None:
    """Give the input its numbers and forget the shapes that were derived from names."""
    for dimension, size in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = shape[0]
    del graph.value_info[:]


def convert(source: str, target: str, shape: Sequence[int]) -> None:
    """Convert one file, written whole or not at all."""
    import onnx2tf

    model = onnx.load(source)
    fix_shape(model.graph, shape)
    spell_out_hard_sigmoid(model.graph)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target) or ".") as folder:
        plain = os.path.join(folder, "net.onnx")
        onnx.save(model, plain)
        onnx2tf.convert(
            input_onnx_file_path=plain,
            output_folder_path=folder,
            keep_ncw_or_nchw_or_ncdhw_input_names=[model.graph.input[0].name],  # images enter as elsewhere
            not_use_onnxsim=True,  # constants are folded already
            non_verbose=True,
        )
        os.replace(os.path.join(folder, "net_float32.tflite"), target)


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the converter prints goes to standard error
    for job in json.loads(sys.stdin.readline()):
        try:
            convert(job["onnx"], job["tflite"], job["shape"])
            reply = {}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the parent reports the reason
            lines = str(error).strip().splitlines() or [""]
            reply = {"error": f"{type(error).__name__}: {lines[0]}"}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
