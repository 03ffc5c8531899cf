"""The best student is chosen on validation data, the same way each time."""

from tutelage.leaderboard.best import best_student
from tutelage.records import Row


def _row(model: str, auc: float | None, accuracy: float, params: int, **other: object) -> Row:
    """A row whose test accuracy runs the other way (1 - validation's), and whose time says nothing."""
    details = {"validation": {"auc": auc, "accuracy": accuracy}}
    fields = {"role": "student", "dataset": "d", "details": details, "latency_p50_ms": 1 - accuracy, **other}
    return Row(model=model, params=params, accuracy=1 - accuracy, **fields)


def test_validation_chooses_and_of_equals_the_smallest_at_int8_then_the_exact_figure() -> None:
    rows = [
        _row("a", 0.9, 0.9, 1), _row("b", 0.95, 0.8, 20), _row("c", 0.9499, 0.85, 5), _row("d", 0.9501, 0.85, 5),
        _row("int8", 0.9498, 0.85, 5, scheme="int8-ptq"), _row("int8 too", 0.9496, 0.85, 5, scheme="int8-ptq"),
        _row("e", 0.94, 0.99, 1), _row("teacher", 0.99, 0.99, 1, role="teacher"),
        _row("imported", 0.99, 0.9, 1, source="imported"),
    ]  # fmt: skip
    for _ in range(len(rows)):
        rows = [*rows[1:], rows[0]]  # whatever their order
        best = best_student(rows)
        assert best is not None
        assert best.model == "int8"


def test_without_auc_accuracy_chooses_and_without_students_nobody() -> None:
    best = best_student([_row("a", None, 0.7, 1), _row("b", None, 0.8, 2)])
    assert best is not None
    assert best.model == "b"
    assert best_student([_row("teacher", 0.9, 0.9, 1, role="teacher")]) is None
