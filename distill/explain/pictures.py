"""Draw explanations: one PNG an image, with the image and then each model's map over it in a row.

Images are normalised, maps are given by model name.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from torch import Tensor

from tutelage.files import whole_file
from tutelage.quantities import no_formula

_PANEL_INCHES = 2.2
_PIXELS = 96


def save_pictures(
    folder: Path, images: Tensor, maps: Mapping[str, np.ndarray], masks: np.ndarray | None = None
) -> list[Path]:
    """Write `explain-000.png`, ...: image | model | model ...; the lesion's outline is drawn where a mask is given."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for i, image in enumerate(images):
        gray = _stretched(image.mean(0).cpu().numpy())
        figure = Figure(figsize=(_PANEL_INCHES * (len(maps) + 1), _PANEL_INCHES + 0.35), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
        for panel, name in zip(axes, ("image", *maps), strict=True):
            panel.imshow(gray, cmap="gray", vmin=0, vmax=1)
            if name != "image":
                panel.imshow(maps[name][i], cmap="inferno", alpha=0.5, vmin=0, vmax=1)
            if masks is not None and masks[i].any():
                side = np.linspace(0, gray.shape[0] - 1, masks.shape[1])
                panel.contour(side, side, masks[i] > 0, levels=[0.5], colors="cyan", linewidths=0.8)
            panel.set_title(no_formula(name), fontsize=8)
            panel.set_axis_off()
        path = folder / f"explain-{i:03d}.png"
        with whole_file(path) as aside:
            figure.savefig(aside, dpi=110)
        written.append(path)
    return written


def overlay_png(image: Tensor, heat: np.ndarray | None = None) -> bytes:
    """Give one PNG of an image `(c, r, r)` with its map `(r, r)` in 0..1 laid over it, at least 96 px wide and high.

    Without a map: the image alone, in the same grey levels.
    """
    from matplotlib import colormaps
    from PIL import Image

    gray = np.repeat(_stretched(image.mean(0).cpu().numpy())[:, :, None], 3, axis=2)
    if heat is not None:
        gray = 0.5 * gray + 0.5 * colormaps["inferno"](np.clip(heat, 0, 1))[:, :, :3]
    pixels = np.rint(255 * gray).astype(np.uint8)
    picture = Image.fromarray(pixels)
    side = max(_PIXELS, picture.width)
    written = BytesIO()
    picture.resize((side, side), Image.Resampling.BILINEAR).save(written, format="PNG", optimize=True)
    return written.getvalue()


def _stretched(gray: np.ndarray) -> np.ndarray:
    low, high = float(gray.min()), float(gray.max())
    return np.asarray((gray - low) / max(high - low, 1e-8))
