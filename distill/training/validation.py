"""The figures of a network on validation images, batch by batch: several processes have each their part of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.distill.data.loader import resize
from tutelage.distill.evaluation.evaluate import evaluate, predict_logits, probabilities
from tutelage.distill.losses.logits import hard_loss
from tutelage.ranks import ALONE, Ranks

from .batches import Batches, epoch_of, num_global


def validate(
    model: nn.Module, val: Batches, multi_label: bool, *, resolution: int | None = None, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Score a model: its val_loss, val_accuracy and val_auc (None where it is undefined), the same in all processes.

    In memory is one batch of images at a time, and the logits. `resolution` resizes the batches.
    """
    logits, labels = _gathered(model, val, resolution, ranks)
    figures = None
    if ranks.leads:
        loss = hard_loss(logits, labels, multi_label=multi_label)
        found = evaluate(probabilities(logits.nan_to_num(0.0)), labels, multi_label=multi_label, bootstrap=0)
        figures = {"val_loss": float(loss.nan_to_num(1e9)), "val_accuracy": found.accuracy, "val_auc": found.auc}
    if ranks.num > 1:
        from accelerate.utils import broadcast_object_list

        received = [figures]
        broadcast_object_list(received)
        figures = received[0]
    return dict(figures or {})


def _gathered(model: nn.Module, val: Batches, resolution: int | None, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Give the logits `(n, classes)` and labels of all processes' images, in the order of the batches."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    start = 0
    for batch in epoch_of(val, 0, ranks):
        if len(batch.images):
            images = batch.images if resolution is None else resize(batch.images, resolution)
            places = start + torch.arange(ranks.rank, num_global(batch, ranks), ranks.num)
            parts.append((places, predict_logits(model, images), batch.labels.cpu()))
        start += num_global(batch, ranks)
    if ranks.num > 1:
        from accelerate.utils import gather_object

        parts = gather_object(parts)
    places, logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    order = places.argsort()
    return logits[order], labels[order]
