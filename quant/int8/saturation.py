"""Find out whether this processor's int8 kernels overflow, and how many bits of a weight they leave.

x86 without VNNI multiplies uint8 by int8 in pairs whose sum must fit into 16 bits: 2 x 255 x 127 does not, and is
clipped without a warning. With weights of 7 bits (-64..64) every pair fits.
"""

from __future__ import annotations

import functools

import numpy as np

# Steps on each side of zero that a weight is rounded to, by its bits.
WEIGHT_STEPS = {8: 127, 7: 64}
_LENGTH = 64  # products in a sum: enough for every kernel to work in pairs


def weight_bits() -> int:
    """Give the bits of a weight whose products are exact in this processor's int8 kernels: 8, or 7."""
    return 7 if products_saturate() else 8


@functools.cache
def products_saturate() -> bool:
    """Multiply the largest uint8 by the largest int8 in ONNX Runtime: is the sum smaller than it is on paper?"""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["sum"])],
        "largest",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [_LENGTH, _LENGTH]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [_LENGTH, _LENGTH]),
        ],
        [helper.make_tensor_value_info("sum", TensorProto.INT32, [_LENGTH, _LENGTH])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = {"a": np.full((_LENGTH, _LENGTH), 255, np.uint8), "b": np.full((_LENGTH, _LENGTH), 127, np.int8)}
    return bool((session.run(None, largest)[0] < 255 * 127 * _LENGTH).any())
