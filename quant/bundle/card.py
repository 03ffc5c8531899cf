"""The model card of a bundle: what the model is, what it was measured at and where it must not be trusted.

`model_card` writes Markdown from a leaderboard row, labels, parity figures, lines on the data and notes. A figure that
was not measured is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.records import Row

_STANDING_LIMITS = (
    "It predicts one of its labels for any image, also for one that shows none of them or comes from another device.",
    "Its figures hold for data like its test set; measure again on your own before you rely on it.",
    "It is not a medical device and must not decide on a patient alone.",
)
# Figures of a row's details that have no column of their own.
_DETAILS = {"balanced_accuracy": "balanced accuracy", "f1": "F1", "brier": "Brier score", "ece": "calibration error"}
_CLASS_FIGURES = ("num", "auc", "average_precision", "sensitivity", "specificity", "precision", "f1")


def model_card(
    row: Row,
    labels: Sequence[str],
    parity: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    data: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Write MODEL_CARD.md; intervals are 95 %."""
    distilled = f", distilled from {row.teacher}" if row.teacher else ""
    lines = [
        f"# {row.model}",
        "",
        f"A {row.role} ({row.scheme}) that classifies images as {', '.join(labels)}{distilled}.",
        "",
        "## Intended use",
        "",
        f"Classifying images like those of {row.dataset} on hardware with a budget: research, or a second reader.",
        _decision(labels, thresholds),
        "",
        "## Data",
        "",
        f"Trained on {row.dataset}; figures below are of its {row.split} split.",
        *(["", *(f"- {line}" for line in data)] if data else []),
        "",
        "## Figures",
        "",
        "| figure | value (95 % interval) |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _figures(row)),
        *_per_class(row),
        "",
        "## Parity",
        "",
        *_parity(parity),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in (*_limits(row), *_STANDING_LIMITS)),
    ]
    if notes:
        lines += ["", "## Notes", "", *(f"- {line}" for line in notes)]
    return "\n".join(lines) + "\n"


def _decision(labels: Sequence[str], thresholds: Mapping[str, Any]) -> str:
    """Say when a class is called."""
    values = [f"{value:.4f}" for value in thresholds["values"]]
    if thresholds["multi_label"]:
        called = ", ".join(f"{name} from {value}" for name, value in zip(labels, values, strict=True))
        return f"Each label is called from its own probability on: {called}."
    if len(labels) == 2:
        return f"{labels[1]} is called from probability {values[1]} on, a threshold chosen on validation data."
    return "The class of the largest probability is called."


def _figures(row: Row) -> list[tuple[str, str]]:
    """List what was measured, with intervals and the device a latency belongs to."""
    device = f" ({row.runtime}, {row.device}, batch {row.batch}, {row.threads} threads)" if row.device else ""
    extra = {name: row.details.get(key) for key, name in _DETAILS.items()}
    own = _own_figures(row)
    candidates = [
        ("accuracy", _interval(own["accuracy"], own["accuracy_lo"], own["accuracy_hi"])),
        ("AUC", _interval(own["auc"], own["auc_lo"], own["auc_hi"])),
        ("mean over seeds", _over_seeds(row)),
        *((name, f"{value:.4f}" if isinstance(value, float) else None) for name, value in extra.items()),
        ("test images", _whole(row.details.get("test_images"))),
        ("parameters", _whole(row.params)),
        ("multiply-accumulates", _whole(row.macs)),
        ("bytes on disk", _whole(row.size_bytes)),
        ("latency p50 / p90 / p99", _latency(row, device)),
        ("measured on", str(row.details["cpu"]) if row.details.get("cpu") else None),
        ("architecture", None if row.arch is None else f"`{row.arch.to_dict()}`"),
        ("seed", str(row.seed)),
        ("row", f"`{row.key}`"),
        ("made", row.created or None),
    ]
    return [(name, value) for name, value in candidates if value is not None]


def _own_figures(row: Row) -> dict[str, float | None]:
    """Give the figures of the bundled file: a row of several seeds has their means, and its first seed's file."""
    names = [f"{name}{end}" for name in ("accuracy", "auc") for end in ("", "_lo", "_hi")]
    own = row.details.get("seeds", {}).get("file")
    return {name: own[name] if own else getattr(row, name) for name in names}


def _over_seeds(row: Row) -> str | None:
    """Give the means over seeds that the leaderboard shows, where there are several."""
    seeds = row.details.get("seeds")
    if not seeds or row.accuracy is None:
        return None
    area = "" if row.auc is None else f", AUC {_interval(row.auc, row.auc_lo, row.auc_hi)}"
    return f"accuracy {_interval(row.accuracy, row.accuracy_lo, row.accuracy_hi)}{area}, {len(seeds['seeds'])} seeds"


def _per_class(row: Row) -> list[str]:
    """Tabulate each class against the rest, where the row has it; point estimates, without intervals."""
    classes = row.details.get("per_class")
    if not isinstance(classes, Mapping) or not classes:
        return []
    lines = ["", f"| class | {' | '.join(name.replace('_', ' ') for name in _CLASS_FIGURES)} |"]
    lines.append("|---" * (len(_CLASS_FIGURES) + 1) + "|")
    for name, figures in classes.items():
        cells = [_cell(figures.get(figure)) for figure in _CLASS_FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _parity(parity: Mapping[str, Any]) -> list[str]:
    found = [
        f"Against {parity['reference']} on {parity['num_images']} validation images: outputs differ by at most "
        f"{parity['largest_difference']:.3g} (mean {parity['mean_difference']:.3g}); "
        f"the same class is first in {100 * parity['same_top1']:.2f} %."
    ]
    if parity.get("evaluated_difference") is not None:
        found.append(
            "The probabilities of this file differ by at most "
            f"{parity['evaluated_difference']:.3g} from those that its figures were computed from."
        )
    return found


def _limits(row: Row) -> list[str]:
    """Name the limits that this row's own figures show."""
    limits = []
    own = _own_figures(row)
    low, high = own["accuracy_lo"], own["accuracy_hi"]
    if low is not None and high is not None:
        limits.append(f"Its accuracy is known to lie between {low:.3f} and {high:.3f}, no better.")
    if "leaky" in row.split:
        limits.append("Images of one patient or series stand in training and test data: its figures flatter.")
    if row.details.get("validation"):
        limits.append("It is one training run of one seed; another seed gives other figures.")
    return limits


def _interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} ({low:.4f} to {high:.4f})"


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:,}"


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _latency(row: Row, device: str) -> str | None:
    if row.latency_p50_ms is None:
        return None
    values = (row.latency_p50_ms, row.latency_p90_ms, row.latency_p99_ms)
    return " / ".join("-" if value is None else f"{value:.3f}" for value in values) + f" ms{device}"
