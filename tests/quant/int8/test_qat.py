"""Quantization-aware training: rounding is put in and taken out again, and the int8 files have the ranges it learnt."""

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import quantize_openvino
from tutelage.quant.int8.qat import RoundedLayer, Rounding, finish_qat, fold_batch_norm, prepare_qat, rounded_weight
from tutelage.quant.int8.qat_export import export_learnt
from tutelage.quant.int8.saturation import WEIGHT_STEPS, weight_bits
from tutelage.quant.run import run_onnx, run_openvino
from tutelage.records import InputError


def test_rounding_has_256_levels_and_a_straight_gradient() -> None:
    rounding = Rounding().eval()
    x = torch.linspace(-1, 3, 5001, requires_grad=True)
    y = rounding(x)
    step = 4 / 255
    assert len(y.unique()) == 256
    assert float((y - x).detach().abs().max()) <= step / 2 * 1.01
    y.sum().backward()
    assert (x.grad == 1).all()
    rounding(10 * x.detach())  # in eval mode the range stays
    assert rounding.range.tolist() == [-1, 3]


def test_a_gate_s_range_starts_at_minus_three() -> None:
    rounding = Rounding(gate=(3.0, 6.0)).eval()
    assert float(rounding(torch.linspace(-30, 5, 1001)).min()) == pytest.approx(-3, abs=1e-6)
    scale, zero = rounding.grid()
    assert zero == 127  # half of 255 levels below 0: the slope ends at 3, where hard-sigmoid is 1
    assert scale * zero == pytest.approx(3)


def test_weights_are_rounded_as_onnxruntime_rounds_them() -> None:
    """A channel's largest weight is the last step; what is on the grid already stays."""
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    once = rounded_weight(weight)
    scale = weight.abs().flatten(1).amax(1) / WEIGHT_STEPS[weight_bits()]
    steps = once / scale[:, None, None, None]
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    torch.testing.assert_close(rounded_weight(once), once)
    assert torch.isfinite(rounded_weight(torch.zeros(2, 3))).all()  # dead channels


def test_the_round_trip_gives_the_network_back(digits) -> None:
    images = torch.from_numpy(digits.val_images[:32])
    before = {name: value.clone() for name, value in digits.student.state_dict().items()}
    network = prepare_qat(digits.student, digits.images[:16])
    kinds = [type(module) for module in network.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(RoundedLayer) > 30
    with torch.no_grad():
        rounded = network(images)
        plain = finish_qat(network)(images)
    np.testing.assert_allclose(plain, digits.logits[:32], atol=1e-3)
    assert 0 < float((rounded - plain).abs().mean()) < 0.1 * float(plain.abs().mean())
    assert all(torch.equal(value, before[name]) for name, value in digits.student.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "mobilenetv2_100", "resnet10t"])
def test_timm_networks_fold(name) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, in_chans=1).eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = model(images)
        found = fold_batch_norm(model, images)(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    """Train under rounding for one epoch, at a rate that moves the ranges away from where calibration put them."""
    network = prepare_qat(digits.student, digits.images[:64])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    network.train()
    for chosen in torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).split(100):
        optimizer.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return network.eval()


def test_the_file_has_the_scales_that_training_saw(digits, trained, tmp_path) -> None:
    """Every activation scale of the ONNX Runtime file is one of the trained network's own; calibration would differ."""
    ranges = export_learnt(trained, tmp_path / "trained.onnx", (1, 3, 32, 32))
    learnt = np.array([module.grid()[0] for module in trained.modules() if isinstance(module, Rounding)])
    assert len(ranges) > 0.9 * len(learnt)  # a layer's output and the next one's input may be one tensor
    for low, high in ranges.values():
        assert np.isclose((high - low) / 255, learnt, rtol=1e-5).any()
    made = quantize_onnx(tmp_path / "trained.onnx", tmp_path / "int8.onnx", digits.images[:64], learnt=ranges)
    assert made.scheme == "int8-qat"
    assert made.num_learnt == len(ranges)
    model = onnx.load(made.path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {
        float(constants[node.input[1]]) for node in model.graph.node
        if node.op_type == "QuantizeLinear" and not node.input[1].endswith("_gate_scale")
    }  # fmt: skip
    own = [value for value in found if np.isclose(value, learnt, rtol=1e-5).any()]
    # A folded gate's output is its input's integers read with another scale: the function's own, not a range.
    assert len(own) >= 0.95 * len(found)
    plain = quantize_onnx(tmp_path / "trained.onnx", tmp_path / "ptq.onnx", digits.images[:64])
    assert plain.num_learnt == 0
    assert plain.scheme == "int8-ptq"


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_what_was_trained_is_what_is_deployed(runtime, digits, trained, tmp_path) -> None:
    """The deployed file is nearer to the network that was trained than the same weights quantized afterwards."""
    ranges = export_learnt(trained, tmp_path / "trained.onnx", (1, 3, 32, 32))
    write, run, suffix = (quantize_onnx, run_onnx, "onnx") if runtime == "onnxruntime" else (
        quantize_openvino, run_openvino, "xml"
    )  # fmt: skip
    with torch.no_grad():
        simulated = trained(torch.from_numpy(digits.val_images)).numpy()
    errors, outputs = {}, {}
    for name, learnt in (("qat", ranges), ("ptq", None)):
        made = write(tmp_path / "trained.onnx", tmp_path / f"{name}.{suffix}", digits.images[:64], learnt=learnt)
        outputs[name] = run(made.path, digits.val_images)
        errors[name] = float(np.abs(outputs[name] - simulated).mean())
    assert errors["qat"] < 0.8 * errors["ptq"]
    assert (outputs["qat"].argmax(1) == simulated.argmax(1)).mean() > 0.97
    assert (outputs["qat"].argmax(1) == digits.val_labels).mean() > 0.93


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to quantize"):
        prepare_qat(nn.Flatten(), np.zeros((1, 1, 4, 4), np.float32))
    with pytest.raises(InputError, match="no calibration images"):
        prepare_qat(nn.Conv2d(1, 1, 1), np.zeros((0, 1, 4, 4), np.float32))
