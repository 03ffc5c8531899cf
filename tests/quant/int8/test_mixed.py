"""Sensitivity finds the layer that was made fragile, and mixed precision frees it and no more than it must."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.quant.int8.mixed import quantize_mixed
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.saturation import WEIGHT_STEPS, weight_bits
from tutelage.quant.int8.sensitivity import draw_sensitivity, sensitivity
from tutelage.quant.run import run_onnx
from tutelage.records import InputError

# Scaling one channel of a layer's input up and its weights down leaves the network as it was, but the range of that
# activation is now this many times too wide for the other channels: per-tensor uint8 has none of its levels left for
# them. At 300 a processor that takes eight bits for weights (VNNI) still classified as well.
FACTOR = 3000.0


def made_fragile(source: Path, path: Path) -> str:
    """Write the network with an input of its classifier whose channel 0 is FACTOR times too large; name the layer."""
    model = onnx.load(source)
    last = next(node for node in model.graph.node if node.op_type == "Gemm")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    values = numpy_helper.to_array(weight).copy()  # (classes, features): the exporter writes transB
    scale = np.ones(values.shape[1], np.float32)
    scale[int(np.abs(values).sum(axis=0).argmax())] = FACTOR
    weight.CopyFrom(numpy_helper.from_array(values / scale, weight.name))
    model.graph.initializer.append(numpy_helper.from_array(scale, "stretch"))
    place = list(model.graph.node).index(last)
    model.graph.node.insert(
        place, helper.make_node("Mul", [last.input[0], "stretch"], ["stretched"], name="stretching")
    )
    last.input[0] = "stretched"
    onnx.save(model, path)
    return last.name


@pytest.fixture(scope="module")
def fragile(small, tmp_path_factory) -> tuple[Path, str]:
    """Give the small network made fragile, and the layer's name."""
    path = tmp_path_factory.mktemp("fragile") / "fragile.onnx"
    return path, made_fragile(small, path)


def _accuracy(digits, n: int):
    return lambda logits: float((logits.argmax(axis=1) == digits.val_labels[:n]).mean())


@pytest.mark.slow
def test_the_fragile_layer_is_the_worst(digits, tmp_path) -> None:
    path = tmp_path / "fragile.onnx"
    name = made_fragile(digits.fp32, path)
    np.testing.assert_allclose(run_onnx(path, digits.val_images[:8]), digits.logits[:8], atol=1e-3)
    report = sensitivity(path, digits.images[:32], digits.val_images[:32])
    assert report.worst()[0].name == name
    assert len(report.layers) == len({layer.name for layer in report.layers}) > 30
    draw_sensitivity(report, tmp_path / "sensitivity.png", kept=(name,))
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_mixed_precision_frees_what_it_must(digits, fragile, tmp_path) -> None:
    path, name = fragile
    score = _accuracy(digits, 400)
    plain = quantize_onnx(path, tmp_path / "plain.onnx", digits.images[:32])
    before = score(run_onnx(path, digits.val_images[:400]))
    assert score(run_onnx(plain.path, digits.val_images[:400])) < before - 0.01
    report, order = quantize_mixed(
        path, tmp_path / "mixed.onnx", digits.images[:32], digits.val_images[:400], score, max_drop=1.0
    )
    assert order is not None
    assert report.scheme == "int8-mixed"
    assert name in report.excluded
    assert len(report.excluded) < len(order.layers) / 2
    assert score(run_onnx(report.path, digits.val_images[:400])) >= before - 0.01 - 1e-9


@pytest.mark.slow
def test_the_fastest_of_what_holds_is_kept(digits, fragile, tmp_path) -> None:
    """A clock that likes only the network whose float layers lie at the back: that one is written."""
    path, _ = fragile
    score = _accuracy(digits, 400)
    before = score(run_onnx(path, digits.val_images[:400]))
    seen: list[dict[str, Path]] = []

    def latency(files):
        seen.append(dict(files))
        for file in files.values():
            assert score(run_onnx(file, digits.val_images[:400])) >= before - 0.01 - 1e-9
        return {name: float(name != "back") for name in files}

    report, _ = quantize_mixed(
        path, tmp_path / "mixed.onnx", digits.images[:32], digits.val_images[:400], score, max_drop=1.0, latency=latency
    )
    assert {"noise", "back"} <= set(seen[0])
    last = next(node.name for node in reversed(onnx.load(path).graph.node) if node.op_type == "Gemm")
    assert last in report.excluded
    assert len(report.excluded) <= 3  # the classifier, which was made fragile, is the first from the back


def test_noise_is_what_rounding_alone_does(tmp_path) -> None:
    """One 1 x 1 layer: the noise is that of rounding its input and weights by hand."""
    weight = np.random.default_rng(0).standard_normal((5, 3, 1, 1)).astype(np.float32)
    images = np.random.default_rng(1).uniform(-1, 3, (8, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["a", "w"], ["logits"], name="conv"),
         helper.make_node("Neg", ["input"], ["a"], name="neg")][::-1],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "m.onnx")
    (layer,) = sensitivity(tmp_path / "m.onnx", images, images).layers
    x, step = -images, (images.max() - images.min()) / 255
    rounded_x = np.rint(x / step) * step
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / WEIGHT_STEPS[weight_bits()]
    rounded_w = np.rint(weight / scale) * scale
    exact, rough = (np.einsum("oc,nchw->nohw", w[:, :, 0, 0], v) for w, v in ((weight, x), (rounded_w, rounded_x)))
    assert layer.noise == pytest.approx(np.square(rough - exact).mean() / np.square(exact).mean(), rel=0.05)


def test_a_network_that_holds_keeps_nothing_in_float(digits, small, tmp_path) -> None:
    report, order = quantize_mixed(
        small, tmp_path / "mixed.onnx", digits.images[:32], digits.val_images[:200], _accuracy(digits, 200),
        max_drop=5.0,
    )  # fmt: skip
    assert order is None
    assert report.scheme == "int8-ptq"
    assert report.excluded == ()


def test_a_negative_drop_is_refused(digits, tmp_path) -> None:
    with pytest.raises(InputError, match="max_drop"):
        quantize_mixed(digits.fp32, tmp_path / "m.onnx", digits.images[:4], digits.val_images[:4], len, max_drop=-1)
