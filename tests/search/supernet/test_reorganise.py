"""Channel sorting between phases: the largest subnet keeps its outputs, the first channels are the important ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.records import Arch
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import build_supernet, forward_subnet
from tutelage.search.supernet.reorganise import importance_order, reorganise
from tutelage.search.supernet.training import PHASES, SupernetSchedule, _enter_phase, choose_archs, start

NAMES = ["ofa_mbv3_w0.75", "ofa_proxyless_w1.3", "ofa_resnet50", "resnet_small_w1.0_stem1"]


def _space(name: str) -> Space:
    return SPACES[name].with_resolutions((32,))


def _net(name: str) -> nn.Module:
    return copy.deepcopy(_built(name))


@lru_cache(maxsize=1)
def _built(name: str) -> nn.Module:
    """A supernet with statistics, scales and shifts of its own in every channel."""
    net = build_supernet(_space(name), 3, 1).double().eval()
    draw = torch.Generator().manual_seed(0)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias.data):
                tensor.copy_(0.1 * torch.randn(len(tensor), generator=draw))
            for tensor in (norm.running_var, norm.weight.data):
                tensor.copy_(1 + 0.5 * torch.rand(len(tensor), generator=draw))
    return net


def _train_a_little(net: nn.Module) -> None:
    """Stand in for a phase of training: every channel's weights change, and with them what is important."""
    draw = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        for along in range(min(parameter.ndim, 2)):
            size = [-1 if dim == along else 1 for dim in range(parameter.ndim)]
            parameter.data.mul_(1 + 0.5 * torch.rand(parameter.shape[along], generator=draw).view(size))


def _outputs(net: nn.Module, archs: Sequence[Arch]) -> list[Tensor]:
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        return [forward_subnet(net.eval(), arch, images) for arch in archs]


def _readers(net: Any, name: str) -> list[tuple[Tensor, list[int]]]:
    """List the weights that read each sorted set of channels, and the widths that end its stretches, largest first."""
    if name.startswith("resnet_small"):
        return [(block.conv2.conv.conv.weight, [block.out_channels * e for e in (1.5, 1, 0.5)]) for block in net.blocks]
    if name != "ofa_resnet50":
        layers = [block.conv for block in net.blocks[1:]]
        return [(layer.point_linear.conv.conv.weight, [layer.in_channels * e for e in (6, 4, 3)]) for layer in layers]
    found = []
    for block in net.blocks:
        widths = [w * e for w, e in zip(block.out_channel_list[::-1], (0.35, 0.25, 0.2), strict=True)]
        found += [(layer.conv.conv.weight, widths) for layer in (block.conv2, block.conv3)]
    stages = [[net.blocks[index] for index in indices] for indices in net.grouped_block_index]
    for place, blocks in enumerate(stages):
        layers = [block.conv1 for block in blocks[1:]]
        layers += (
            [part for block in stages[place + 1][:1] for part in (block.conv1, block.downsample)] if place < 3 else []
        )
        matrices = [layer.conv.conv.weight[:, :, 0, 0] for layer in layers]
        matrices += [net.classifier.linear.linear.weight] if place == 3 else []
        found.append((torch.cat(matrices), blocks[0].out_channel_list[::-1]))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_expand_phase_sorts_again_and_leaves_the_largest_as_it_was(name: str) -> None:
    """Through the steps' own door: entering phase 4 sorts all, entering phase 5 sorts what phase 4 trained."""
    net, largest = _net(name), [_space(name).largest()]
    state = start(net, 1e-3, 0.0, 0.9)
    ends = np.cumsum([phase.epochs for phase in PHASES])
    for phase in (4, 5):
        _train_a_little(net)
        before = _outputs(net, largest)
        state.step = int(ends[phase - 1])
        _enter_phase(state, int(ends[-1]))
        assert state.phase == phase
        torch.testing.assert_close(_outputs(net, largest), before)
        for weight, widths in _readers(net, name):
            importance = weight.detach().abs().sum([0, *range(2, weight.ndim)])
            narrowest = importance[: int(0.9 * widths[phase - 4])]  # 0.9: widths are rounded to whole eighths
            assert (narrowest.diff() <= 1e-9).all()
        assert state.average is not None
        assert all(torch.equal(state.average[key], value) for key, value in net.named_parameters())


def test_subnets_trained_so_far_keep_their_outputs_on_a_resnet() -> None:
    """The second sort moves no channel across a width or a bottleneck that phase 4 trained."""
    net, space = _net("ofa_resnet50"), _space("ofa_resnet50")
    options = SupernetSchedule(epochs=1, method="progressive")
    trained = choose_archs(space, options, 4, 32, np.random.default_rng(0))
    reorganise(net, 1)
    _train_a_little(net)
    before = _outputs(net, trained)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    reorganise(net, 2)
    torch.testing.assert_close(_outputs(net, trained), before)
    assert any(not torch.equal(value, weights[key]) for key, value in net.state_dict().items())


def test_widths_of_a_resnet_keep_the_channels_that_are_read_most() -> None:
    """Silence all but some channels of each stage and of the stem: the narrowest subnet keeps those that speak."""
    net: Any = _net("ofa_resnet50")
    loud = [3, 40, 200]
    for block in net.blocks:
        for layer in (block.conv1, block.downsample):
            if hasattr(layer, "conv"):
                quiet = [i for i in range(layer.conv.conv.weight.shape[1]) if i not in loud]
                layer.conv.conv.weight.data[:, quiet] *= 1e-3
    reorganise(net, 1)
    for block in net.blocks:
        read = block.conv1.conv.conv.weight.abs().sum((0, 2, 3))
        kept = len([i for i in loud if i < len(read)])
        assert read[:kept].min() > 10 * read[kept:].max()


def test_bottlenecks_are_sorted_as_the_package_sorts_them() -> None:
    ours: Any = _net("ofa_resnet50")
    theirs: Any = copy.deepcopy(ours)
    reorganise(ours, 1)
    theirs.re_organize_middle_weights(expand_ratio_stage=0)
    for mine, yours in zip(ours.blocks, theirs.blocks, strict=True):
        for part in ("conv2", "conv3"):  # widths, which it does not sort, leave these sums alone
            sums = [getattr(block, part).conv.conv.weight.abs().sum((0, 2, 3)) for block in (mine, yours)]
            torch.testing.assert_close(*sums)


def test_channels_do_not_cross_a_trained_width() -> None:
    importance = torch.tensor([1.0, 5.0, 2.0, 9.0, 7.0, 8.0])
    assert importance_order(importance, [6]).tolist() == [3, 5, 4, 1, 2, 0]
    assert importance_order(importance, [6, 3]).tolist() == [1, 2, 0, 3, 5, 4]
    kept = importance[importance_order(importance, [6, 4, 2])]
    assert all((kept[a:b].diff() <= 0).all() for a, b in pairwise((0, 2, 4, 6)))
