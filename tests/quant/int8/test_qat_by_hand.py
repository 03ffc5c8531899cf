"""Quantization-aware training in small: every rounding against its formula, and where `prepare_qat` places it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.quant.export.normalise import SqueezeExcite
from tutelage.quant.int8 import qat
from tutelage.quant.int8.qat import (
    RoundedInput,
    RoundedLayer,
    Rounding,
    finish_qat,
    fold_batch_norm,
    prepare_qat,
    rounded_weight,
)
from tutelage.quant.int8.saturation import WEIGHT_STEPS, weight_bits
from tutelage.records import InputError


def _rounded(x: Tensor, low: float, high: float) -> Tensor:
    """Round to 256 levels by the definition: scale = width / 255, zero point = the level of 0, both ends clip."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    levels = (torch.round(x.double() / scale) + zero).clamp(0, 255)
    return ((levels - zero) * scale).float()


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class _Small(nn.Module):
    """A stem, a depthwise convolution, a gated one, squeeze and excite, and a classifier with a hidden layer."""

    def __init__(self, stem_kernel: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, stem_kernel, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.linear = nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.squeeze = SqueezeExcite(nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.Hardsigmoid()))
        self.add = nn.Conv2d(6, 6, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.depthwise(self.stem(x)))
        x = self.squeeze(x)
        x = x + self.add(x)
        result: Tensor = self.classifier(self.pool(x).flatten(1))
        return result


@pytest.fixture
def small() -> _Small:
    return _made(_Small())


def _made(network: _Small) -> _Small:
    """Give every parameter and statistic a value that shows: no weight of 1, no mean of 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if "var" in name else 0.6 * drawn)
    return network.eval()


@pytest.mark.parametrize(
    ("held", "scale", "zero"),
    [
        ((-1.0, 3.0), 4 / 255, 64),  # 63.75 levels lie below 0
        ((2.0, 5.0), 5 / 255, 0),  # 0 is always a level
        ((-4.0, -1.0), 4 / 255, 255),
        ((0.0, 0.0), 1e-8, 0),
    ],
)
def test_the_grid_of_a_range(held: tuple[float, float], scale: float, zero: int) -> None:
    rounding = Rounding()
    assert rounding.range.tolist() == [0, 0]
    rounding.range.copy_(torch.tensor(held))
    assert rounding.grid() == (pytest.approx(scale), zero)


def test_a_value_is_rounded_to_its_nearest_level() -> None:
    rounding = Rounding().eval()
    rounding(torch.tensor([-1.0, 3.0]))
    x = 1 + 2 * _random(1000)
    found = rounding(x)
    torch.testing.assert_close(found, _rounded(x, -1, 3))
    assert float((found - x).abs().max()) > 0.4  # both ends are clipped
    inside = (x > -1) & (x < 2.98)
    assert 0 < float((found - x)[inside].abs().max()) <= 2.001 / 255  # half of a level


def test_ranges_follow_the_batches_in_training_alone() -> None:
    rounding = Rounding().train()
    rounding(torch.tensor([-1.0, 3.0]))
    assert rounding.range.tolist() == [-1, 3]  # the first batch is taken as it is
    rounding(torch.tensor([-2.0, 13.0]))
    assert rounding.range.tolist() == pytest.approx([-1.02, 3.2])  # one fiftieth of the way
    rounding.eval()(torch.tensor([-9.0, 99.0]))
    assert rounding.range.tolist() == pytest.approx([-1.02, 3.2])
    again = Rounding().eval()
    again.load_state_dict(rounding.state_dict())
    again(torch.tensor([-9.0, 99.0]))  # it has seen a batch: the range that was saved stays
    assert again.range.tolist() == pytest.approx([-1.02, 3.2])


def test_infinite_values_leave_a_finite_range() -> None:
    rounding = Rounding().eval()
    rounding(torch.tensor([-math.inf, math.inf]))
    assert rounding.range.tolist() == [-1e6, 1e6]


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 8)])
def test_weights_are_rounded_by_channel(shape: tuple[int, ...]) -> None:
    weight = _random(*shape) * torch.logspace(-2, 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    weight[1] = 0  # a dead channel stays
    found = rounded_weight(weight).numpy()
    for channel, values in zip(found, weight.numpy(), strict=True):
        step = max(np.abs(values).max(), 1e-8) / WEIGHT_STEPS[weight_bits()]
        np.testing.assert_allclose(channel, np.rint(values.astype(np.float64) / step) * step, rtol=1e-5)
    assert not np.allclose(found[0], weight[0], rtol=1e-5)


@pytest.mark.parametrize("is_bare", [False, True])
def test_a_rounded_convolution_is_a_convolution_of_rounded_values(is_bare: bool) -> None:
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    rounded, x = RoundedLayer(layer, is_bare=is_bare).eval(), _random(2, 4, 9, 9)
    low, high = float(x.min()), float(x.max())
    expected = F.conv2d(_rounded(x, low, high), rounded_weight(layer.weight), layer.bias, stride=2, padding=1).detach()
    if is_bare:
        exact, expected = expected, _rounded(expected, float(expected.min()), float(expected.max()))
        assert not torch.allclose(exact, expected, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(rounded(x), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(rounded(x), layer(x), atol=1e-4)


def test_a_rounded_linear_layer_is_exported_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Linear(8, 5), _random(3, 8)
    rounded, low, high = RoundedLayer(layer, is_bare=False).eval(), float(x.min()), float(x.max())
    for exporting, weight in ((False, rounded_weight(layer.weight)), (True, layer.weight)):
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda exporting=exporting: exporting)
        torch.testing.assert_close(rounded(x), F.linear(_rounded(x, low, high), weight, layer.bias))


def test_gradients_pass_both_roundings() -> None:
    layer, x = nn.Linear(8, 5), _random(3, 8).requires_grad_()
    rounded = RoundedLayer(layer, is_bare=True).eval()
    rounded(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, rounded_weight(layer.weight).sum(0).expand(3, 8))
    assert layer.weight.grad is not None
    torch.testing.assert_close(
        layer.weight.grad, _rounded(x.detach(), float(x.min()), float(x.max())).sum(0).expand(5, 8)
    )


def test_where_rounding_is_placed(small: _Small) -> None:
    """The stem stays in float; an output is rounded where nothing that reads it rounds it; the logits never are."""
    network = prepare_qat(small, _random(4, 3, 8, 8).numpy())
    bare = {
        name: isinstance(module.after, Rounding)
        for name, module in network.named_modules()
        if isinstance(module, RoundedLayer)
    }
    assert bare == {
        "depthwise.0": False,  # its gate rounds what it reads
        "linear.0": False,  # squeeze and excite does
        "squeeze.block.gate.0": False,
        "squeeze.block.gate.2": False,
        "add": True,  # an addition reads it
        "classifier": False,  # the logits
    }
    inputs = {
        name: (type(module.block), module.rounding.gate)
        for name, module in network.named_modules()
        if isinstance(module, RoundedInput)
    }
    assert inputs == {
        "depthwise.2": (nn.Hardswish, (3.0, math.inf)),
        "squeeze": (SqueezeExcite, None),
        "squeeze.block.gate.3": (nn.Hardsigmoid, (3.0, 6.0)),
        "pool": (nn.AdaptiveAvgPool2d, None),
    }
    assert type(network.get_submodule("stem.0")) is nn.Conv2d
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_stem_of_long_sums_is_rounded() -> None:
    network = prepare_qat(_made(_Small(stem_kernel=5)), _random(4, 3, 8, 8).numpy())
    assert type(network.get_submodule("stem.0")) is RoundedLayer


def test_calibration_sets_the_first_ranges_in_batches_of_32(small: _Small) -> None:
    images = _random(40, 3, 8, 8)
    images[32:] *= 3
    network = prepare_qat(small, images.numpy())
    with torch.no_grad():
        stem = small.stem(images)
    first, second = (float(part.max()) for part in (stem[:32], stem[32:]))
    reader = network.get_submodule("depthwise.0.rounding")
    assert isinstance(reader, Rounding)
    assert reader.range.tolist() == pytest.approx([0, first + 0.02 * (second - first)], rel=1e-4)


def test_finishing_gives_the_folded_network_back(small: _Small) -> None:
    images = _random(4, 3, 8, 8)
    network = prepare_qat(small, images.numpy())
    plain = finish_qat(network)
    assert {type(module) for module in plain.modules()} == {type(module) for module in small.modules()} - {
        nn.BatchNorm2d
    } | {nn.Identity}
    assert any(isinstance(module, RoundedLayer) for module in network.modules())  # it is a copy
    with torch.no_grad():
        expected = small(images)
        torch.testing.assert_close(plain(images), expected, atol=1e-4, rtol=1e-4)
        assert float((network(images) - expected).abs().max()) > 1e-3


def test_folding_is_its_formula() -> None:
    """w gamma / sqrt(var + eps) and beta - mean gamma / sqrt(var + eps); what a norm holds besides stays."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), BatchNormAct2d(4))
    norm = network[1]
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.copy_(_random(4, seed=int(value.sum()) + 2))
        norm.running_var.copy_(_random(4).abs() + 0.5)
    weight, images = network[0].weight.clone(), _random(2, 3, 6, 6)
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = fold_batch_norm(network.eval(), images)
    torch.testing.assert_close(folded[0].weight, weight * factor[:, None, None, None])
    torch.testing.assert_close(folded[0].bias, norm.bias - norm.running_mean * factor)
    assert [type(part) for part in folded[1]] == [nn.Identity, nn.ReLU]


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),  # its batch's own statistics
        nn.Sequential(nn.Linear(6, 6), nn.BatchNorm2d(3)),  # normalises channels, which are no outputs of the layer
    ],
)
def test_norms_that_cannot_be_folded_stay(network: nn.Sequential) -> None:
    network, images = network.eval(), _random(2, 3, 6, 6)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(fold_batch_norm(network, images)(images), expected)
    assert isinstance(network[1], nn.BatchNorm2d)


class _ReadTwice(nn.Module):
    """A convolution whose output is normalised and added as it is: folding would change the addition."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.convolution, self.norm, self.factor = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), factor
        nn.init.constant_(self.norm.bias, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        result: Tensor = self.factor * (x + self.norm(x))
        return result


def test_a_fold_that_changes_the_outputs_is_refused() -> None:
    images = _random(2, 3, 6, 6)
    with pytest.raises(InputError, match=r"folding BN changes _ReadTwice by \d"):
        fold_batch_norm(_ReadTwice(1.0).eval(), images)
    fold_batch_norm(_ReadTwice(1e-4).eval(), images)  # differences are relative to outputs of at least 1


class _Passing(nn.Module):
    """Every convolution's output is dropped before an activation reads another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(8))
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        for convolution, activation in zip(self.convolutions, self.activations, strict=True):
            x = convolution(x) + 1
            x = 2 * x
            x = activation(x)
        return x


def test_a_reader_takes_the_very_output() -> None:
    """A tensor that lies where a dropped one lay is another tensor."""
    assert qat._readers(_Passing(), _random(1, 3, 2, 2), (nn.ReLU,)) == []
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.ReLU())
    assert qat._readers(network, _random(1, 3, 2, 2), (nn.ReLU,)) == [(network[0], network[1])]


def test_a_network_without_layers_has_nothing_to_round() -> None:
    with pytest.raises(InputError, match="Flatten has no convolution and no linear layer: nothing to quantize"):
        prepare_qat(nn.Flatten(), np.zeros((1, 1, 4, 4), np.float32))
