"""Augmentation on the batch: each image's change is a pure function of (image index, augmentation seed).

No number depends on which images share the batch (every operation is per image), so a teacher's output for
(index, augmentation seed) may be kept and used again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutelage.records import InputError

from .augmentations import Change, Policy

_NUM_DRAWS = 8
_NOISE_OFFSETS = 65536


def augment(
    images: Tensor,
    indices: NDArray[np.int64],
    aug_seeds: NDArray[np.int64],
    policy: Policy,
    change: Change | None = None,
) -> Tensor:
    """Change a batch `(b, c, h, w)` in 0..1, by `policy` and then by `change`; the result is clipped to 0..1."""
    if policy == Policy() and change is None:
        return images
    given = images  # it stays as it is; what comes after is changed in place, for fresh memory costs more than sums
    num_draws = _NUM_DRAWS if change is None else 2 * _NUM_DRAWS
    draws = torch.from_numpy(uniforms(indices, aug_seeds, num_draws)).to(images.device, torch.float32)
    if policy.moves:
        images = _move(images, draws, policy)
    if policy.brightness or policy.contrast:
        gain = 1 + policy.contrast * _sign(draws[:, 4])
        lift = policy.brightness * _sign(draws[:, 5])
        images = images - 0.5 if images is given else images.sub_(0.5)
        images.mul_(gain[:, None, None, None]).add_((0.5 + lift)[:, None, None, None])
    if policy.noise:
        strength = policy.noise * draws[:, 6]
        images = _noise(images, draws[:, 7]).mul_(strength[:, None, None, None]).add_(images)
    if change is not None:
        shape = images.shape
        images = change(images, draws[:, _NUM_DRAWS:])
        if images.shape != shape:
            raise InputError(f"an augmentation changed images of shape {tuple(shape)} to {tuple(images.shape)}")
        return images.clamp(0, 1)
    return images.clamp(0, 1) if images is given else images.clamp_(0, 1)


def uniforms(indices: NDArray[np.int64], aug_seeds: NDArray[np.int64], num_draws: int) -> NDArray[np.float64]:
    """Draw `(b, num_draws)` numbers in [0, 1) that depend on (index, seed, column) alone.

    SplitMix64 (Steele et al. 2014) as a hash: a counter-based generator needs no state and no order.
    """
    with np.errstate(over="ignore"):
        state = _mix(indices.astype(np.uint64)[:, None] + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ _mix(aug_seeds.astype(np.uint64)[:, None] * np.uint64(0xD1B54A32D192ED03)))
        columns = np.arange(1, num_draws + 1, dtype=np.uint64)[None, :]
        state = _mix(state + columns * np.uint64(0x9E3779B97F4A7C15))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _sign(draws: Tensor) -> Tensor:
    return draws * 2 - 1


def _move(images: Tensor, draws: Tensor, policy: Policy) -> Tensor:
    """Rotate, shift, scale and flip by one bilinear sampling; what comes in from outside is the border's value."""
    height, width = images.shape[2:]
    angle = _sign(draws[:, 0]) * (policy.degrees * torch.pi / 180)
    shift_x, shift_y = policy.shift * 2 * _sign(draws[:, 1]), policy.shift * 2 * _sign(draws[:, 2])
    zoom = 1 + policy.scale * _sign(draws[:, 3])
    mirror = torch.ones_like(zoom)
    if policy.flip:  # a draw's low digits are as good as a draw of their own
        mirror = torch.where((draws[:, 3] * 4096) % 2 < 1, 1.0, -1.0).to(zoom.dtype)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    x = (torch.arange(width, device=images.device, dtype=torch.float32) * 2 + 1) / width - 1
    y = (torch.arange(height, device=images.device, dtype=torch.float32) * 2 + 1) / height - 1
    x, y = x[None, None, :], y[None, :, None]
    aspect = width / height
    # elementwise, not affine_grid: a batched matrix product may round otherwise for another batch size
    from_x = (cos[:, None, None] * x - sin[:, None, None] * y / aspect) * mirror[:, None, None] + shift_x[:, None, None]
    from_y = sin[:, None, None] * x * aspect + cos[:, None, None] * y + shift_y[:, None, None]
    grid = torch.stack((from_x, from_y), dim=3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _noise(images: Tensor, draws: Tensor) -> Tensor:
    """Give each image a stretch of one fixed bank of normal noise, starting at a place its draw says."""
    num_pixels = images.shape[1:].numel()  # a process may have no row of the last batch
    bank = _noise_bank(num_pixels, images.device)
    starts = (draws * _NOISE_OFFSETS).long()
    return bank.unfold(0, num_pixels, 1)[starts].reshape(images.shape)


@lru_cache(maxsize=4)
def _noise_bank(num_pixels: int, device: torch.device) -> Tensor:
    rng = np.random.default_rng(20261120)
    return torch.from_numpy(rng.standard_normal(num_pixels + _NOISE_OFFSETS, dtype=np.float32)).to(device)
