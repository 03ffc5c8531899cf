"""What test images may be corrupted by, with the parameter at severities 1 to 5, and names of further test sets.

Kinds and parameters follow ImageNet-C (Hendrycks & Dietterich, 2019, arXiv:1903.12261), which MedMNIST-C takes up (Di
Salvo et al., 2024, arXiv:2406.17536); `distill/evaluation/corrupt.py` applies them. Brightness is added to every
channel, in place of HSV's value, and taken off as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEVERITIES = (1, 2, 3, 4, 5)
# A name that a recipe gives to a further test set: its columns are accuracy@NAME, auc@NAME and their ends (NAME_lo).
SHIFT_SET = r"[A-Za-z0-9][A-Za-z0-9-]{0,39}"
MOST_SHIFT_SETS = 20
# Those of the columns: a column has the same meaning in every row.
USUAL_SEVERITIES = (1, 3, 5)


@dataclass(frozen=True)
class Corruption:
    """One kind: how its images differ, in words, and its parameter at each of `SEVERITIES`."""

    words: str
    at: tuple[float, float, float, float, float]


# Pixels are fractions of full scale; widths in pixels are of images of 224, and shrink with smaller ones.
CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption("with Gaussian noise", (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption("with the noise of few photons", (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption("with pixels that are black or white", (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Corruption("with speckle noise", (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": Corruption("that are blurred", (1, 2, 3, 4, 6)),
    "pixelate": Corruption("in large pixels", (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": Corruption("compressed by JPEG", (25, 18, 15, 10, 7)),
    "brightness_up": Corruption("that are too bright", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "brightness_down": Corruption("that are too dark", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast_down": Corruption("of low contrast", (0.4, 0.3, 0.2, 0.1, 0.05)),
}


def comparable(shift: Mapping[str, Any]) -> dict[str, Any]:
    """Give a file's figures under corruptions as a row's details hold them, so that columns compare.

    A kind's figures stand under its name where `USUAL_SEVERITIES` were evaluated, the means where all kinds were, too;
    everything else stands under `own`.
    """
    own = {name: value for name, value in shift.items() if name != "severities"}
    usual = sorted(shift["severities"]) == list(USUAL_SEVERITIES)
    kept = {name: own.pop(name) for name in CORRUPTIONS if name in own} if usual else {}
    if kept.keys() == CORRUPTIONS.keys():
        kept |= {figure: own.pop(figure) for figure in ("accuracy", "auc")}
    return {"severities": list(shift["severities"]), **kept, **({"own": own} if own else {})}
