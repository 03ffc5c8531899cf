"""NNI's pruners on OFA subnets: smaller, of the same classes, the weights that were strong, and they learn on."""

import io
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tutelage.quant.prune.prune import count_params, macs, prune, prune_to
from tutelage.records import InputError
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch

SHAPE = (2, 1, 32, 32)


def _subnet() -> nn.Module:
    """An OFA subnet whose batch norms shift, as those of a trained one do."""
    arch = place(PRESETS["EEEA-Net-C1"], SPACES["ofa_mbv3_w0.75_stem1"].with_resolutions((32,)), 32)
    net = build_arch(arch, 3, 1).eval()
    draw = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = 0.1 * torch.randn(layer.num_features, generator=draw)
            layer.bias.data = 0.1 * torch.randn(layer.num_features, generator=draw)
    return net


@pytest.mark.parametrize("pruner", ["nni-l1", "nni-l2", "nni-fpgm"])
def test_a_subnet_is_cut_keeps_its_classes_and_learns_on(pruner: str) -> None:
    whole = _subnet()
    before = count_params(whole)
    cut = prune(whole, SHAPE, 0.5, importance=pruner)
    assert type(cut) is type(whole)
    assert count_params(whole) == before
    assert count_params(cut) < 0.7 * before
    assert macs(cut, SHAPE) < macs(whole, SHAPE)
    images = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert cut(images).shape == (8, 3)
    optimizer = torch.optim.Adam(cut.train().parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(cut(images), torch.arange(8) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_the_filters_of_least_norm_go() -> None:
    """Filters that are zero do nothing where no shift follows: without them the outputs are the same to rounding."""
    torch.manual_seed(0)
    whole = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for layer, dead in ((whole[0], 8), (whole[2], 4)):
            layer.weight[:dead] = 0
            layer.bias[:dead] = 0
    cut = prune(whole, SHAPE, 0.5, importance="nni-l1")
    assert (cut[0].out_channels, cut[2].in_channels, cut[2].out_channels, cut[6].in_features) == (8, 8, 4, 4)
    images = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(cut(images), whole(images))


def test_a_target_in_macs_is_met_and_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    whole = _subnet()
    target = 0.6 * macs(whole, SHAPE)
    cut, report = prune_to(whole, SHAPE, target, importance="nni-l1")
    assert macs(cut, SHAPE) == report.cost <= target
    assert report.cost > 0.5 * target
    assert out.getvalue() == ""


def test_a_network_that_cannot_be_traced_is_refused_in_one_line() -> None:
    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torchvision.models.resnet18(num_classes=3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.net(images if images.sum() > 0 else -images)
            return found

    with pytest.raises(InputError, match=r"Forks cannot be pruned by nni: .*; use magnitude"):
        prune(Forks().eval(), (2, 3, 32, 32), 0.5, importance="nni-l1")
