"""Quantization-aware training: rounding is put in and taken out without a trace, and training under it pays in int8."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from tutelage.quant.export import export_onnx
from tutelage.quant.ptq import quantize_onnx
from tutelage.quant.qat import RoundedLayer, Rounding, finish_qat, fold_batch_norm, prepare_qat, rounded_weight
from tutelage.quant.run import run_onnx
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
    x = torch.linspace(-30, 3, 1001)
    assert float(Rounding(low=-3.0).eval()(x).min()) == pytest.approx(-3, abs=0.013)


def test_weights_are_rounded_as_onnxruntime_rounds_them() -> None:
    """A channel's largest weight is 127 steps; what is on the grid already stays."""
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    once = rounded_weight(weight)
    scale = weight.abs().flatten(1).amax(1) / 127
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


@pytest.mark.slow
def test_training_under_rounding_holds_in_int8(digits, tmp_path) -> None:
    """The int8 file of a network trained under rounding is no worse than that of the network it started from."""
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    network = prepare_qat(digits.student, digits.images[:64])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    network.train()
    order = torch.Generator().manual_seed(0)
    for _ in range(2):
        for chosen in torch.randperm(len(images), generator=order).split(100):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        simulated = network(torch.from_numpy(digits.val_images)).argmax(1).numpy()
    export_onnx(finish_qat(network), tmp_path / "trained.onnx", (1, 3, 32, 32))
    accuracies = {}
    for name, source in (("ptq", digits.fp32), ("qat", tmp_path / "trained.onnx")):
        made = quantize_onnx(source, tmp_path / f"{name}.int8.onnx", digits.images[:64])
        answers = run_onnx(made.path, digits.val_images).argmax(axis=1)
        accuracies[name] = float((answers == digits.val_labels).mean())
    assert accuracies["qat"] >= accuracies["ptq"] - 0.005
    assert (simulated == answers).mean() > 0.97  # what was trained is what is deployed


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to quantize"):
        prepare_qat(nn.Flatten(), np.zeros((1, 1, 4, 4), np.float32))
    with pytest.raises(InputError, match="no calibration images"):
        prepare_qat(nn.Conv2d(1, 1, 1), np.zeros((0, 1, 4, 4), np.float32))
