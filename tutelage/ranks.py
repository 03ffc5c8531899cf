"""Several processes that train one network together: `joined` gives this one's number, and what they add up.

Each process trains on its own rows of every batch. `synced_statistics` makes batch norm and the ranges of QAT use those
of the whole batch, so that a network comes out the same with any number of processes, up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Ranks:
    """The processes that train one network: the number of this one (0 leads) and how many there are.

    sync_batch_norm: whether batch norm uses the statistics of all processes' rows, or of each one's own.
    """

    rank: int = 0
    num: int = 1
    sync_batch_norm: bool = True

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def num_norms(self) -> int:
        """Count the parts of a batch that batch norm normalises apart: one, or one a process."""
        return 1 if self.sync_batch_norm else self.num

    def total(self, images: Tensor) -> int:
        """Count the images of a batch over all processes, of which `images` are this one's.

        The mean loss of a process counts `len(images) * num / total` in the mean over processes. That factor belongs
        before the backward pass: synced statistics mix the gradients of all processes.
        """
        if self.num == 1:
            return len(images)
        number = torch.tensor(float(len(images)), device=images.device)
        dist.all_reduce(number)
        return int(number)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.num == 1 or not gradients:
            return
        # One message for all: the start of one costs more than its bytes.
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat.div_(self.num)
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_statistics(self, module: nn.Module) -> None:
        """Replace running statistics by their mean over processes, where each one's batch norm sees its own rows.

        Without it each process would validate and keep another network.
        """
        if self.num_norms == 1:
            return
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        flat = self.mean(torch.cat([buffer.reshape(-1).float() for buffer in buffers]))
        with torch.no_grad():
            for buffer, part in zip(buffers, torch.split(flat, [one.numel() for one in buffers]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def mean(self, values: Tensor) -> Tensor:
        """Give the mean of `values` over processes."""
        if self.num == 1:
            return values
        sums = values.clone()
        dist.all_reduce(sums)
        return sums / self.num

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.num > 1:
            dist.barrier()


ALONE = Ranks()
# Whether the code that runs is inside `synced_statistics` of several processes.
_synced: ContextVar[bool] = ContextVar("synced", default=False)


def joined(sync_batch_norm: bool = True) -> Ranks:
    """Give the processes that torch.distributed has joined; one, where it has not."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Ranks(dist.get_rank(), dist.get_world_size(), sync_batch_norm)


@contextmanager
def synced_statistics(ranks: Ranks) -> Iterator[None]:
    """Make every batch norm in training mode use the statistics of all processes' rows, whatever its class.

    With one process, or where each one's batch norm is to see its own rows, nothing changes. On GPUs alone, and in a
    module of its own, `nn.SyncBatchNorm` computes the same.
    """
    if ranks.num == 1 or not ranks.sync_batch_norm:
        yield
        return
    token = _synced.set(True)
    try:
        with _Synced():
            yield
    finally:
        _synced.reset(token)


def extremes(values: Tensor) -> Tensor:
    """Give the lowest and highest value (2,), float32; inside `synced_statistics` those of all processes' rows."""
    found = torch.stack([-values.min(), values.max()]).float()
    if _synced.get():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return torch.stack([-found[0], found[1]])


class _Synced(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        synced = func is F.batch_norm
        return _batch_norm(*args, **(kwargs or {})) if synced else func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Stand in for `F.batch_norm`: the same arguments and result, statistics of all processes' rows."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    ones = torch.ones(input.shape[1], device=input.device)
    weight = ones if weight is None else weight
    bias = torch.zeros_like(ones) if bias is None else bias
    if input.is_cuda:
        from torch.nn.modules._functions import SyncBatchNorm

        fused: Any = SyncBatchNorm.apply
        group, num = dist.group.WORLD, dist.get_world_size()
        result: Tensor = fused(input, weight, bias, running_mean, running_var, eps, momentum, group, num)
        return result
    apply: Any = _GlobalNorm.apply
    normed: Tensor
    normed, mean, var, num_values = apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * (num_values / (num_values - 1))).to(running_var), momentum)
    return normed


class _GlobalNorm(torch.autograd.Function):
    """Normalise `(rows, channels, ...)` by mean and variance over the rows of all processes.

    The gradient is that of the sum of all processes' losses, as in `nn.SyncBatchNorm`: it is averaged with the others.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """Give the normalised rows of this process; mean and biased variance `(channels,)` of all; values a channel."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        values = x.float()
        var, mean = torch.var_mean(values, axes, correction=0)
        own = torch.cat([mean, var, mean.new_tensor([x.numel() / x.shape[1]])])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        table = torch.stack(parts)
        counts, (means, variances) = table[:, -1:], table[:, :-1].chunk(2, 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        # The variance within processes and that between them (Chan et al. 1979): no difference of two large sums.
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.total = float(total)
        normed = F.batch_norm(values, mean, var, weight.float(), bias.float(), False, 0.0, eps).to(x.dtype)
        ctx.mark_non_differentiable(mean, var)
        return normed, mean, var, ctx.total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """Give the gradients of x, weight and bias: those of x see all rows, the others this process's alone."""
        x, weight, mean, scale = ctx.saved_tensors
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        grad = grad.float()
        standard = (x.float() - mean.view(shape)) * scale.view(shape)
        grad_bias, grad_weight = grad.sum(axes), (grad * standard).sum(axes)
        sums = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(sums)
        over_rows, along = (part.view(shape) for part in (sums / ctx.total).chunk(2))
        grad_x = (grad - over_rows - standard * along) * (weight.float() * scale).view(shape)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None
