"""Mixup and cutmix of a batch, its labels and its soft targets.

A `Mix`, drawn from a numpy generator, blends row i with row order[i] in the same ratio for all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Mix:
    """One batch's mixing: a row keeps `fraction` of itself. A `box` (y0, y1, x0, x1, as fractions of the
    image size) makes it cutmix."""

    active: bool = False
    fraction: float = 1.0
    order: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None

    def images(self, images: Tensor) -> Tensor:
        """Blend images `(b, c, r, r)`."""
        if self.order is None:
            return images
        other = images[torch.from_numpy(self.order).to(images.device)]
        if self.box is None:
            return images * self.fraction + other * (1 - self.fraction)
        top, bottom, left, right = (round(edge * images.shape[-1]) for edge in self.box)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return mixed

    def labels(self, labels: Tensor, num_classes: int, multi_label: bool) -> Tensor:
        """Blend labels: class numbers `(b,)` become probabilities `(b, classes)`; untouched when nothing is mixed."""
        if self.order is None:
            return labels
        whole = labels if multi_label else F.one_hot(labels, num_classes).float()
        return whole * self.fraction + whole[torch.from_numpy(self.order).to(labels.device)] * (1 - self.fraction)

    def logits(self, logits: Tensor, temperature: float, multi_label: bool) -> Tensor:
        """Blend soft targets `(b, classes)`: the softened probabilities of the result are the blend of the rows'.

        The teacher is not evaluated on the blended image: its cached logits of the two parts are blended instead.
        """
        if self.order is None:
            return logits
        other = logits[torch.from_numpy(self.order).to(logits.device)]
        log_own, log_other = np.log(self.fraction), np.log1p(-self.fraction)
        if multi_label:
            yes = torch.logaddexp(
                F.logsigmoid(logits / temperature) + log_own, F.logsigmoid(other / temperature) + log_other
            )
            no = torch.logaddexp(
                F.logsigmoid(-logits / temperature) + log_own, F.logsigmoid(-other / temperature) + log_other
            )
            return (yes - no) * temperature
        log_p, log_q = F.log_softmax(logits / temperature, 1), F.log_softmax(other / temperature, 1)
        return torch.logaddexp(log_p + log_own, log_q + log_other) * temperature


def draw_mix(num: int, mixup: float, cutmix: float, rng: np.random.Generator) -> Mix:
    """Draw a mixing; with both on, each batch takes one of the two at even odds (Zhang 2018; Yun 2019)."""
    if mixup <= 0 and cutmix <= 0:
        return Mix()
    cut = cutmix > 0 and (mixup <= 0 or rng.random() < 0.5)
    fraction = float(np.clip(rng.beta(cutmix, cutmix) if cut else rng.beta(mixup, mixup), 1e-3, 1 - 1e-3))
    order = rng.permutation(num)
    if not cut:
        return Mix(True, fraction, order)
    length = np.sqrt(1 - fraction) / 2
    y, x = rng.random(2)
    box = (max(0.0, y - length), min(1.0, y + length), max(0.0, x - length), min(1.0, x + length))
    # A box that hangs over the edge is smaller than drawn: the labels follow what is left of it.
    fraction = float(np.clip(1 - (box[1] - box[0]) * (box[3] - box[2]), 1e-3, 1 - 1e-3))
    return Mix(True, fraction, order, box)
