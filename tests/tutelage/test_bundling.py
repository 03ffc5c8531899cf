"""Which row is bundled, and which rows cannot be."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tutelage.bundling import best_student, bundle_row
from tutelage.records import InputError, Row
from tutelage.workspace import Workspace


def _row(model: str, auc: float | None, accuracy: float, ms: float, **other: object) -> Row:
    validation = {"auc": auc, "accuracy": accuracy}
    fields = {"role": "student", "recipe": "r", "dataset": "d", "details": {"validation": validation}, **other}
    return Row(model=model, latency_p50_ms=ms, accuracy=1 - accuracy, **fields)


def test_the_best_student_is_chosen_on_validation_and_of_equals_the_fastest() -> None:
    """Test accuracies run the other way (1 - validation's): they have no say."""
    rows = [
        _row("a", 0.9, 0.9, 1.0), _row("b", 0.95, 0.8, 2.0), _row("c", 0.95, 0.85, 0.5), _row("d", 0.94, 0.99, 0.1),
        _row("teacher", 0.99, 0.99, 9.0, role="teacher"), _row("imported", 0.99, 0.9, 0.1, source="imported"),
        _row("elsewhere", 0.99, 0.9, 0.1, recipe="other"),
    ]  # fmt: skip
    assert best_student(rows, "r").model == "c"
    assert best_student([_row("a", None, 0.7, 1.0), _row("b", None, 0.8, 2.0)], "r").model == "b"


def test_a_recipe_without_students_names_the_remedy() -> None:
    with pytest.raises(InputError, match=r"no student of recipe 'r' .* `tutelage run r`"):
        best_student([_row("teacher", 0.9, 0.9, 1.0, role="teacher")], "r")


@pytest.mark.parametrize(("source", "message"), [("imported", "was imported"), ("measured", "does not say which file")])
def test_a_row_without_its_file_is_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        bundle_row(_row("a", 0.9, 0.9, 1.0, source=source), Workspace(tmp_path), lambda *_: None, 1, out=tmp_path / "b")


@pytest.mark.parametrize("words", [["8576a5ae"], ["--recipe", "demo"], ["make", "8576a5ae"]])
def test_a_row_or_an_option_is_read_as_make(words: list[str], tmp_path: Path) -> None:
    from tutelage.cli import app

    done = CliRunner().invoke(app, ["bundle", *words, "--workspace", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "no leaderboard" in str(done.exception)
