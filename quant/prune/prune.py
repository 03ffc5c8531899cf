"""Structured pruning: remove whole channels of a trained network until its cost is within a target.

`prune_to` prunes to a cost (MACs by default, or any callable such as a measured latency), `prune` by a ratio. Both give
a smaller dense copy, to be fine-tuned and exported as any other network. torch-pruning traces which channels depend on
each other (residuals, depthwise convolutions, squeeze-and-excite; Fang et al., DepGraph, CVPR 2023).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from tutelage.quant.run import require
from tutelage.records import InputError, Record

from .nni_prune import prune_by_nni

log = logging.getLogger(__name__)

# magnitude: the L2 norm of a group of channels (Fang et al.); taylor: |weight x gradient|, its first-order part of the
# loss (Molchanov et al., CVPR 2019), which needs images with labels; nni-*: pruners of NNI (nni_prune.py).
Importance = Literal["magnitude", "taylor", "nni-l1", "nni-l2", "nni-fpgm"]
Cost = Callable[[nn.Module], float]

# Integer kernels work on 8 channels at once: other widths pay for the next multiple.
CHANNEL_MULTIPLE = 8
# Beyond, layers lose their last channels and the network no longer trains.
MAX_RATIO = 0.95
_BISECTIONS = 7  # of the ratio: steps of under 1 %


class PruneReport(Record):
    """The result of pruning: the ratio of channels removed in every layer, and the cost before and after."""

    importance: str
    ratio: float
    params: int
    params_before: int
    cost: float
    cost_before: float
    target: float


def prune_to(
    model: nn.Module,
    input_shape: Sequence[int],
    target: float,
    *,
    cost: Cost | None = None,
    importance: Importance = "magnitude",
    batch: tuple[torch.Tensor, torch.Tensor] | None = None,
    channel_multiple: int = CHANNEL_MULTIPLE,
) -> tuple[nn.Module, PruneReport]:
    """Give a copy of `model` with the fewest channels removed that bring its cost to `target` or below.

    input_shape: (batch, c, h, w), batch at least 2. cost: module -> a number that falls with the channels; default MACs
    of one image. batch: images (n, c, h, w) and class labels (n,) for `taylor`. The classifier's outputs are left
    alone, `model` too. Raises InputError for a target out of reach, or a network that cannot be traced.
    """
    require_pruner(importance)
    if importance == "taylor" and batch is None:
        raise InputError("importance 'taylor' needs gradients: give a batch of images and labels")
    measure = cost or (lambda network: macs(network, input_shape))
    before = measure(model)
    if not target > 0:
        raise InputError(f"target {target}: give a positive cost")
    if before <= target:
        raise InputError(f"the network costs {before:.4g} already, within the target {target:.4g}: nothing is pruned")
    low, high = 0.0, MAX_RATIO
    best = prune(model, input_shape, high, importance=importance, batch=batch, channel_multiple=channel_multiple)
    reached = measure(best)
    if reached > target:
        raise InputError(
            f"pruning {high:.0%} of the channels leaves a cost of {reached:.4g}, above the target {target:.4g}: "
            "start from a smaller network"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        trial = prune(model, input_shape, middle, importance=importance, batch=batch, channel_multiple=channel_multiple)
        found = measure(trial)
        if found <= target:
            best, reached, high = trial, found, middle
        else:
            low = middle
    done = PruneReport(
        importance=importance,
        ratio=high,
        params=count_params(best),
        params_before=count_params(model),
        cost=reached,
        cost_before=before,
        target=target,
    )
    log.info("pruned %.0f %% of the channels: cost %.4g of %.4g", 100 * high, reached, before)
    return best, done


def prune(
    model: nn.Module,
    input_shape: Sequence[int],
    ratio: float,
    *,
    importance: Importance = "magnitude",
    batch: tuple[torch.Tensor, torch.Tensor] | None = None,
    channel_multiple: int = CHANNEL_MULTIPLE,
) -> nn.Module:
    """Give a copy of `model` without the least important `ratio` (0 to .95) of every layer's channels.

    NNI's pruners know no `channel_multiple`, and leave more channels where several layers must agree on theirs.
    """
    require_pruner(importance)
    if not 0 <= ratio <= MAX_RATIO:
        raise InputError(f"pruning ratio {ratio}: give a fraction of the channels from 0 to {MAX_RATIO}")
    shape = tuple(int(size) for size in input_shape)
    if len(shape) != 4 or shape[0] < 2:
        raise InputError(f"input_shape must be (batch, c, h, w) with at least 2 images, got {shape}")
    network = copy.deepcopy(model).cpu().float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    classes = int(_outputs(network, example).shape[1])
    if importance.startswith("nni-"):
        return prune_by_nni(network, example, ratio, importance, _heads(network, classes))
    import torch_pruning as pruning

    weigh: Any = pruning.importance.GroupMagnitudeImportance(p=2)
    if importance == "taylor":
        assert batch is not None, "prune_to checks it"
        weigh = pruning.importance.GroupTaylorImportance()
        loss: Any = F.cross_entropy(network(batch[0]), batch[1])
        loss.backward()
    try:
        pruning.pruner.BasePruner(
            network, example, importance=weigh, pruning_ratio=ratio, ignored_layers=_heads(network, classes),
            pruning_ratio_dict=_ratios(network, ratio, channel_multiple),
        ).step()  # fmt: skip
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:  # its tracer has no error of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{type(model).__name__} cannot be pruned: {reason}; prune another network") from error
    network.zero_grad(set_to_none=True)
    outputs = _outputs(network, example)
    if outputs.shape[1] != classes:
        raise InputError(f"{type(model).__name__} lost outputs ({classes} to {outputs.shape[1]}); prune another one")
    return network


def require_pruner(importance: Importance) -> None:
    """Raise InputError with the command that installs the library which prunes so, where it is not there."""
    if importance.startswith("nni-"):
        require("nni", "nni")
    else:
        require("torch_pruning", "prune")


def macs(model: nn.Module, input_shape: Sequence[int]) -> float:
    """Count multiply-accumulates of one image by torch's FlopCounterMode / 2 (convolutions, linear, matmul)."""
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *tuple(input_shape)[1:]))
    finally:
        model.train(was_training)
    return float(counter.get_total_flops()) / 2


def count_params(model: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def _outputs(network: nn.Module, example: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = network(example)
    if outputs.ndim != 2:
        raise InputError(f"a classifier gives (batch, classes), this network {tuple(outputs.shape)}")
    return outputs


def _ratios(network: nn.Module, ratio: float, multiple: int) -> dict[nn.Module, float]:
    """Give the ratio to remove from each layer, so that a positive multiple of `multiple` channels is left.

    The library rounds down itself: where fewer than `multiple` would be left it prunes nothing at all.
    """
    ratios: dict[nn.Module, float] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            channels = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
            kept = min(channels, max(multiple, round(channels * (1 - ratio) / multiple) * multiple))
            ratios[layer] = max(0.0, 1 - (kept + 0.01) / channels)  # the library takes the whole part of what is left
    return ratios


def _heads(network: nn.Module, classes: int) -> list[nn.Module]:
    """Name the layer whose outputs are the classes: the last linear or convolution of that width."""
    fits: list[nn.Module] = [
        layer
        for layer in network.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
    return fits[-1:]
