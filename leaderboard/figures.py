"""Figures that stand in a row's details, as columns of an export: a teacher's gain, seeds, explanations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# A column and where its value stands in the details.
_SEEDS = ("accuracy_mean", "accuracy_sd", "auc_mean", "auc_sd")
_EXPLAINED = ("method", "insertion_auc", "deletion_auc", "road", "sanity_spearman", "pointing", "energy", "mask_share",
              "teacher_spearman", "teacher_iou", "fp32_spearman", "fp32_iou")  # fmt: skip
DETAIL_COLUMNS: dict[str, tuple[str, str]] = {
    "gain": ("gain_over_twin", "verdict"),
    "gain_file": ("gain_over_twin", "file_verdict"),
    "gain_seeds": ("gain_over_twin", "num_seeds"),
    **{f"seeds_{name}": ("seeds", name) for name in _SEEDS},
    **{f"second_test_{name}": ("second_test", name) for name in ("accuracy", "auc", "auc_lo", "auc_hi")},
    **{f"explained_{name}": ("explanation", name) for name in _EXPLAINED},
}
_WORDS = ("gain", "gain_file", "explained_method")


def with_details(found: pd.DataFrame) -> pd.DataFrame:
    """Add the columns of `DETAIL_COLUMNS` before `details`; an absent figure is empty, never 0."""
    import pandas as pd

    if "details" not in found:
        return found
    told = [json.loads(text) if text else {} for text in found["details"]]
    columns = {
        name: pd.Series(
            [_at(one, *place) for one in told], index=found.index, dtype=object if name in _WORDS else "float64"
        )
        for name, place in DETAIL_COLUMNS.items()
    }
    before = list(found.columns)
    place = before.index("details")
    return found.assign(**columns)[[*before[:place], *columns, *before[place:]]]


def _at(details: Mapping[str, Any], section: str, name: str) -> Any:
    values = details.get(section)
    value = values.get(name) if isinstance(values, Mapping) else None
    if name in ("verdict", "file_verdict", "method"):
        return value or ""
    return float(value) if isinstance(value, int | float) else None
