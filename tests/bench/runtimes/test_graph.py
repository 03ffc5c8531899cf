"""int8 is read off a model's graph, whatever its names say and whichever runtime loads it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx, streaming_onnx
from tutelage.bench.runtimes.graph import holds_int8, onnx_operators
from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.quant.files import is_quantized, read_graph

SHAPE = [1, 3, 8, 8]


def _written(path: Path, nodes: list[Any], constants: dict[str, Any], out: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", out, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def weights_in_int8(tmp_path: Path) -> Path:
    """A convolution whose weights alone are in int8: the graph has a DequantizeLinear and nothing else of int8."""
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["f"]), helper.make_node("Conv", ["x", "f"], ["y"])]
    weights = np.random.default_rng(0).integers(-127, 127, (4, 3, 3, 3), dtype=np.int8)
    return _written(tmp_path / "weights.onnx", nodes, {"w": weights, "s": np.float32(0.01)})


@pytest.fixture
def called_quantized(tmp_path: Path) -> Path:
    """A float convolution whose node is called QuantizeLinear."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="QuantizeLinear", doc_string="DequantizeLinear")]
    return _written(tmp_path / "called.onnx", nodes, {"w": np.ones((4, 3, 3, 3), np.float32)})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_in_int8_are_int8_and_a_name_is_not(runtime: str, weights_in_int8: Path, called_quantized: Path):
    found = [
        RUNTIMES[runtime].load(path, 1, "fp32", tuple(SHAPE)).effective_precision
        for path in (weights_in_int8, called_quantized)
    ]
    assert found == ["int8", "fp32"]


def test_an_openvino_ir_is_read_by_its_graph(weights_in_int8: Path, called_quantized: Path, tmp_path: Path):
    import openvino

    for path, integer in ((weights_in_int8, True), (called_quantized, False)):
        written = tmp_path / f"{path.stem}.xml"
        openvino.save_model(openvino.Core().read_model(str(path)), str(written), compress_to_fp16=False)
        assert holds_int8(str(written)) is integer
    # An image that comes as bytes is converted, but it is no constant: nothing is computed in int8.
    image = openvino.opset13.parameter(SHAPE, np.uint8)
    graph = openvino.Model([openvino.opset13.relu(openvino.opset13.convert(image, np.float32))], [image])
    openvino.save_model(graph, str(tmp_path / "bytes.xml"), compress_to_fp16=False)
    assert not holds_int8(str(tmp_path / "bytes.xml"))
    fake = openvino.opset13.fake_quantize(
        openvino.opset13.convert(image, np.float32), *(np.float32(value) for value in (0, 1, 0, 1)), 256
    )
    openvino.save_model(openvino.Model([fake], [image]), str(tmp_path / "fake.xml"), compress_to_fp16=False)
    assert holds_int8(str(tmp_path / "fake.xml"))


@pytest.mark.parametrize(
    ("operator", "integer"),
    [
        ("QuantizeLinear", True),
        ("DynamicQuantizeLinear", True),
        ("QLinearConv", True),
        ("QLinearMatMul", True),
        ("ConvInteger", True),
        ("MatMulInteger", True),
        ("DynamicQuantizeMatMul", True),
        ("QLinearGlobalAveragePool", True),
        ("Conv", False),
        ("HardSwish", False),
    ],
)
def test_operators_on_integers_are_known_by_their_names(tmp_path: Path, operator: str, integer: bool):
    path = _written(tmp_path / "net.onnx", [helper.make_node(operator, ["x"], ["y"])], {})
    assert holds_int8(str(path)) is integer
    if operator.startswith(("Quantize", "Dynamic", "QLinear", "Conv", "MatMul")) and "QuantizeMatMul" not in operator:
        assert is_quantized(read_graph(path)) is integer  # what refuses to quantize twice agrees


def test_integers_inside_a_branch_are_found(tmp_path: Path):
    def branch(operator: str) -> Any:
        inner = [helper.make_node(operator, ["x", "s"], ["z"])]
        return helper.make_graph(inner, operator, [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])

    for operator, integer in (("QuantizeLinear", True), ("Mul", False)):
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Mul"), else_branch=branch(operator))
        path = _written(tmp_path / f"{operator}.onnx", [node], {"c": np.array(True), "s": np.float32(1)})
        assert holds_int8(str(path)) is integer


def test_operators_are_those_that_the_onnx_library_reads(tmp_path: Path):
    for name, content in (("tiny", anchor_onnx(ANCHORS[0])), ("streaming", streaming_onnx(1))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        expected = sorted(node.op_type for node in onnx.load(path).graph.node)
        assert sorted(onnx_operators(str(path))) == expected
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"\.onnx is (truncated|not an ONNX model)"):
            list(onnx_operators(str(path)))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        list(onnx_operators(str(path)))


@pytest.mark.parametrize(
    ("layer", "integer"),
    [
        ("Convolution c 1 1 x y 0=4 1=3 6=108", False),
        ("Convolution c 1 1 x y 0=4 1=3 6=108 8=0", False),
        ("Convolution c 1 1 x y 0=4 1=3 6=108 8=2", True),
        ("InnerProduct c 1 1 x y 0=4 2=108 8=1", True),
        ("Quantize c 1 1 x y 0=1", True),
        ("Pooling Quantize 1 1 x y 8=1", False),
    ],
)
def test_ncnn_says_int8_in_a_layers_parameters(tmp_path: Path, layer: str, integer: bool):
    path = tmp_path / "net.param"
    path.write_text(f"7767517\n2 2\nInput in 0 1 x 0=4 1=4 2=2\n{layer}\n")
    assert holds_int8(str(path)) is integer


def _tflite(kind: str, scale: float | None, operator: str) -> bytes:
    """Build a LiteRT model of one operator on a tensor (1, 4) of a type, with a scale or as plain numbers."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, kind: str, scale: float | None) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, np.array([1, 4], np.int32), 0
        made.type = getattr(schema.TensorType, kind)
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.array([scale], np.float32)
            made.quantization.zeroPoint = np.zeros(1, np.int64)
        return made

    code, step, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    code.version = 1
    out = ("FLOAT32", None) if operator == "CAST" else (kind, scale)
    graph.tensors = [tensor("x", kind, scale), tensor("y", *out)]
    step.opcodeIndex, step.inputs, step.outputs = 0, np.array([0], np.int32), np.array([1], np.int32)
    graph.inputs, graph.outputs, graph.operators = step.inputs, step.outputs, [step]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("kind", "scale", "operator", "precision"),
    [
        ("FLOAT32", None, "RELU", "fp32"),
        ("INT8", 0.1, "RELU", "int8"),
        ("UINT8", 0.1, "RELU", "int8"),
        ("UINT8", None, "CAST", "fp32"),  # an image that comes as bytes
    ],
)
def test_litert_is_read_by_its_tensors(
    tmp_path: Path, kind: str, scale: float | None, operator: str, precision: str
) -> None:
    pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
    path = tmp_path / "net.tflite"
    path.write_bytes(_tflite(kind, scale, operator))
    assert RUNTIMES["litert"].load(path, 1, "fp32", (1, 4)).effective_precision == precision


@pytest.mark.slow
def test_a_program_of_pytorch_is_read_by_its_operators(tmp_path: Path):
    import torch
    import torch.ao.quantization.fx._decomposed  # registers the operators

    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = (0.1, 0, -128, 127, torch.int8)
            decomposed = torch.ops.quantized_decomposed
            return decomposed.dequantize_per_tensor(decomposed.quantize_per_tensor(x, *scale), *scale)

    for network, precision in ((Rounded(), "int8"), (torch.nn.ReLU(), "fp32")):
        path = tmp_path / f"{precision}.pt2"
        torch.export.save(torch.export.export(network, (torch.zeros(SHAPE),)), path)
        assert RUNTIMES["torch"].load(path, 1, "fp32", tuple(SHAPE)).effective_precision == precision
