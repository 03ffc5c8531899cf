"""Decode an image file (gray, RGB(A), palette, 1 bit or 16 bit) to uint8 `(size, size, channels)`: `decode`.

`size` is in pixels and `channels` is 1 or 3. Errors name the file.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tutelage.records import InputError

Fit = Literal["squash", "crop", "pad"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".gif")

# Detectors give 8, 10, 12, 14 or 16 bits; files hold them in 16-bit words.
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def is_image(path: Path) -> bool:
    """Tell a picture by its suffix; hidden files (`._x.png` of a Mac, `.DS_Store`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def decode(path: Path, size: int, channels: int = 1, *, fit: Fit = "squash") -> tuple[NDArray[np.uint8], str]:
    """Read one file: pixels `(size, size, channels)` and the SHA-256 of its bytes (16 hex digits).

    16-bit files are scaled by the smallest detector depth (8, 10, 12, 14, 16 bits) that holds their largest value, so
    a 12-bit image in a 16-bit file is not black. Floats are scaled from their least to their largest value. Alpha is
    laid on black. Raises InputError that names the file and what is wrong with it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not content:
        raise InputError(f"{path} is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format == "JPEG" and fit == "squash":  # let the decoder skip detail that would be thrown away
                picture.draft(None, (2 * size, 2 * size))
            picture.load()
            plain = to_plain(picture, channels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError) as error:
        reason = "not a picture file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} is damaged: {reason}".splitlines()[0]) from None
    return to_square(plain, size, channels, fit), hashlib.sha256(content).hexdigest()[:16]


def to_plain(picture: Image.Image, channels: int) -> Image.Image:
    """Bring any mode to 8-bit gray (`channels` 1) or RGB (3)."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = Image.fromarray(_to_bytes(np.asarray(picture)))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA", "PA"):
        opaque = picture.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, opaque).convert("RGB")
    return picture.convert("L" if channels == 1 else "RGB")


def to_square(picture: Image.Image, size: int, channels: int, fit: Fit = "squash") -> NDArray[np.uint8]:
    """Resize to a square: squash width and height, crop the middle, or pad with black."""
    if fit == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    elif fit == "pad":
        side = max(picture.size)
        square = Image.new(picture.mode, (side, side))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = square
    elif fit != "squash":
        raise InputError(f"fit {fit!r} is not one of squash, crop, pad")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(picture, dtype=np.uint8).reshape(size, size, channels)


def resize_stack(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a stack `(n, h, w)` or `(n, h, w, 3)` to `size`, each as `decode` does; gives `(n, size, size, c)`."""
    channels = 3 if images.ndim == 4 and images.shape[3] == 3 else 1
    flat = images if channels == 3 else images.reshape(images.shape[:3])
    if images.shape[1:3] == (size, size):
        return flat.reshape(len(images), size, size, channels)
    return np.stack([to_square(Image.fromarray(image), size, channels) for image in flat])


def to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Convert `(n, h, w, c)` to 1 or 3 channels: gray is repeated, RGB is weighted by ITU-R 601 as in PIL."""
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 or 3, got {channels}")
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    gray = images.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((gray + 0x8000) >> 16).astype(np.uint8)[..., None]


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit or 32-bit integers or floats to bytes."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError("holds pixels that are NaN or infinite")
        low, high = float(values.min()), float(values.max())
        return np.rint((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    low, high = int(values.min()), int(values.max())
    if low < 0:  # signed, as CT in Hounsfield units: shift, do not clip
        values, high = values.astype(np.int64) - low, high - low
    depth = next((bits for bits in _BIT_DEPTHS if high < 2**bits), None)
    top = (2**depth if depth else high + 1) - 1
    return np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)
