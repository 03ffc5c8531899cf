"""Hard-swish on integers: the same function as in float on every level, and no gate of a student left in float."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.quant.int8 import onnxruntime_ptq as ptq
from tutelage.quant.int8.gates import fold_gates, gate_ranges, split_hard_swish
from tutelage.quant.int8.onnxruntime_ptq import prepared, quantize_graph, quantize_onnx
from tutelage.quant.int8.placement import float_stem
from tutelage.quant.int8.ranges import collect
from tutelage.quant.run import run_onnx


def _swish_network(kind: str):
    """A 1 x 1 convolution of weight 1 and the gate on it: (n, 40, 4, 4) -> the same shape."""
    weight = np.eye(40, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["x"], name="conv"),
        helper.make_node(kind, ["x"], ["logits"], name="act", **({"alpha": 1 / 6} if kind == "HardSigmoid" else {})),
    ]
    graph = helper.make_graph(
        nodes,
        "swish",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 40, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 40, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("high", [2.0, 9.0])
def test_hard_swish_is_exact_but_for_the_rounding_of_its_ends(high, tmp_path) -> None:
    """|integer - float| <= the slope, at most 1.5, times half a step of the image and half a step of x."""
    path = tmp_path / "swish.onnx"
    onnx.save(_swish_network("HardSwish"), path)
    images = np.linspace(-12, high, 4 * 640, dtype=np.float32).reshape(4, 40, 4, 4)
    report = quantize_onnx(path, tmp_path / "int8.onnx", images)
    found = run_onnx(report.path, images)
    expected = images * np.clip(images / 6 + 0.5, 0, 1)
    step = (high + 3) / 255 * 1.05  # a whole zero point widens the range by some percent at most
    image_step = (high + 12) / 255
    assert np.abs(found - expected).max() <= 0.75 * (step + image_step)
    assert (found[images <= -3 - step - image_step] == 0).all()  # flat below -3, exactly


def test_the_range_starts_at_the_gate_on_a_whole_zero_point(tmp_path) -> None:
    model = _swish_network("HardSwish")
    split_hard_swish(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "HardSigmoid", "Mul"]
    onnx.save(model, tmp_path / "split.onnx")
    low, high = gate_ranges(tmp_path / "split.onnx", {"x": (-20.0, 5.0)})["x"]
    scale = (high - low) / 255
    assert low == pytest.approx(-3)
    assert high >= 5
    assert -low / scale == pytest.approx(round(-low / scale), abs=1e-9)


def test_who_else_reads_the_input_keeps_its_range(tmp_path) -> None:
    model = _swish_network("HardSwish")
    model.graph.node.append(helper.make_node("Neg", ["x"], ["minus"], name="other"))
    split_hard_swish(model)
    onnx.save(model, tmp_path / "other.onnx")
    assert gate_ranges(tmp_path / "other.onnx", {"x": (-20.0, 5.0)})["x"] == (-20.0, 5.0)


def test_a_student_has_no_gate_left_in_float(digits, tmp_path) -> None:
    report = quantize_onnx(digits.fp32, tmp_path / "int8.onnx", digits.images[:16])
    kinds = [node.op_type for node in onnx.load(report.path).graph.node]
    stem = [name for name in report.stem if "act" in name]
    assert kinds.count("HardSigmoid") == len(stem) == 1  # the float stem's own
    assert set(report.float_operators) <= {"Conv", "HardSigmoid", "Mul"}
    assert float_stem(onnx.load(digits.fp32)) == report.stem
    names = {tensor.name for tensor in onnx.load(report.path).graph.initializer}
    read = {name for node in onnx.load(report.path).graph.node for name in node.input}
    assert names <= read


def test_folding_does_not_change_outputs(digits, tmp_path, monkeypatch) -> None:
    """The same ranges with the gates left in float: outputs differ by the rounding of the gate alone."""
    with prepared(digits.fp32) as graph:
        ranges = {name: (held.low, held.high) for name, held in collect(graph, digits.images[:16]).items()}
        (tmp_path / "folded.onnx").write_bytes(quantize_graph(graph, ranges))
        monkeypatch.setattr(ptq, "fold_gates", lambda model: 0)
        (tmp_path / "unfolded.onnx").write_bytes(quantize_graph(graph, ranges))
    folded, unfolded = onnx.load(tmp_path / "folded.onnx"), onnx.load(tmp_path / "unfolded.onnx")
    gates = {kind: [node.op_type for node in model.graph.node].count("HardSigmoid")
             for kind, model in (("folded", folded), ("unfolded", unfolded))}  # fmt: skip
    assert gates["unfolded"] > gates["folded"] == 1  # the float stem's own
    assert fold_gates(unfolded) == gates["unfolded"] - gates["folded"]
    assert fold_gates(folded) == 0  # nothing is left to fold
    outputs = [run_onnx(tmp_path / f"{kind}.onnx", digits.val_images) for kind in ("folded", "unfolded")]
    scale = np.abs(outputs[1]).mean()
    assert np.abs(outputs[0] - outputs[1]).mean() < 0.05 * scale
    assert np.abs(outputs[0] - digits.logits).mean() < 0.1 * scale


def test_a_logit_beyond_calibration_is_not_cut(digits, tmp_path) -> None:
    """Calibrated on the images of the smallest logits, others still reach beyond what the outputs ever held."""
    highest = run_onnx(digits.fp32, digits.images).max(1)
    dull = digits.images[np.argsort(highest)[:16]]
    report = quantize_onnx(digits.fp32, tmp_path / "int8.onnx", dull)
    last = onnx.load(report.path).graph.node[-1]
    assert (last.op_type, last.output[0]) == ("Gemm", "logits")
    assert run_onnx(report.path, digits.val_images).max() > np.sort(highest)[15]


def test_names_are_short_and_change_nothing(digits, tmp_path, monkeypatch) -> None:
    """Inputs, outputs and the operators that compute keep theirs: a report names them."""
    images = digits.images[:16]
    report = quantize_onnx(digits.fp32, tmp_path / "short.onnx", images)
    monkeypatch.setattr(ptq, "shorten_names", lambda model: None)
    quantize_onnx(digits.fp32, tmp_path / "long.onnx", images)
    short, long = onnx.load(tmp_path / "short.onnx").graph, onnx.load(tmp_path / "long.onnx").graph
    onnx.checker.check_model(onnx.load(tmp_path / "short.onnx"))
    assert [value.name for value in (*short.input, *short.output)] == [
        value.name for value in (*long.input, *long.output)
    ]
    computing = {node.name for node in long.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    assert computing == {node.name for node in short.node if node.name}
    assert max(len(tensor.name) for tensor in short.initializer) <= 5
    assert report.size_bytes < 0.95 * (tmp_path / "long.onnx").stat().st_size
    answers = [run_onnx(tmp_path / name, digits.val_images) for name in ("short.onnx", "long.onnx")]
    np.testing.assert_array_equal(*answers)
