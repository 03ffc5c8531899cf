"""Give each network its images as its pretrained weights want them: another mean and standard deviation.

Batches are normalised alike for all networks of a run (`loader.NORMALISATION`). `Renormalisation` takes them to a
network's own; as a hook in front of a network (`normalised_inputs`) it does so on the device, in training.
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
