"""Train pretrained weights on gently: freeze the first stages or all but the classifier, and slow early layers down.

`Frozen` holds what stays as it is; `layer_scales` gives the factor of each parameter's learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.distill.teachers.weights import classifier_prefixes
from tutelage.records import InputError

# Batch norms, whose statistics would follow the new images even where their weights are frozen.
_STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d)


@dataclass(frozen=True)
class Tuning:
    """How pretrained weights are trained on.

    freeze: True leaves the classifier alone trainable (a linear probe); a number freezes so many stages from the input
    on, the stem being the first. layer_decay: the learning rate of a layer over that of the layer behind it, the
    classifier having the schedule's (Clark et al., ICLR 2020; BEiT, Bao et al., ICLR 2022).
    """

    freeze: bool | int = False
    layer_decay: float | None = None


class Frozen:
    """The part of a network that a training leaves as it is; making one stops its gradients.

    Raises InputError where the network has no classifier that is known, or fewer stages.
    """

    def __init__(self, net: nn.Module, freeze: bool | int) -> None:
        stays = _frozen_names(net, freeze)
        for name, parameter in net.named_parameters():
            if name in stays:
                parameter.requires_grad_(False)
        self._names = stays
        self._statistics = [
            module
            for name, module in net.named_modules()
            if isinstance(module, _STATISTICS) and any(f"{name}.{own}" in stays for own, _ in module.named_parameters())
        ]

    def hold(self) -> None:
        """Put the frozen batch norms into eval mode; call it after each `train()` of the network."""
        for module in self._statistics:
            module.eval()

    def release(self, net: nn.Module) -> None:
        """Let the frozen parameters be trained again."""
        for name, parameter in net.named_parameters():
            if name in self._names:
                parameter.requires_grad_(True)


def check_tuning(net: nn.Module, tuning: Tuning) -> None:
    """Refuse what a network cannot be: frozen past its last stage, or slowed by layers that are not known."""
    if tuning.freeze:
        _frozen_names(net, tuning.freeze)
    if tuning.layer_decay is not None:
        layer_scales(net, tuning.layer_decay)


def layer_scales(net: nn.Module, layer_decay: float) -> dict[str, float]:
    """Give the factor of each parameter's learning rate by its name: 1 for the classifier, less for each layer before.

    Layers are the network's blocks, as timm groups them.
    """
    layers = _numbered(net, coarse=False)
    last = max(layers.values())
    return {name: layer_decay ** (last - number) for name, number in layers.items()}


def _frozen_names(net: nn.Module, freeze: bool | int) -> frozenset[str]:
    stages = _numbered(net, coarse=True)
    head = max(stages.values())
    if freeze is True:
        return frozenset(name for name, number in stages.items() if number < head)
    if freeze >= head:
        raise InputError(
            f"freeze: {freeze} leaves no stage of {type(net).__name__} to train before its classifier: it has {head} "
            "stages, the stem included; give less, or true for a linear probe"
        )
    return frozenset(name for name, number in stages.items() if number < freeze)


def _numbered(net: nn.Module, coarse: bool) -> dict[str, int]:
    """Number a network's stages (coarse) or blocks from the input on; the classifier's parameters have the last."""
    names = [name for name, _ in net.named_parameters()]
    prefixes = classifier_prefixes(net)
    head = {name for name in names if name.startswith(prefixes)}
    if not head or len(head) == len(names):
        raise InputError(f"{type(net).__name__} has no classifier that is known: leave freeze and layer_decay out")
    matcher: Any = getattr(net, "group_matcher", None)
    if callable(matcher):
        from timm.models import group_parameters

        groups: Mapping[str, Any] = group_parameters(net, matcher(coarse=coarse), reverse=True)
    else:
        groups = _by_blocks(names)
    order = {group: number for number, group in enumerate(sorted({groups[name] for name in names if name not in head}))}
    return {name: len(order) if name in head else order[groups[name]] for name in names}


def _by_blocks(names: list[str]) -> dict[str, int]:
    """Number the parts of a network in their order: its children, and each entry of a list of blocks for itself."""
    parts: dict[tuple[str, ...], int] = {}
    found = {}
    for name in names:
        path = name.split(".")
        part = tuple(path[:2]) if len(path) > 2 and path[1].isdigit() else (path[0],)
        found[name] = parts.setdefault(part, len(parts))
    return found
