"""Corrupt test images (`corrupt`), the same images in the same way for every file that is evaluated on them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tutelage.corruptions import CORRUPTIONS

# Raise when a corruption gives other pixels than before.
CORRUPT_VERSION = 1
# Widths are those of ImageNet-C at its size; by what is added to smaller images they are those of CIFAR-10-C at 32 px.
_SIDE, _ADDED = 224, 0.3

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def corrupt(images: Pixels, name: str, severity: int, positions: NDArray[np.int64]) -> Pixels:
    """Corrupt images `(n, h, w, c)`, gray or RGB, by a name of `CORRUPTIONS` at a severity of 1 to 5.

    positions: of the images in their split `(n,)`. Noise is drawn by them, so that it depends on no batch.
    """
    parameter, apply = CORRUPTIONS[name].at[severity - 1], _APPLIED[name]
    word = zlib.crc32(name.encode())
    each = zip(images, positions.tolist(), strict=True)
    changed = [apply(one, parameter, np.random.default_rng((word, severity, place))) for one, place in each]
    return np.stack(changed) if changed else images.copy()


def _of_unit(values: Floats) -> Pixels:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    return _of_unit(image / 255 + rng.normal(0, sigma, image.shape))


def _shot_noise(image: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    return _of_unit(rng.poisson(image / 255 * photons) / photons)


def _impulse_noise(image: Pixels, fraction: float, rng: np.random.Generator) -> Pixels:
    hit, salt = rng.random(image.shape) < fraction, rng.random(image.shape) < 0.5
    return np.where(hit, np.where(salt, 255, 0), image).astype(np.uint8)


def _speckle_noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    return _of_unit(image / 255 * (1 + rng.normal(0, sigma, image.shape)))


def _gaussian_blur(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    part = image.shape[0] / _SIDE
    radius = sigma * part + max(0.0, _ADDED * (1 - part))
    return _pixels(_picture(image).filter(ImageFilter.GaussianBlur(radius)), image)


def _pixelate(image: Pixels, fraction: float, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    few = (max(1, int(width * fraction)), max(1, int(height * fraction)))
    small = _picture(image).resize(few, Image.Resampling.BOX)
    return _pixels(small.resize((width, height), Image.Resampling.BOX), image)


def _jpeg(image: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    kept = BytesIO()
    _picture(image).save(kept, "JPEG", quality=int(quality))
    kept.seek(0)
    with Image.open(kept) as read:
        return _pixels(read, image)


def _brightness_up(image: Pixels, more: float, rng: np.random.Generator) -> Pixels:
    return _of_unit(image / 255 + more)


def _brightness_down(image: Pixels, less: float, rng: np.random.Generator) -> Pixels:
    return _of_unit(image / 255 - less)


def _contrast_down(image: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return _of_unit((mean + (image - mean) * factor) / 255)


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _pixels(picture: Image.Image, like: Pixels) -> Pixels:
    return np.asarray(picture, dtype=np.uint8).reshape(like.shape)


_APPLIED: Mapping[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "gaussian_blur": _gaussian_blur,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "brightness_up": _brightness_up,
    "brightness_down": _brightness_down,
    "contrast_down": _contrast_down,
}
