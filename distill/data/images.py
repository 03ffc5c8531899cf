"""Decode a picture or DICOM file of any mode to uint8 `(size, size, channels)`: `decode`, `read_picture`.

`size` is in pixels and `channels` is 1 or 3. Errors name the file. EXIF orientation is applied, ICC profiles are not;
pixels of more than 8 bits are scaled by one range for the data set (`reading/pixels.py`).
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from tutelage.records import InputError

from .containers.paths import read_bytes
from .reading.dicom import Window, read_values, stated_window
from .reading.pixels import Range, range_of, stated_range, to_bytes
from .reading.suffixes import SUFFIXES, is_image, looks_like_dicom

__all__ = ["SUFFIXES", "Decoding", "Fit", "Picture", "decode", "is_image", "read_picture", "resize_stack",
           "to_channels", "to_plain", "to_square"]  # fmt: skip

Fit = Literal["squash", "crop", "pad"]

FRAMES = "have several frames or pages: the first is read"
COLOUR_16_BIT = "have colours of 16 bits: their upper 8 bits are read"
# All black, fully transparent, or scaled by a window or slope that leaves nothing of them.
BLANK = "hold one value only, so there is nothing to see in them"
ORIENTED = "are turned upright by their EXIF orientation"

# What Pillow's decoders raise for files that are damaged.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, RuntimeError, OverflowError,
    NotImplementedError, AttributeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Decoding:
    """How a recipe has pictures decoded: `fit` to a square, `range` of pixels of more than 8 bits, DICOM's `window`."""

    fit: Fit = "squash"
    range: Range | None = None
    window: Window = "tag"

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise InputError(f"fit {self.fit!r} is not one of {', '.join(get_args(Fit))}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Decoding:
        """Read the options `fit`, `range` and `window` of a recipe's data."""
        if "range" in options and "window" in options:
            raise InputError("range and window both say how pixels are scaled: leave one out")
        window = stated_window(options.get("window", "tag"))
        return cls(options.get("fit", "squash"), stated_range(options.get("range")), window)


@dataclass(frozen=True)
class Picture:
    """One decoded file: pixels uint8 `(size, size, channels)` and the SHA-256 of its bytes (16 hex digits).

    For pixels of more than 8 bits `extent` is their least and largest value, `limits` the range that scaled them.
    `remarks` say what was done about what is odd (`FRAMES`, `COLOUR_16_BIT`, `ORIENTED`), or that it is `BLANK`.
    """

    pixels: NDArray[np.uint8]
    digest: str
    extent: Range | None = None
    limits: Range | None = None
    remarks: tuple[str, ...] = ()


def decode(path: Path, size: int, channels: int = 1, *, fit: Fit = "squash") -> tuple[NDArray[np.uint8], str]:
    """Read one file: pixels `(size, size, channels)` and the SHA-256 of its bytes (16 hex digits).

    16-bit files are scaled by all that 16 bits hold, floats from 0 to 1: see `read_picture` for another range. Alpha is
    laid on black. Raises InputError that names the file and what is wrong with it.
    """
    picture = read_picture(path, size, channels, Decoding(fit))
    return picture.pixels, picture.digest


def read_picture(path: Path, size: int, channels: int, how: Decoding) -> Picture:
    """Read one file, a picture or DICOM; raises InputError that names the file and what is wrong with it."""
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()[:16]
    if looks_like_dicom(path, content[:132]):
        try:
            values = read_values(content, how.range, how.window)
        except InputError as error:
            raise InputError(f"{path} {error}") from None
        plain = Image.fromarray(values.pixels).convert("L" if channels == 1 else "RGB")
        remarks = [FRAMES] if values.num_frames > 1 else []
        extent, limits = values.extent, values.limits
    else:
        plain, extent, limits, remarks = _read_with_pillow(path, content, size, channels, how)
    pixels = to_square(plain, size, channels, how.fit)
    if size > 1 and (pixels == pixels[0, 0]).all():
        remarks = [*remarks, BLANK]
    return Picture(pixels, digest, extent, limits, tuple(remarks))


def _read_with_pillow(
    path: Path, content: bytes, size: int, channels: int, how: Decoding
) -> tuple[Image.Image, Range | None, Range | None, list[str]]:
    remarks = []
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if getattr(picture, "is_animated", False):
                remarks.append(FRAMES)
            if picture.mode.startswith("RGB") and ";16" in str(picture.tile):
                remarks.append(COLOUR_16_BIT)
            if picture.format == "JPEG" and how.fit == "squash":  # let the decoder skip detail that is thrown away
                picture.draft(None, (2 * size, 2 * size))
            picture.load()
            upright = _upright(picture)
            if upright is not picture:
                remarks.append(ORIENTED)
            values = _deep_values(upright)
            if values is None:
                return to_plain(upright, channels), None, None, remarks
            limits = range_of(values, how.range)
            plain = Image.fromarray(to_bytes(values, limits)).convert("L" if channels == 1 else "RGB")
            return plain, (float(values.min()), float(values.max())), limits, remarks
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except Image.DecompressionBombError as error:
        num_pixels = re.search(r"\((\d+) pixels\)", str(error))
        much = f"{int(num_pixels[1]) / 1e6:.0f} megapixels" if num_pixels else "too many pixels"
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(f"{path} holds {much}, and at most {most:.0f} are decoded: save it smaller") from None
    except _DAMAGE as error:
        reason = "not a picture file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} is damaged: {reason}".splitlines()[0]) from None


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say; those that cannot be parsed say nothing, in viewers too."""
    try:
        if picture.getexif().get(0x0112, 1) in range(2, 9):
            return ImageOps.exif_transpose(picture)
    except _DAMAGE:
        pass
    return picture


def _deep_values(picture: Image.Image) -> NDArray[Any] | None:
    """Give the values of a gray picture of more than 8 bits in the type that the file has; None for one of 8 bits."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return None
    values = np.asarray(picture)
    if picture.mode == "I" and values.min() >= -(2**15) and values.max() < 2**15 and _is_signed_16_bit(picture):
        values = values.astype(np.int16)
    return values


def _is_signed_16_bit(picture: Image.Image) -> bool:
    tags = getattr(picture, "tag_v2", {})
    return tags.get(258) == (16,) and tags.get(339) == (2,)


def to_plain(picture: Image.Image, channels: int) -> Image.Image:
    """Bring any mode to 8-bit gray (`channels` 1) or RGB (3)."""
    values = _deep_values(picture)
    if values is not None:
        picture = Image.fromarray(to_bytes(values, range_of(values)))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        opaque = picture.convert({"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)).convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, opaque).convert("RGB")
    if picture.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")
        assert converted is not None, "a new picture is made"
        picture = converted
    if picture.mode == "HSV":
        picture = picture.convert("RGB")
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
        raise InputError(f"fit {fit!r} is not one of {', '.join(get_args(Fit))}")
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
