"""Normalisation: images as a network's pretrained weights want them, and batch norm's statistics without their start.

Batches are normalised alike for all networks of a run (`loader.NORMALISATION`). `Renormalisation` takes them to a
network's own; as a hook in front of a network (`normalised_inputs`) it does so on the device, in training.
`InitialStatistics` takes the initial values out of running statistics after a training of few batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.distill.data.loader import NORMALISATION


class Renormalisation:
    """Take images `(b, c, h, w)` from the run's normalisation to another mean and standard deviation, one a channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        usual = [torch.tensor(values, dtype=torch.float64) for values in NORMALISATION[len(mean)]]
        own_mean, own_std = (torch.tensor(tuple(values), dtype=torch.float64) for values in (mean, std))
        self.scale = (usual[1] / own_std).float()[:, None, None]
        self.shift = ((usual[0] - own_mean) / own_std).float()[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        return images * self.scale.to(images.device) + self.shift.to(images.device)


class _Front:
    """A hook in front of a network; a module of its own would change the names of the network's tensors and layers."""

    def __init__(self, renormalise: Renormalisation) -> None:
        self.renormalise = renormalise

    def __call__(self, net: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.renormalise(inputs[0]), *inputs[1:])


def put_in_front(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Make a network take the run's images from now on; give the handle whose `remove` undoes it."""
    return net.register_forward_pre_hook(_Front(Renormalisation(mean, std)))


@contextmanager
def normalised_inputs(net: nn.Module, own: tuple[Sequence[float], Sequence[float]] | None) -> Iterator[None]:
    """Let a network of its own (mean, std) take the run's images within a block; None: it takes them as they are."""
    handle = None if own is None else put_in_front(net, *own)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


class InitialStatistics:
    """The running statistics of a network before its training, and how much of them is left.

    Running statistics move by `momentum` a batch. After 30 batches at the usual 0.1 they hold 4 % of a variance of 1,
    more than the whole variance of a map of small values, and the network gives every image the same output in eval
    mode. After `LEAST` batches `remove` divides that part out, as Adam does with its moments (Kingma & Ba, ICLR 2015,
    section 3).
    """

    # Fewer batches than these say less of the network that they were trained on than its initial values do harm.
    LEAST = 10

    def __init__(self, net: nn.Module) -> None:
        self._norms = [one for one in _norms(net) if one.momentum is not None and one.running_mean is not None]
        self._initial = [(_copy(one.running_mean), _copy(one.running_var)) for one in self._norms]
        self._before = [_num_batches(one) for one in self._norms]

    @property
    def num_batches(self) -> int:
        """Count the batches that have gone through the network since."""
        return max((_num_batches(one) - start for one, start in zip(self._norms, self._before, strict=True)), default=0)

    def remove(self, net: nn.Module, average: nn.Module | None = None, decays: Sequence[float] = ()) -> None:
        """Divide the initial values out of the statistics of `net` and of its moving average, where there is one.

        decays: of each update that the average has had, which averages the statistics as it does the weights.
        """
        left = self._left()
        _divide_out(self._norms, self._initial, left)
        if average is not None:
            copies = dict(zip((id(one) for one in _norms(net)), _norms(average), strict=True))
            parts = [
                self._left_in_average(one.momentum, decays) if part < 1 else 1.0
                for one, part in zip(self._norms, left, strict=True)
            ]
            _divide_out([copies[id(one)] for one in self._norms], self._initial, parts)

    def _left_in_average(self, momentum: float, decays: Sequence[float]) -> float:
        """Give that part of the moving average's statistics, batches spread evenly over its updates."""
        part, a_step = 1.0, self.num_batches / max(len(decays), 1)
        for step, decay in enumerate(decays, start=1):
            part = decay * part + (1 - decay) * (1 - momentum) ** round(step * a_step)
        return part

    def _left(self) -> list[float]:
        """Give the part of each norm's statistics that is its initial value; 1 where no batch went through it."""
        norms = zip(self._norms, self._before, strict=True)
        return [(1 - one.momentum) ** (_num_batches(one) - before) for one, before in norms]


@torch.no_grad()
def _divide_out(norms: list[Any], initial: list[tuple[Tensor, Tensor]], left: list[float]) -> None:
    for norm, (mean, var), part in zip(norms, initial, left, strict=True):
        if part < 1:
            norm.running_mean.sub_(part * mean.to(norm.running_mean)).div_(1 - part)
            norm.running_var.sub_(part * var.to(norm.running_var)).div_(1 - part).clamp_(min=0)


def _norms(net: nn.Module) -> list[Any]:
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _copy(values: Tensor) -> Tensor:
    return values.detach().clone()


def _num_batches(norm: Any) -> int:
    return int(norm.num_batches_tracked)
