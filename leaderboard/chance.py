"""Say whether a row's test figures are better than guessing: `guessing` names the figure, `advice` adds the remedy."""

from __future__ import annotations

from tutelage.records import Row

# How notes of rows begin whose training ended too early, see `distill.evaluation.convergence`.
_RISING = "validation still rising"


def guessing(row: Row) -> str:
    """Say which test figure is no better than guessing, by its 95 % interval; empty where none is, or none is known.

    AUC: the interval reaches 0.5. Accuracy: it reaches the fraction of the largest class among the test images, which
    naming that class every time gets; only where an image has one label (multi-label rows have no confusion matrix).
    """
    if row.auc is not None and row.auc_lo is not None and row.auc_lo <= 0.5:
        return f"test AUC {_interval(row.auc, row.auc_lo, row.auc_hi)} reaches 0.5, that of guessing"
    largest = largest_class(row)
    if None not in (row.accuracy, row.accuracy_lo, largest) and (row.accuracy_lo or 0.0) <= (largest or 0.0):
        interval = _interval(row.accuracy, row.accuracy_lo, row.accuracy_hi)
        return f"test accuracy {interval} reaches {largest:.3f}, that of naming the largest class every time"
    return ""


def advice(row: Row) -> str:
    """Say in a line that a network is no better than guessing and what to do about it; empty where it is better."""
    figure = guessing(row)
    if not figure:
        return ""
    notes = [str(note) for note in row.details.get("notes") or ()]
    rising = next((note for note in notes if note.startswith(_RISING)), "")
    remedy = f"give it more epochs, {rising}" if rising else "give it more images or epochs"
    return f"{row.model} {row.scheme} is no better than guessing: {figure}; {remedy}"


def largest_class(row: Row) -> float | None:
    """Give the fraction of the test images that are of the largest class; None where the row does not say."""
    confusion = row.details.get("confusion")
    lines = confusion if isinstance(confusion, list | tuple) else ()
    # Imported rows hold what other programs wrote.
    counts = [sum(one for one in line if isinstance(one, int)) for line in lines if isinstance(line, list | tuple)]
    return max(counts) / sum(counts) if sum(counts) > 0 else None


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return " ".join([f"{value:.3f}", *([] if high is None else [f"[{low:.3f}, {high:.3f}]"])])
