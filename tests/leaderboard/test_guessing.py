"""A row whose test figures are no better than guessing is said to be so, by the ends of its intervals."""

from typing import Any

import pytest

from tutelage.leaderboard.best import advice, guessing
from tutelage.records import Row


def row(auc: tuple[float | None, ...] = (0.9, 0.8, 0.95), accuracy: tuple[float | None, ...] = (), **said: Any) -> Row:
    ends = ("", "_lo", "_hi")
    figures = {f"auc{end}": one for end, one in zip(ends, auc, strict=False)}
    figures |= {f"accuracy{end}": one for end, one in zip(ends, accuracy, strict=False)}
    return Row(model="tiny", role="student", dataset="d", details=said, **figures)  # type: ignore[arg-type]


# Of 100 test images 70 are of the first class, whatever was predicted.
CONFUSION = [[40, 30], [10, 20]]


@pytest.mark.parametrize(
    ("auc", "accuracy", "confusion", "said"),
    [
        ((0.52, 0.45, 0.6), (0.5, 0.4, 0.6), CONFUSION, "test AUC 0.520 [0.450, 0.600] reaches 0.5"),
        ((0.52, 0.5, 0.6), (), None, "test AUC 0.520 [0.500, 0.600]"),
        ((0.3, 0.2, 0.4), (), None, "test AUC 0.300"),  # the wrong way round is no better
        ((0.52, 0.501, 0.6), (), None, ""),
        ((0.9, 0.8, 0.95), (0.75, 0.7, 0.8), CONFUSION, "test accuracy 0.750 [0.700, 0.800] reaches 0.700"),
        ((0.9, 0.8, 0.95), (0.75, 0.71, 0.8), CONFUSION, ""),
        ((None,), (0.6, 0.5, 0.7), CONFUSION, "test accuracy 0.600 [0.500, 0.700] reaches 0.700"),
        ((0.52, None, None), (0.6, None, None), CONFUSION, ""),  # too few images for an interval: not known
        ((0.9, 0.8, 0.95), (0.6, 0.5, 0.7), [], ""),  # multi-label
        ((0.9, 0.8, 0.95), (0.6, 0.5, 0.7), [["?"], None], ""),  # imported
    ],
)
def test_it_is_the_lower_end_of_the_interval_that_must_be_better(
    auc: tuple[float | None, ...], accuracy: tuple[float | None, ...], confusion: Any, said: str
) -> None:
    found = guessing(row(auc, accuracy, confusion=confusion))
    assert found.startswith(said) if said else found == ""


def test_the_advice_names_the_remedy_and_whether_training_ended_too_early() -> None:
    figures = (0.52, 0.45, 0.6)
    assert advice(row()) == ""
    assert advice(row(figures)).endswith("that of guessing; give it more images or epochs")
    rising = "validation still rising when training ended: AUC 0.510 to 0.560 in the last 3 of 6 epochs"
    said = advice(row(figures, notes=["its stem is as timm has it", rising]))
    assert said.startswith("tiny fp32 is no better than guessing: test AUC 0.520")
    assert said.endswith(f"give it more epochs, {rising}")
