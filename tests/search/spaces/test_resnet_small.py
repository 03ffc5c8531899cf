"""ResNet-20 in the space of small residual networks, against the network of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.distill.teachers.zoo import build_teacher
from tutelage.search.costs.counts import block_specs, count
from tutelage.search.costs.memory import memory_of
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch

PRESET = PRESETS["ResNet-20-B"]


class _OptionA(nn.Module):
    """The paper's shortcut without weights: every second pixel, zeros in the new channels."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


def _tensors(net: nn.Module) -> list[Tensor]:
    """Weights and statistics of convolutions, norms and the classifier, in their order."""
    return [tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")]


def test_the_preset_is_the_papers_resnet_20_but_for_its_projections() -> None:
    """With the shortcuts of option A in place of option B's, and the same weights, the logits are the same."""
    paper, ours = build_teacher("ResNet-20", 10).double().eval(), build_arch(PRESET, 10).double().eval()
    blocks: Any = ours.blocks
    for block in blocks:
        if hasattr(block.shortcut, "conv"):
            block.shortcut = _OptionA(block.shortcut.out_channels - block.shortcut.in_channels)
    draw = torch.Generator().manual_seed(0)
    for theirs, own in zip(_tensors(paper), _tensors(ours), strict=True):
        theirs.copy_(torch.rand(theirs.shape, generator=draw) + (-0.5 if theirs.ndim > 1 else 0.5))
        own.copy_(theirs)
    images = torch.randn(2, 3, 32, 32, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        logits = paper(images)
        assert logits.std() > 0.1
        torch.testing.assert_close(ours(images), logits)


def test_its_counts_are_the_papers_and_those_of_two_projections() -> None:
    """The paper's table 6 has 0.27 M; 1x1 convolutions of 16 to 32 and 32 to 64 channels with norms come on top."""
    weights, norms = 16 * 32 + 32 * 64, 2 * (32 + 64)
    counted = count([PRESET], 10, 3)
    paper = sum(p.numel() for p in build_teacher("ResNet-20", 10).parameters())
    assert paper == 269_722
    assert counted.params[0] == paper + weights + norms
    # 19 convolutions: 3 channels to 16; 6 of 16 to 16; the others have half the side at twice the channels.
    full = 16 * 16 * 9 * 32**2
    stages = 3 * 16 * 9 * 32**2 + 6 * full + 2 * (full // 2 + 5 * full)
    assert counted.macs[0] == stages + 16 * 32 * 16**2 + 32 * 64 * 8**2 + 64 * 10


def test_a_projected_shortcut_is_added_as_any_other_is() -> None:
    """In a microcontroller's memory a projection takes a convolution's operator, tensors and channels, no addition."""
    projected = next(spec for spec in block_specs(PRESET) if spec.kind == "block" and not spec.shortcut)
    plain, found = memory_of(replace(projected, shortcut=True)), memory_of(projected)
    assert found.persistent - plain.persistent == 64 + 108 + 8 * 32 + 3 * 24
    # Its weights are 2x2 in the file, of which one is the projection's: a stride of 2 pads a row and a column.
    assert found.int8_file - plain.int8_file == 16 * 32 * 4 + 28 * 32 + 344


def test_it_lies_inside_the_space() -> None:
    space = SPACES[PRESET.space].with_resolutions((32,))
    small, preset, large = count([space.smallest(), PRESET, space.largest()], 10, 3).macs
    assert 5 * small < preset < large / 2 + 1e6
    assert len(block_specs(space.smallest())) == 1 + 3 + 1
