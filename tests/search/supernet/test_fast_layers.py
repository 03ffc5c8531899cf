"""Fast layers compute what the package's did, and are the same network to everyone else."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from tutelage.quant.export.onnx_export import export_onnx
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch
from tutelage.search.supernet.fast_layers import FastDepthwise, use_fast_layers, use_plain_layers


def _preset() -> nn.Module:
    arch = place(PRESETS["EEEA-Net-C1"], SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((32,)), 32)
    return build_arch(arch, 2, 1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_and_gradients_are_those_of_the_slow_layers(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    slow = _preset().train().double().to(memory_format=layout)
    fast = use_fast_layers(copy.deepcopy(slow))
    names = [type(module).__name__ for module in fast.modules()]
    assert "FastDepthwise" in names
    assert {"Hswish", "Hsigmoid"}.isdisjoint(names)
    images = torch.randn(4, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for net in (slow, fast):
        logits = net(images.contiguous(memory_format=layout))
        logits.square().mean().backward()
        outputs.append(logits)
    torch.testing.assert_close(outputs[1], outputs[0])
    for (name, plain), quick in zip(slow.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(quick.grad, plain.grad, msg=name)


def test_the_state_dict_and_its_names_stay() -> None:
    slow = _preset()
    fast = use_fast_layers(copy.deepcopy(slow))
    assert list(fast.state_dict()) == list(slow.state_dict())
    slow.load_state_dict(fast.state_dict())


def test_only_depthwise_convolutions_padded_to_same_without_bias_are_swapped() -> None:
    kept = [
        nn.Conv2d(8, 8, 1, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),  # a bias
        nn.Conv2d(8, 8, 5, padding=4, groups=8, dilation=2, bias=False),
        nn.Conv2d(8, 8, 5, padding=0, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=4, bias=False),
        nn.Conv2d(8, 16, 5, padding=2, groups=8, bias=False),
        nn.Conv2d(8, 8, (5, 7), padding=(2, 3), groups=8, bias=False),
    ]
    swapped = [
        nn.Conv2d(8, 8, 7, padding=3, stride=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # slow where it meets a map of 2x2
    ]
    use_fast_layers(nn.Sequential(*kept, *swapped))
    assert [type(module) for module in kept] == [nn.Conv2d] * len(kept)
    assert [type(module) for module in swapped] == [FastDepthwise] * 2


def test_a_network_without_such_layers_is_left_alone() -> None:
    net = timm.create_model("resnet10t", num_classes=2)
    before = [type(module) for module in net.modules()]
    assert [type(module) for module in use_fast_layers(net).modules()] == before


def test_a_network_with_fast_layers_can_be_exported_once_they_are_plain(tmp_path: Path) -> None:
    net = use_plain_layers(use_fast_layers(_preset())).eval()
    assert not any(isinstance(module, FastDepthwise) for module in net.modules())
    assert export_onnx(net, tmp_path / "net.onnx", (1, 1, 32, 32)).max_difference < 1e-3
