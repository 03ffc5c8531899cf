"""Rewrite a network into the runtimes' own operators: hard-swish, hard-sigmoid and global average pooling.

`normalise` gives a deep copy of an `nn.Module`, in eval mode on the CPU, whose outputs differ by rounding only. The
`ofa` package composes these functions from clips and double means, which exporters turn into four operators where a
runtime has one faster operator, and torchao's quantizers refuse the composed form.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

# Tolerance of the rewritten network: largest absolute difference as a fraction of the largest output (at least 1).
TOLERANCE = 2e-5


class SqueezeExcite(nn.Module):
    """Scale channels by a gate on their global average: (batch, c, h, w) -> (batch, c, h, w)."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = self.gate(self.pool(x))
        return x * scale


def normalise(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, float32, on the CPU, built from the runtimes' operators; `model` is left alone."""
    network = copy.deepcopy(model).cpu().float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return _rewrite(network)


@torch.no_grad()
def largest_difference(first: nn.Module, second: nn.Module, images: torch.Tensor) -> float:
    """Give the largest absolute difference of two networks' outputs on `images` (batch, c, h, w)."""
    return float((first(images) - second(images)).abs().max())


def _rewrite(module: nn.Module) -> nn.Module:
    """Replace a module by its runtime twin, children first; a module without a twin is returned as it is."""
    for name, child in module.named_children():
        replacement = _rewrite(child)
        if replacement is not child:
            setattr(module, name, replacement)
    twin = _TWINS.get(_source(module))
    return module if twin is None else twin(module)


def _source(module: nn.Module) -> tuple[str, str]:
    """Name a module by the package that wrote it and its class, so that neither ofa nor timm has to be imported."""
    kind = type(module)
    return kind.__module__.partition(".")[0], kind.__name__


def _hard_swish(module: nn.Module) -> nn.Module:
    return nn.Hardswish(inplace=False)


def _hard_sigmoid(module: nn.Module) -> nn.Module:
    return nn.Hardsigmoid(inplace=False)


def _ofa_pool(module: nn.Module) -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if module.keep_dim else nn.Sequential(pool, nn.Flatten(1))


def _ofa_squeeze_excite(module: nn.Module) -> nn.Module:
    gate = module.fc
    assert isinstance(gate, nn.Module), "ofa's SEModule keeps its gate in .fc"
    return SqueezeExcite(gate)


def _timm_squeeze_excite(module: nn.Module) -> nn.Module:
    order = ("conv_reduce", "act1", "conv_expand", "gate")
    return SqueezeExcite(nn.Sequential(*(module.get_submodule(name) for name in order)))


_TWINS: dict[tuple[str, str], Callable[[nn.Module], nn.Module]] = {
    ("ofa", "Hswish"): _hard_swish,
    ("ofa", "Hsigmoid"): _hard_sigmoid,
    ("ofa", "MyGlobalAvgPool2d"): _ofa_pool,
    ("ofa", "SEModule"): _ofa_squeeze_excite,
    ("timm", "SqueezeExcite"): _timm_squeeze_excite,
    ("timm", "HardSwish"): _hard_swish,
    ("timm", "HardSigmoid"): _hard_sigmoid,
}
