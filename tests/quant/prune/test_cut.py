"""A pruned network is built again from its whole one and the shapes that stayed: the same class, the same answers."""

import importlib.util

import pytest
import timm
import torch
from torch import nn

from tutelage.quant.prune.prune import prune
from tutelage.quant.prune.shapes import apply_shapes, pruned_shapes
from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch

SHAPE = (2, 1, 32, 32)


def _subnet() -> nn.Module:
    return build_arch(SPACES["ofa_mbv3_w0.75_stem1"].with_resolutions((32,)).smallest(), 3, 1, seed=1)


def _mobilenet() -> nn.Module:
    return timm.create_model("mobilenetv2_100", num_classes=3, in_chans=1)


@pytest.mark.skipif(importlib.util.find_spec("torch_pruning") is None, reason="pip install 'tutelage[prune]'")
@pytest.mark.parametrize("make", [_subnet, _mobilenet])
def test_the_cut_network_is_built_again_from_its_shapes(make) -> None:
    whole = make().eval()
    cut = prune(whole, SHAPE, 0.5)
    shapes = pruned_shapes(whole, cut)
    assert shapes
    again = apply_shapes(make(), shapes).eval()
    again.load_state_dict(cut.state_dict())
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), cut(images))
    depthwise = [layer for layer in again.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert depthwise
    assert all(layer.groups == layer.in_channels == layer.out_channels for layer in depthwise)


def test_a_whole_network_has_nothing_cut() -> None:
    assert pruned_shapes(_subnet(), _subnet()) == {}


def test_other_layers_and_unknown_names_are_refused() -> None:
    norm = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8))
    with pytest.raises(InputError, match=r"layer 1 \(GroupNorm\) lost channels"):
        apply_shapes(norm, {"1.weight": (4,)})
    with pytest.raises(InputError, match=r"no tensor named 7\.weight"):
        apply_shapes(norm, {"7.weight": (4,)})
    with pytest.raises(InputError, match="in only one of the two networks"):
        pruned_shapes(norm, nn.Sequential(nn.Conv2d(1, 4, 3)))
