"""Evaluate many subnets of one supernet together: `SubnetTree`, which computes what they have in common once.

The forward of a subnet is a sequence of steps (`forward.steps_of`). Subnets with the same first steps share them in a
tree, in calibration as in evaluation: the stem and the first block are of all, a search's later candidates differ in a
few blocks. Batch norm's statistics are kept in the tree; the supernet is only read, so threads may share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.accelerator import device_of
from tutelage.records import Arch

from .forward import Step, activate, convolve_same, steps_of

# Statistics of one batch norm: images of the batch, mean (channels,) and unbiased variance (channels,).
_Statistics = tuple[int, Tensor, Tensor]


class _Node:
    """A step, what follows it, and the statistics of its batch norms: of every batch, then their average."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.children: dict[tuple[object, ...], _Node] = {}
        self.subnet = -1  # which subnet ends here
        self.batches: dict[int, dict[nn.BatchNorm2d, _Statistics]] = {}
        self.average: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def observe(
        self, batch: int, x: Tensor, weight: Tensor, bn: nn.BatchNorm2d | None, act: str | None, stride: int = 1
    ) -> Tensor:
        """Normalise by the batch's statistics and note them."""
        if bn is None:
            return activate(convolve_same(x, weight, stride), act)
        widens = weight.shape[-1] == 1 and weight.shape[0] > weight.shape[1] == x.shape[1]
        if widens and stride == 1 and x.device.type == "cpu":  # on a GPU TF32 would round the covariance
            mean, var = _of_product(x, weight)
            num = x.shape[0] * x.shape[2] * x.shape[3]
            self.batches[batch][bn] = len(x), mean, var * num / (num - 1)
            weight, bias = _folded(weight, bn, mean, var)
            return activate(convolve_same(x, weight, stride, bias), act)
        y = convolve_same(x, weight, stride)
        c = y.shape[1]
        mean, var = y.new_zeros(c), y.new_zeros(c)  # with momentum 1 they become the batch's
        y = F.batch_norm(y, mean, var, bn.weight[:c], bn.bias[:c], True, 1.0, bn.eps)
        self.batches[batch][bn] = len(x), mean, var
        return activate(y, act)

    def settle(self) -> None:
        """Average the statistics of the batches, each weighted by its images."""
        noted = [self.batches[batch] for batch in sorted(self.batches)]
        for bn in noted[0] if noted else ():
            counts, means, variances = zip(*(one[bn] for one in noted), strict=True)
            weights = torch.tensor(counts, dtype=means[0].dtype, device=means[0].device) / sum(counts)
            self.average[bn] = _weighted(weights, means), _weighted(weights, variances)
        for child in self.children.values():
            child.settle()

    def evaluate(
        self, x: Tensor, weight: Tensor, bn: nn.BatchNorm2d | None, act: str | None, stride: int = 1
    ) -> Tensor:
        """Normalise by the average statistics, folded into weight and bias."""
        bias = None
        if bn is not None:
            weight, bias = _folded(weight, bn, *self.average[bn])
        return activate(convolve_same(x, weight, stride, bias), act)


def _weighted(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Give the weighted sum (channels,) of `values`; on a GPU not as a matrix product, which TF32 would round."""
    together = torch.stack(list(values))
    return weights @ together if weights.device.type == "cpu" else (weights[:, None] * together).sum(0)


def _folded(weight: Tensor, bn: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Give weight and bias of the convolution that normalises its output by these statistics (channels,)."""
    scale = bn.weight[: len(mean)] / torch.sqrt(var + bn.eps)
    return weight * scale[:, None, None, None], bn.bias[: len(mean)] - mean * scale


def _of_product(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and biased variance (out,) of the 1x1 convolution of x by weight (out, in, 1, 1), before it is made.

    They follow from mean and covariance of x, which has fewer channels: W m, and the diagonal of W C W'. It saves the
    passes of batch norm over the widest maps.
    """
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    center = rows.mean(0)
    rows = rows - center  # first, for the difference of large squares has few digits
    matrix = weight.flatten(1)
    covariance = rows.T @ rows / len(rows)
    return matrix @ center, (matrix @ covariance * matrix).sum(1).clamp_min(0)


class SubnetTree:
    """Subnets of one resolution as a tree of steps. The supernet must be in eval mode and stay as it is."""

    def __init__(self, net: nn.Module, archs: Sequence[Arch]) -> None:
        self._num = len(archs)
        self.device = device_of(net)
        self._roots: dict[tuple[object, ...], _Node] = {}
        self._index: list[int] = []  # subnets that are equal end in one node
        for position, arch in enumerate(archs):
            level, node = self._roots, None
            for step in steps_of(net, arch):
                node = level.setdefault(step.key, _Node(step))
                level = node.children
            assert node is not None
            node.subnet = position if node.subnet < 0 else node.subnet
            self._index.append(node.subnet)

    def calibrate(self, batch: int, images: Tensor) -> None:
        """Note the statistics of batch norm on one batch (n, channels, side, side), by its number."""
        with torch.inference_mode():
            x = images.contiguous(memory_format=torch.channels_last)
            for node in self._roots.values():
                self._calibrate(node, batch, x)

    def settle(self) -> None:
        """Average the statistics of all batches: `evaluate` uses these."""
        with torch.inference_mode():
            for node in self._roots.values():
                node.settle()

    def evaluate(self, images: Tensor) -> Tensor:
        """Give the logits (subnets, n, classes) of images (n, channels, side, side)."""
        with torch.inference_mode():
            x = images.contiguous(memory_format=torch.channels_last)
            logits: dict[int, Tensor] = {}
            for node in self._roots.values():
                self._evaluate(node, x, logits)
            return torch.stack([logits[index] for index in self._index])

    def _calibrate(self, node: _Node, batch: int, x: Tensor) -> None:
        node.batches[batch] = {}
        x = node.step.run(x, partial(node.observe, batch))
        for child in node.children.values():
            self._calibrate(child, batch, x)

    def _evaluate(self, node: _Node, x: Tensor, logits: dict[int, Tensor]) -> None:
        x = node.step.run(x, node.evaluate)
        if node.subnet >= 0:
            logits[node.subnet] = x
        for child in node.children.values():
            self._evaluate(child, x, logits)
