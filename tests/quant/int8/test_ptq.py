"""int8 after training: on a trained student, accuracy holds, bytes shrink, the same inputs give the same file."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.calibration import calibration_hash, draw_by_class
from tutelage.quant.int8.onnxruntime_ptq import QuantReport, quantize_onnx
from tutelage.quant.int8.openvino_ptq import quantize_openvino
from tutelage.quant.int8.sensitivity import sensitivity
from tutelage.quant.run import run_onnx, run_openvino
from tutelage.records import InputError


def _accuracy(logits, labels) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


@pytest.fixture(scope="module")
def calibration(digits):
    chosen = draw_by_class(digits.images, digits.labels, 64, np.random.default_rng(0))
    return digits.images[chosen]


@pytest.fixture(scope="module")
def int8(digits, calibration, tmp_path_factory) -> QuantReport:
    """The student in int8 for ONNX Runtime by min-max, for tests that read the file."""
    return quantize_onnx(digits.fp32, tmp_path_factory.mktemp("onnx") / "int8.onnx", calibration)


@pytest.fixture(scope="module")
def int8_ir(digits, calibration, tmp_path_factory) -> QuantReport:
    """The student in int8 for OpenVINO, which takes seconds."""
    return quantize_openvino(digits.fp32, tmp_path_factory.mktemp("ir") / "int8.xml", calibration)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Three convolutions of random weights, where it does not matter what a network has learnt."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    export_onnx(net.eval(), path, (1, 3, 32, 32))
    return path


def test_the_student_has_learnt(digits) -> None:
    """All that follows means nothing otherwise; chance is .10."""
    assert _accuracy(digits.logits, digits.val_labels) > 0.9


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_onnxruntime_int8_keeps_accuracy(method, digits, calibration, tmp_path) -> None:
    report = quantize_onnx(digits.fp32, tmp_path / "int8.onnx", calibration, method=method)
    accuracy = _accuracy(run_onnx(report.path, digits.val_images), digits.val_labels)
    assert abs(accuracy - _accuracy(digits.logits, digits.val_labels)) <= 0.02
    assert report.size_ratio <= 0.40
    assert report.num_calibration == 64
    assert report.calibration_sha256 == calibration_hash(calibration)
    assert report.method == method


@pytest.mark.slow
def test_openvino_int8_keeps_accuracy(digits, int8_ir) -> None:
    report = int8_ir
    accuracy = _accuracy(run_openvino(report.path, digits.val_images), digits.val_labels)
    assert abs(accuracy - _accuracy(digits.logits, digits.val_labels)) <= 0.02
    assert report.size_ratio <= 0.50  # a .5 M network: the IR's XML alone is .16 of its fp32 bytes
    one_by_one = run_openvino(report.path, digits.val_images[:16], batch_size=1)
    np.testing.assert_allclose(one_by_one, run_openvino(report.path, digits.val_images)[:16], atol=1e-3)
    assert sorted(path.name for path in report.path.parent.iterdir()) == ["int8.bin", "int8.xml"]


def test_every_convolution_is_int8_per_channel(int8) -> None:
    graph = onnx.load(int8.path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.name not in int8.stem]
    assert len(convolutions) > 30
    for node in convolutions:
        weight = makers[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        values, scales = constants[weight.input[0]], constants[weight.input[1]]
        assert values.dtype == np.int8
        assert scales.shape == (values.shape[0],)


def test_same_inputs_same_bytes_and_nothing_left_behind(digits, int8, calibration, tmp_path, monkeypatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)
    again = quantize_onnx(digits.fp32, tmp_path / "out" / "again.onnx", calibration)
    assert again.sha256 == int8.sha256
    assert again.path.read_bytes() == int8.path.read_bytes()
    assert list(scratch.iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["again.onnx"]


@pytest.mark.slow
def test_nothing_is_printed(plain, calibration, tmp_path, capsys) -> None:
    quantize_onnx(plain, tmp_path / "a.onnx", calibration[:8], method="entropy")
    quantize_openvino(plain, tmp_path / "a.xml", calibration[:8])
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_nothing_is_reported_to_the_makers_of_openvino(int8_ir) -> None:
    """Its converter and NNCF send an event a call to Google Analytics, unless the user declined beforehand."""
    telemetry = pytest.importorskip("openvino_telemetry")
    assert int8_ir.runtime == "openvino"
    assert not telemetry.Telemetry().consent


@pytest.mark.slow
def test_constant_channels_are_quantized(digits, plain, calibration, tmp_path) -> None:
    """A dead filter has the range [0, 0] and a constant image a single value: no NaN, no division by zero."""
    model = onnx.load(plain)
    weight = max((t for t in model.graph.initializer if len(t.dims) == 4), key=lambda t: t.dims[0])
    values = numpy_helper.to_array(weight).copy()
    values[0] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "dead.onnx")
    blank = np.zeros_like(calibration[:4])
    report = quantize_onnx(tmp_path / "dead.onnx", tmp_path / "int8.onnx", blank)
    assert np.isfinite(run_onnx(report.path, digits.val_images[:8])).all()
    report = quantize_openvino(tmp_path / "dead.onnx", tmp_path / "int8.xml", blank)
    assert np.isfinite(run_openvino(report.path, digits.val_images[:8])).all()


@pytest.mark.slow
def test_bad_input_is_one_line(digits, int8, calibration, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    with pytest.raises(InputError, match="no calibration images"):
        quantize_onnx(digits.fp32, out, calibration[:0])
    with pytest.raises(InputError, match="no calibration images"):
        quantize_openvino(digits.fp32, out.with_suffix(".xml"), calibration[:0])
    with pytest.raises(InputError, match="image 1 holds NaN"):
        quantize_onnx(digits.fp32, out, np.where(np.arange(3)[:, None, None, None] == 1, np.nan, calibration[:3]))
    with pytest.raises(InputError, match="unknown int8 method 'kl'"):
        quantize_onnx(digits.fp32, out, calibration, method="kl")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no operator named nowhere"):
        quantize_onnx(digits.fp32, out, calibration[:2], exclude=["nowhere"])
    for again in (quantize_onnx, quantize_openvino):
        with pytest.raises(InputError, match="quantized already"):
            again(int8.path, tmp_path / "twice.xml", calibration)


def test_an_operator_the_runtime_does_not_know_is_named(calibration, tmp_path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("Frobnicate", ["input"], ["logits"], domain="acme")
    shape = [None, 3, 32, 32]
    graph = helper.make_graph(
        [node],
        "odd",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "odd.onnx")
    with pytest.raises(InputError, match="Frobnicate"):
        quantize_onnx(tmp_path / "odd.onnx", tmp_path / "int8.onnx", calibration)
    with pytest.raises(InputError, match="Frobnicate"):
        quantize_openvino(tmp_path / "odd.onnx", tmp_path / "int8.xml", calibration)
    assert logging.getLogger("tutelage").isEnabledFor(logging.WARNING), "a refused model silenced the log"


def test_calibration_is_drawn_by_class() -> None:
    labels = np.array([0] * 90 + [1] * 7 + [2] * 3)
    chosen = draw_by_class(None, labels, 15, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [6, 6, 3]  # class 2 has 3, the others share the other 12
    assert (np.diff(chosen) > 0).all()
    again = draw_by_class(None, labels, 15, np.random.default_rng(0))
    assert chosen.tolist() == again.tolist()
    assert len(draw_by_class(None, labels, 500, np.random.default_rng(0))) == 100


def test_calibration_of_many_labels_takes_the_rarest() -> None:
    labels = np.zeros((30, 2), np.float32)
    labels[:20, 0] = 1
    labels[18:20, 1] = 1  # two images carry both labels: they count for the rarer
    chosen = draw_by_class(None, labels, 6, np.random.default_rng(0))
    assert {18, 19} <= set(chosen.tolist())
    assert (chosen < 18).sum() == 2
    assert (chosen >= 20).sum() == 2


def test_the_file_computes_what_its_integers_say(digits, int8, int8_ir) -> None:
    """With the kernels of this processor as without them: where products overflow, the outputs were far away."""
    images = digits.val_images[:100]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(str(int8.path), options, providers=["CPUExecutionProvider"])
    exact = plain.run(None, {"input": images})[0]
    rounding = np.abs(exact - digits.logits[:100]).mean()
    assert np.abs(run_onnx(int8.path, images) - exact).mean() < 0.5 * rounding
    assert np.abs(run_openvino(int8_ir.path, images) - digits.logits[:100]).mean() < 5 * rounding


@pytest.mark.parametrize("saturates", [False, True])
def test_weights_have_the_bits_that_the_processor_multiplies(saturates, digits, plain, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tutelage.quant.int8.saturation.products_saturate", lambda: saturates)
    made = quantize_onnx(plain, tmp_path / "int8.onnx", digits.images[:8])
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(made.path).graph.initializer]
    largest = max(int(np.abs(values.astype(np.int32)).max()) for values in weights if values.dtype == np.int8)
    assert (made.weight_bits, largest) == ((7, 64) if saturates else (8, 127))


@pytest.mark.parametrize("num", [3, 13])
def test_a_file_of_a_fixed_batch_is_calibrated_with_any_number_of_images(num, digits, tmp_path) -> None:
    """Fewer images than the batch, and a rest: none is left out, and none is missing."""
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    export_onnx(small, tmp_path / "fixed.onnx", (8, 3, 32, 32), dynamic_batch=False)
    export_onnx(small, tmp_path / "free.onnx", (8, 3, 32, 32))
    images = digits.images[:num]
    for write, suffix, run in ((quantize_onnx, "onnx", run_onnx), (quantize_openvino, "xml", run_openvino)):
        fixed, free = (write(tmp_path / f"{name}.onnx", tmp_path / f"{name}.int8.{suffix}", images)
                       for name in ("fixed", "free"))  # fmt: skip
        assert fixed.num_calibration == num
        # NNCF corrects biases by means over the images, and a rest is filled with the first ones again.
        np.testing.assert_allclose(
            run(fixed.path, digits.val_images[:16]), run(free.path, digits.val_images[:16]), atol=5e-3
        )
    noise = sensitivity(tmp_path / "fixed.onnx", images, images)
    assert [layer.noise for layer in noise.layers] == pytest.approx(
        [layer.noise for layer in sensitivity(tmp_path / "free.onnx", images, images).layers], rel=0.2
    )


def test_fp32_bytes_count_the_weights_beside_the_file(digits, tmp_path) -> None:
    model = onnx.load(digits.fp32)
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=100)
    made = quantize_onnx(tmp_path / "split.onnx", tmp_path / "int8.onnx", digits.images[:8])
    assert made.fp32_bytes == sum((tmp_path / name).stat().st_size for name in ("split.onnx", "split.data"))
    assert made.size_ratio == pytest.approx(made.size_bytes / digits.fp32.stat().st_size, rel=0.1)
