"""Paired tests of two rows on the same test images, from the probabilities that their runs filed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.statistics import delong, mcnemar
from tutelage.leaderboard.compare import PairedTest
from tutelage.records import Row


def paired_tests(first: Row, second: Row, workspace: Path) -> list[PairedTest]:
    """Test the second row against the first: McNemar on accuracy, DeLong on AUC where there are two classes.

    Empty where the rows are of different images or their probabilities are not in this workspace.
    """
    if not first.details.get("manifest") or first.details["manifest"] != second.details.get("manifest"):
        return []
    answers = [_answers(row, workspace) for row in (first, second)]
    if answers[0] is None or answers[1] is None:
        return []
    (first_probs, labels), (second_probs, others) = answers[0], answers[1]
    if labels.ndim != 1 or not np.array_equal(labels, others):
        return []
    right = [_decide(row, probs) == labels for row, probs in ((first, first_probs), (second, second_probs))]
    found = mcnemar(right[1], right[0])
    tests = [PairedTest("McNemar", "accuracy", found.p, found.difference, found.low, found.high)]
    if first_probs.shape[1] == 2:
        area = delong(second_probs[:, 1], first_probs[:, 1], labels == 1)
        tests.append(PairedTest("DeLong", "auc", area.p, area.difference, area.low, area.high))
    return tests


def _answers(row: Row, workspace: Path) -> tuple[NDArray[np.float32], NDArray[Any]] | None:
    named = row.details.get("predictions")
    path = workspace / str(named)
    if not named or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["test_probs"], arrays["test_labels"]


def _decide(row: Row, probs: NDArray[np.float32]) -> NDArray[np.int64]:
    threshold = row.details.get("threshold")
    if threshold is None:
        return np.asarray(probs.argmax(axis=1), dtype=np.int64)
    return np.asarray(probs[:, 1] >= threshold, dtype=np.int64)
