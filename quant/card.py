"""The model card of a bundle: what the model is, what it was measured at and where it must not be trusted.

Enters a leaderboard row, labels, parity figures and notes; leaves Markdown. A figure that was not measured is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.records import Row

_STANDING_LIMITS = (
    "It answers with its labels for any image, also for one that shows none of them or comes from another device.",
    "Its figures hold for data like its test set; measure again on your own before you rely on it.",
    "It is not a medical device and must not decide on a patient alone.",
)


def model_card(row: Row, labels: Sequence[str], parity: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Write MODEL_CARD.md; intervals are 95 %."""
    taught = f", taught by {row.teacher}" if row.teacher else ""
    lines = [
        f"# {row.model}",
        "",
        f"A {row.role} ({row.scheme}) that tells {', '.join(labels)} apart{taught}.",
        "",
        "## Intended use",
        "",
        f"Classifying images like those of {row.dataset} on hardware with a budget: research, or a second reader.",
        "",
        "## Data",
        "",
        f"Trained on {row.dataset}; figures below are of its {row.split} split.",
        "",
        "## Figures",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _figures(row)),
        "",
        "## Parity",
        "",
        f"Against {parity['reference']} on {parity['num_images']} validation images: outputs differ by at most "
        f"{parity['largest_difference']:.3g} (mean {parity['mean_difference']:.3g}); "
        f"the same class is first in {100 * parity['same_top1']:.2f} %.",
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in _STANDING_LIMITS),
    ]
    if notes:
        lines += ["", "## Notes", "", *(f"- {line}" for line in notes)]
    return "\n".join(lines) + "\n"


def _figures(row: Row) -> list[tuple[str, str]]:
    """List what was measured, with intervals and the device a latency belongs to."""
    device = f" ({row.runtime}, {row.device}, batch {row.batch}, {row.threads} threads)" if row.device else ""
    candidates = [
        ("accuracy", _interval(row.accuracy, row.accuracy_lo, row.accuracy_hi)),
        ("AUC", _interval(row.auc, row.auc_lo, row.auc_hi)),
        ("parameters", None if row.params is None else f"{row.params:,}"),
        ("multiply-accumulates", None if row.macs is None else f"{row.macs:,}"),
        ("bytes on disk", None if row.size_bytes is None else f"{row.size_bytes:,}"),
        ("latency p50 / p90 / p99", _latency(row, device)),
        ("architecture", None if row.arch is None else f"`{row.arch.to_dict()}`"),
        ("seed", str(row.seed)),
        ("made", row.created or None),
    ]
    return [(name, value) for name, value in candidates if value is not None]


def _interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} ({low:.4f} to {high:.4f})"


def _latency(row: Row, device: str) -> str | None:
    if row.latency_p50_ms is None:
        return None
    values = (row.latency_p50_ms, row.latency_p90_ms, row.latency_p99_ms)
    return " / ".join("-" if value is None else f"{value:.3f}" for value in values) + f" ms{device}"
