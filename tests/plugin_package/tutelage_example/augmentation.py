"""Cutout: a gray square at a random place of each image (DeVries and Taylor, 2017)."""

import torch
from torch import Tensor

from tutelage.distill.data.augmentations import Augmentation


def cut_out(images: Tensor, draws: Tensor) -> Tensor:
    """Change images `(batch, channels, h, w)` in 0..1; `draws` `(batch, 8)` are uniform and each image's own."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)[None, :, None] / height
    x = torch.arange(width, device=images.device)[None, None, :] / width
    hole = (y - draws[:, 0, None, None]).abs().maximum((x - draws[:, 1, None, None]).abs()) < 0.15
    return images.masked_fill(hole[:, None], 0.5)


CUTOUT = Augmentation(name="cutout", help="a gray square at a random place", change=cut_out)
