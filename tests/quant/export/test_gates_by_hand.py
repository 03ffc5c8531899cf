"""Gates on small graphs by hand: every level of the integers, what is left alone, and free outputs and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.quant.int8.gates import (
    fold_gates,
    free_outputs,
    gate_range,
    gate_ranges,
    shorten_names,
    split_hard_swish,
)

LEVELS = np.arange(256, dtype=np.uint8)


def _model(nodes: list[Any], inputs: dict[str, int], outputs: list[str], constants: dict[str, np.ndarray]) -> Any:
    graph = helper.make_graph(
        nodes,
        "gates",
        [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _gate(scale: float, zero: Any, swish: bool = False, more: tuple[Any, ...] = (), **slope: float) -> Any:
    """levels -> DQ -> HardSigmoid -> Q -> DQ -> gated, times the values themselves where it is a swish."""
    nodes = [
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["x"], name="before"),
        helper.make_node("HardSigmoid", ["x"], ["gate"], name="act", **slope),
        helper.make_node("QuantizeLinear", ["gate", "gate_s", "gate_z"], ["gate_q"], name="after"),
        helper.make_node("DequantizeLinear", ["gate_q", "gate_s", "gate_z"], ["gated"], name="reader"),
        *([helper.make_node("Mul", ["x", "gated"], ["swish"], name="mul")] if swish else []),
        *more,
    ]
    constants = {
        "scale": np.array(scale, np.float32), "zero": np.array(zero),
        "gate_s": np.array(1 / 255, np.float32), "gate_z": np.array(0, np.uint8),
    }  # fmt: skip
    kind = TensorProto.UINT8 if np.array(zero).dtype == np.uint8 else TensorProto.INT8
    return _model(nodes, {"levels": kind}, ["swish" if swish else "gated"], constants)


def _run(model: Any, feed: dict[str, np.ndarray]) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values: np.ndarray = session.run(None, feed)[0]
    return values


def _kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


SIXTH = {"alpha": 1 / 6, "beta": 0.5}


@pytest.mark.parametrize(
    ("zero", "high", "slope", "width"),
    [
        (60, 9.75, SIXTH, 6.0),  # 120 of 255 levels are the slope's
        (200, 0.825, SIXTH, 6.0),  # the range ends inside the slope: no level is clipped
        (100, 3.875, {}, 5.0),  # ONNX's own slope: alpha .2, beta .5
    ],
)
@pytest.mark.parametrize("swish", [False, True])
def test_a_folded_gate_is_the_function_itself_on_every_level(
    zero: int, high: float, slope: dict[str, float], width: float, swish: bool
) -> None:
    scale = width / 2 / zero
    assert high == pytest.approx(scale * (255 - zero))
    model = _gate(scale, np.uint8(zero), swish, **slope)
    assert fold_gates(model) == 1
    clipped = width / scale < 255
    assert _kinds(model) == [
        *(["DequantizeLinear"] if swish else []),
        *(["Clip"] if clipped else []),
        "DequantizeLinear",
        *(["Mul"] if swish else []),
    ]
    assert [node.name for node in model.graph.node if node.op_type == "Clip"] == ["act/clip"] * clipped
    values = (LEVELS.astype(np.float64) - zero) * scale
    expected = np.clip(values / width + 0.5, 0, 1) * (values if swish else 1)
    np.testing.assert_allclose(_run(model, {"levels": LEVELS}), expected, atol=1e-6)
    assert fold_gates(model) == 0


def test_gates_that_cannot_be_folded_are_left_as_they_are() -> None:
    start = 3 / 60
    two = helper.make_node("Neg", ["gate"], ["minus"], name="other")
    lone = _gate(start, np.uint8(60), **SIXTH)
    lone.graph.node[2].op_type, lone.graph.node[3].op_type = "Identity", "Identity"
    for node in lone.graph.node[2:]:
        del node.input[1:]
    seen = _gate(start, np.uint8(60), **SIXTH)
    seen.graph.output.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["n"]))
    floating = _gate(start, np.uint8(60), **SIXTH)
    floating.graph.node[0].op_type = "Identity"
    for model in (
        _gate(start, np.int8(60), **SIXTH),  # the function of signed levels ends elsewhere
        _gate(start, np.uint8(61), **SIXTH),  # a range that does not start where the gate does
        _gate(start * 1.001, np.uint8(60), **SIXTH),
        _gate(start, np.uint8(60), more=(two,), **SIXTH),  # somebody reads the gate in float
        lone, seen, floating,
    ):  # fmt: skip
        before = model.SerializeToString()
        assert fold_gates(model) == 0
        assert model.SerializeToString() == before
    # The scale is a float32: where rounding alone moves the start, the gate is folded.
    assert fold_gates(_gate(float(np.float32(3 / 7)), np.uint8(7), **SIXTH)) == 1


def test_two_gates_are_folded_apart_and_the_rest_keeps_its_order() -> None:
    nodes, constants = [], {"gate_s": np.array(1 / 255, np.float32), "gate_z": np.array(0, np.uint8)}
    for name, zero in (("a", 60), ("b", 100)):
        nodes += [
            helper.make_node("DequantizeLinear", ["levels", f"{name}_s", f"{name}_z"], [f"{name}_x"]),
            helper.make_node("HardSigmoid", [f"{name}_x"], [f"{name}_gate"], name=name, **SIXTH),
            helper.make_node("QuantizeLinear", [f"{name}_gate", "gate_s", "gate_z"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "gate_s", "gate_z"], [f"{name}_1"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "gate_s", "gate_z"], [f"{name}_2"]),
            helper.make_node("Sub", [f"{name}_1", f"{name}_2"], [f"{name}_zero"]),
        ]
        constants |= {f"{name}_s": np.array(3 / zero, np.float32), f"{name}_z": np.uint8(zero)}
    nodes.append(helper.make_node("Add", ["a_1", "b_zero"], ["s"]))
    nodes.append(helper.make_node("Add", ["s", "b_2"], ["sum"]))
    model = _model(nodes, {"levels": TensorProto.UINT8}, ["sum"], {k: np.array(v) for k, v in constants.items()})
    assert fold_gates(model) == 2
    assert _kinds(model) == ["Clip", "DequantizeLinear", "DequantizeLinear", "Sub"] * 2 + ["Add", "Add"]
    levels = LEVELS.astype(np.float64)
    expected = np.clip(levels / 120, 0, 1) + np.clip(levels / 200, 0, 1)
    np.testing.assert_allclose(_run(model, {"levels": LEVELS}), expected, atol=1e-6)
    # One that cannot be folded does not keep the next from it.
    constants["a_z"] = np.uint8(61)
    mixed = _model(nodes, {"levels": TensorProto.UINT8}, ["sum"], {k: np.array(v) for k, v in constants.items()})
    assert fold_gates(mixed) == 1


@pytest.mark.parametrize(
    ("high", "width", "zero"),
    [(9.0, np.inf, 63), (9.0, 6.0, 127), (1.0, 6.0, 191), (3.0, 6.0, 127), (-5.0, 6.0, 250), (0.05, np.inf, 250)],
)
def test_a_range_starts_at_the_gate_and_holds_what_is_needed(high: float, width: float, zero: int) -> None:
    """255 levels from -3: the largest whole zero point at which the highest value that matters still fits."""
    low, top = gate_range(3.0, width, high)
    assert low == -3
    scale = 3 / zero
    assert top == pytest.approx(scale * (255 - zero))
    needed = max(min(high, width - 3), 0.05)
    assert top >= needed - 1e-9
    assert 3 / (zero + 1) * (254 - zero) < needed  # one level more below 0 would leave too few above
    assert gate_range(3.0, np.inf, 1e6) == (-3.0, 3.0 * 254)  # a zero point is at least 1


def _float_gate(*more: Any, outputs: tuple[str, ...] = ("swish",), kind: str = "Mul", **slope: float) -> Any:
    nodes = [
        helper.make_node("Abs", ["input"], ["x"]),
        helper.make_node("HardSigmoid", ["x"], ["gate"], name="act", **slope),
        helper.make_node(kind, ["x", "gate"], ["swish"]),
        *more,
    ]
    return _model(nodes, {"input": TensorProto.FLOAT}, list(outputs), {})


def test_ranges_of_what_feeds_only_a_gate_are_its_own(tmp_path: Path) -> None:
    def found(model: Any, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        onnx.save(model, tmp_path / "net.onnx")
        return gate_ranges(tmp_path / "net.onnx", ranges)

    own = {"x": (-20.0, 9.0), "other": (-1.0, 1.0)}
    # Values are needed as well, so the range goes up to the highest; a gate alone needs no more than its slope.
    assert found(_float_gate(**SIXTH), own) == {**own, "x": pytest.approx(gate_range(3.0, np.inf, 9.0))}
    alone = _float_gate(**SIXTH)
    alone.graph.node[2].input[0] = "gate"
    assert found(alone, own)["x"] == pytest.approx(gate_range(3.0, 6.0, 9.0))
    assert found(_float_gate(), own)["x"] == pytest.approx(gate_range(2.5, np.inf, 9.0))
    # Kept: an unknown tensor, one that another operator, another product or the output reads.
    assert found(_float_gate(**SIXTH), {"other": (-1.0, 1.0)}) == {"other": (-1.0, 1.0)}
    for model in (
        _float_gate(helper.make_node("Neg", ["x"], ["minus"]), **SIXTH),
        _float_gate(helper.make_node("Mul", ["x", "input"], ["product"]), **SIXTH),
        _float_gate(outputs=("swish", "x"), **SIXTH),
        _float_gate(kind="Add", **SIXTH),
    ):
        assert found(model, own) == own


def test_hard_swish_is_written_as_two_operators_that_compute_it() -> None:
    nodes = [
        helper.make_node("HardSwish", ["input"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"], name="neg"),
        helper.make_node("HardSwish", ["b"], ["c"]),
    ]
    model = _model(nodes, {"input": TensorProto.FLOAT}, ["c"], {})
    images = np.linspace(-8, 8, 99, dtype=np.float32)
    expected = _run(model, {"input": images})
    split_hard_swish(model)
    assert _kinds(model) == ["HardSigmoid", "Mul", "Neg", "HardSigmoid", "Mul"]
    names = [node.name for node in model.graph.node]
    assert names == ["first/gate", "first/mul", "neg", "HardSwish_of_c/gate", "HardSwish_of_c/mul"]
    np.testing.assert_allclose(_run(model, {"input": images}), expected, atol=1e-6)


def _rounded_output(*more: Any, outputs: tuple[str, ...] = ("logits",)) -> Any:
    nodes = [
        helper.make_node("Neg", ["input"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]),
        *more,
    ]
    constants = {"s": np.array(0.5, np.float32), "z": np.array(128, np.uint8)}
    return _model(nodes, {"input": TensorProto.FLOAT}, list(outputs), constants)


def test_outputs_are_given_unrounded() -> None:
    model = _rounded_output()
    free_outputs(model)
    assert _kinds(model) == ["Neg"]
    assert not model.graph.initializer
    np.testing.assert_array_equal(_run(model, {"input": np.float32([0.3, 1e4])}), np.float32([-0.3, -1e4]))


def test_outputs_that_another_operator_needs_rounded_stay_so() -> None:
    read_twice = _rounded_output(helper.make_node("Abs", ["x"], ["more"]))
    integers_too = _rounded_output(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["more"]))
    plain = _rounded_output(helper.make_node("Abs", ["logits"], ["more"]), outputs=("more",))
    for model in (read_twice, integers_too, plain):
        before = _kinds(model)
        free_outputs(model)
        assert _kinds(model) == before
        assert sorted(tensor.name for tensor in model.graph.initializer) == ["s", "z"]
    both = _rounded_output(helper.make_node("Abs", ["input"], ["more"]), outputs=("more", "logits"))
    free_outputs(both)  # the first has nothing to take away, the second has
    assert _kinds(both) == ["Neg", "Abs"]


def test_tensors_get_short_names_and_compute_the_same() -> None:
    model = _gate(3 / 60, np.uint8(60), swish=True, **SIXTH)
    model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]))
    expected = _run(model, {"levels": LEVELS})
    fold_gates(model)
    folded = _run(model, {"levels": LEVELS})
    shorten_names(model)
    assert [node.name for node in model.graph.node] == ["", "act/clip", "", "mul"]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("levels", "swish")
    inner = {name for node in model.graph.node for name in (*node.input, *node.output)} - {"levels", "swish", ""}
    assert all(name[0] == "t" and len(name) <= 3 for name in inner)
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    assert clip.input[1] == ""  # left out, not renamed
    assert not model.graph.value_info
    np.testing.assert_array_equal(_run(model, {"levels": LEVELS}), folded)
    np.testing.assert_allclose(folded, expected, atol=3 / 255)
