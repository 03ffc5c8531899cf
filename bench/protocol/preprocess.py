"""How long an image takes before inference: reading, resizing and normalising, timed apart from the model."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tutelage.records import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_IMAGES = 200


def time_preprocessing(folder: Path, input_shape: tuple[int, int, int], passes: int = 3) -> dict[str, float]:
    """Time image files to arrays `(channels, height, width)`, as a bundle's predict.py makes them, one at a time.

    Returns p50 and p90 in ms an image, of the fastest of `passes` for each file (the first may come from the disk).
    Raises InputError for a folder without images and a file that is none.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES][:MAX_IMAGES]
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(SUFFIXES)}): give a folder that does")
    fastest = [min(_time(path, input_shape) for _ in range(passes)) for path in paths]
    return {
        "preprocess_images": len(paths),
        "preprocess_p50_ms": float(np.percentile(fastest, 50)),
        "preprocess_p90_ms": float(np.percentile(fastest, 90)),
    }


def _time(path: Path, input_shape: tuple[int, int, int]) -> float:
    from PIL import Image, UnidentifiedImageError

    channels, height, width = input_shape
    start = time.perf_counter_ns()
    try:
        image = Image.open(path)
        image.draft(None, (2 * width, 2 * height))
        shaped = image.convert("RGB" if channels == 3 else "L").resize(
            (width, height), Image.Resampling.BILINEAR, reducing_gap=2.0
        )
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    pixels = np.asarray(shaped, dtype=np.float32).reshape(height, width, channels) / 255
    np.ascontiguousarray(((pixels - 0.5) / 0.25).transpose(2, 0, 1)[None])
    return (time.perf_counter_ns() - start) / 1e6
