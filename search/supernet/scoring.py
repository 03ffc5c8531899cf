"""Score subnets on the supernet that holds their weights: calibrate batch norm, then one pass over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.allocator import keep_freed_memory
from tutelage.in_file import give_back
from tutelage.records import Arch, InputError

from .elastic import check_family
from .prefix import SubnetTree
from .standard_errors import auc_std, error_std, loss_std


@dataclass(frozen=True)
class SubnetScore:
    """How one subnet does: `error` is a fraction (1 - accuracy; 1 - mean AUC for multi-label), `loss` is in nats.

    `*_std` are standard errors, NaN where there are too few images.
    """

    error: float
    auc: float
    loss: float
    error_std: float = math.nan
    auc_std: float = math.nan
    loss_std: float = math.nan


def recalibrate_bn(
    net: nn.Module, batches: Sequence[Tensor], *, forward: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Set the running statistics of batch norm to the average over a few batches, each weighted by its images.

    Works on any network; on a supernet it serves the active subnet. The network's modes are left as they were.
    `forward` stands in for `net(batch)`: it finds the network in training mode and must move the statistics.
    A batch of one image joins its neighbour, for batch norm at one pixel has no variance of one value. Raises
    `InputError` when there are fewer than two images in all.
    """
    batches = _joined(batches)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    modes = {module: module.training for module in net.modules()}
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.training = True
    net.training = forward is not None or net.training
    try:
        with torch.no_grad():
            seen = 0
            for batch in batches:
                seen += len(batch)
                for norm in norms:
                    norm.momentum = len(batch) / seen  # a cumulative average in which every image weighs the same
                (forward or net)(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _joined(batches: Sequence[Tensor]) -> list[Tensor]:
    """Join batches of one image to the batch before (the first to the one after)."""
    if sum(len(batch) for batch in batches) < 2:
        sizes = [len(batch) for batch in batches]
        raise InputError(f"calibration batches of sizes {sizes}: give at least 2 images")
    joined: list[Tensor] = []
    for batch in batches:
        if joined and (len(batch) == 1 or len(joined[-1]) == 1):
            joined[-1] = torch.cat([joined[-1], batch])
        elif len(batch):
            joined.append(batch)
    return joined


@keep_freed_memory()
def score_subnets(
    net: nn.Module,
    archs: Sequence[Arch],
    calibration: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    multi_label: bool = False,
    batch_size: int = 64,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[SubnetScore]:
    """Score each arch: batch norm recalibrated on `calibration`, then error, AUC and loss on `images`.

    `images` (n, channels, side, side) are normalised floats; both they and the calibration batches are resized to the
    arch's side where it differs, once for all archs. `labels` are class indices (n,) or, multi-label, 0/1 floats
    (n, labels). What archs have in common is computed once a batch, see `SubnetTree`; `net` is left as it was.
    `workers` threads take a batch each, and divide torch's threads among them: small maps leave the second thread of
    one network idle, but not a second network. The scores are the same bits with any number of them.
    Where `net` is on a GPU each batch is resized there, and one thread keeps it busy.
    """
    for arch in archs:
        check_family(net, arch)
    modes = {module: module.training for module in net.modules()}
    scores: dict[int, SubnetScore] = {}
    net.eval()
    try:
        for side in dict.fromkeys(arch.r for arch in archs):
            places = [place for place, arch in enumerate(archs) if arch.r == side]
            tree = SubnetTree(net, [archs[place] for place in places])
            done = partial(_report, progress, len(scores), len(places), len(archs))
            logits = _logits(tree, side, _joined(calibration), torch.split(images, batch_size), workers, done)
            for place, one in zip(places, logits, strict=True):
                scores[place] = score_logits(one, labels, multi_label=multi_label)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [scores[place] for place in range(len(archs))]


def _report(
    progress: Callable[[str, int, int], None] | None, before: int, here: int, total: int, fraction: float
) -> None:
    if progress is not None:
        progress("score subnets", before + int(here * fraction), total)


def _logits(
    tree: SubnetTree,
    side: int,
    calibration: Sequence[Tensor],
    batches: Sequence[Tensor],
    workers: int,
    done: Callable[[float], None],
) -> Tensor:
    """Calibrate and evaluate a tree, batches spread over threads; give the logits (subnets, n, classes)."""
    num_threads, seen = torch.get_num_threads(), 0
    total = len(calibration) + len(batches)
    device = tree.device
    workers = max(1, min(workers, total)) if device.type == "cpu" else 1

    def observed(batch: int) -> None:
        tree.calibrate(batch, resize(calibration[batch].to(device), side))

    def evaluated(batch: Tensor) -> Tensor:
        found = tree.evaluate(resize(batch.to(device), side))
        if batch.device.type == "cpu":
            give_back(batch.numpy())
        return found

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, num_threads // workers),))
    spread: Any = map if workers == 1 else pool.map
    try:
        for _ in spread(observed, range(len(calibration))):
            seen += 1
            done(seen / total)
        tree.settle()
        parts = []
        for part in spread(evaluated, batches):
            parts.append(part)
            seen += 1
            done(seen / total)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)
    return torch.cat(parts, 1)


def score_logits(logits: Tensor, labels: Tensor, *, multi_label: bool = False) -> SubnetScore:
    """Give error, macro AUC and mean loss of logits (n, classes), computed on the CPU."""
    logits, labels = logits.float().cpu(), labels.cpu()
    if multi_label:
        probabilities, truth = torch.sigmoid(logits).numpy(), labels.numpy() > 0.5
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    else:
        labels = labels.long()
        probabilities, truth = logits.softmax(1).numpy(), F.one_hot(labels, logits.shape[1]).bool().numpy()
        losses = F.cross_entropy(logits, labels, reduction="none")
    auc, auc_error = mean_auc(probabilities, truth), auc_std(probabilities, truth)
    loss, loss_error = float(losses.mean()), loss_std(losses.double().numpy())
    if multi_label:
        return SubnetScore(1 - auc, auc, loss, auc_error, auc_error, loss_error)
    wrong = float((logits.argmax(1) != labels).double().mean())
    return SubnetScore(wrong, auc, loss, error_std(wrong, len(labels)), auc_error, loss_error)


def mean_auc(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Give the mean one-against-rest area under the ROC curve, from ranks (Mann-Whitney U, ties count half).

    Both are (n, classes); a class that is always or never true is left out; NaN where none remains.
    """
    positives = truth.sum(0)
    usable = (positives > 0) & (positives < len(truth))
    if not usable.any():
        return math.nan
    from scipy.stats import rankdata  # a third of the time in which a command starts

    ranks = rankdata(probabilities[:, usable], axis=0)
    positives, truth = positives[usable], truth[:, usable]
    u = (ranks * truth).sum(0) - positives * (positives + 1) / 2
    return float(np.mean(u / (positives * (len(truth) - positives))))


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images (n, channels, h, w) to a square of `side` pixels, antialiased; leave them alone where they fit."""
    if images.shape[-1] == side and images.shape[-2] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
