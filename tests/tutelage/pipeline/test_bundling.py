"""Which row is bundled, and which rows cannot be."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.leaderboard.best import OVER_BUDGET
from tutelage.leaderboard.store import Store
from tutelage.pipeline.operations.bundle import bundle_row, class_thresholds, row_of
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages.bundle import bundled_rows, check_bundled, folder_names
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row


def _row(model: str, auc: float | None, accuracy: float, ms: float, **other: object) -> Row:
    validation = {"auc": auc, "accuracy": accuracy}
    fields = {"role": "student", "recipe": "r", "dataset": "d", "details": {"validation": validation}, **other}
    return Row(model=model, latency_p50_ms=ms, accuracy=1 - accuracy, **fields)


def test_a_recipe_without_students_names_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path / "leaderboard.db")
    made = {"validation": {"auc": 0.9}, "how": {"file": {"path": "model.onnx"}}}
    rows = [
        _row("teacher", 0.9, 0.9, 1.0, role="teacher"),
        _row("no file", 0.9, 0.9, 1.0),
        _row("elsewhere", 0.9, 0.9, 1.0, recipe="other", details=made),
        _row("without a file", 0.99, 0.9, 1.0, recipe="other"),
    ]
    store.add(rows)
    with pytest.raises(InputError, match=r"no student of recipe 'r' .* `tutelage run r`"):
        row_of(Workspace(tmp_path), None, "r", None)
    assert row_of(Workspace(tmp_path), None, "other", None).model == "elsewhere"
    (tmp_path / "mine.yaml").write_text("name: other\ndata: {dataset: phantom}\n")
    assert row_of(Workspace(tmp_path), None, str(tmp_path / "mine.yaml"), None).model == "elsewhere"


@pytest.mark.parametrize(("source", "message"), [("imported", "was imported"), ("measured", "does not say which file")])
def test_a_row_without_its_file_is_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        bundle_row(_row("a", 0.9, 0.9, 1.0, source=source), Workspace(tmp_path), lambda *_: None, 1, out=tmp_path / "b")


@pytest.mark.parametrize(
    ("threshold", "expected"), [(None, None), (0.3, (0.7, 0.3)), ([0.1, 0.2, 0.9], (0.1, 0.2, 0.9))]
)
def test_every_class_has_the_threshold_it_was_evaluated_with(threshold: object, expected: object) -> None:
    row = Row(model="a", role="student", recipe="r", dataset="d", details={"threshold": threshold})
    assert class_thresholds(row) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("words", [["8576a5ae"], ["--recipe", "demo"], ["make", "8576a5ae"]])
def test_a_row_or_an_option_is_read_as_make(words: list[str], tmp_path: Path) -> None:
    from tutelage.cli.app import app

    done = CliRunner().invoke(app, ["bundle", *words, "--workspace", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "no leaderboard" in str(done.exception)


def _made(model: str, auc: float, ms: float, over: bool = False, **other: Any) -> Row:
    """A row of a run that has its file, of test and validation AUC `auc`; `over`: above a memory limit."""
    details: dict[str, Any] = {OVER_BUDGET: ["flash"]} if over else {}
    details |= {"validation": {"auc": auc, "accuracy": auc}, "how": {"file": {"path": "model.onnx"}}}
    fields = {"role": "student", "size_bytes": 1000, "runtime": "onnxruntime", "device": "box", **other}
    return Row(
        model=model, recipe="r", dataset="d", auc=auc, accuracy=auc, latency_p50_ms=ms, details=details, **fields
    )


def test_each_student_of_the_front_is_bundled_once_by_its_best_file() -> None:
    rows = [
        _made("large", 0.95, 4.0),
        _made("large", 0.95, 2.0, scheme="int8-ptq", size_bytes=300),  # as good, smaller: the one to deploy
        _made("small", 0.90, 1.0, size_bytes=200),
        _made("dominated", 0.80, 3.0, size_bytes=900),
        _made("broken by int8", 0.93, 2.5),  # dominated by the large one; the next is on the front for its bytes alone
        _made("broken by int8", 0.45, 0.4, scheme="int8-ptq", size_bytes=90),
        _made("baseline", 0.85, 0.5, role="baseline", size_bytes=100),
        _made("on ncnn", 0.99, 0.1, runtime="ncnn", device="phone"),  # no bundle can hold its file
    ]
    chosen = [(row.model, row.scheme) for row in bundled_rows(rows, "front")]
    assert chosen == [("small", "fp32"), ("large", "int8-ptq"), ("broken by int8", "fp32")]
    assert [row.model for row in bundled_rows(rows, "best")] == ["large"]
    assert bundled_rows(rows, "none") == []


def test_files_above_a_limit_are_left_out_on_a_device_only_where_another_one_fits_there() -> None:
    rows = [
        _made("net", 0.95, 4.0, over=True),
        _made("net", 0.94, 2.0, scheme="int8-ptq", size_bytes=300),
        _made("net", 0.95, 4.0, device="board", over=True),
        _made("net", 0.94, 2.0, scheme="int8-ptq", device="board", size_bytes=600, over=True),
    ]
    for which in ("best", "front"):
        chosen = {row.device: row.scheme for row in bundled_rows(rows, which)}
        assert chosen.keys() == {"box", "board"}
        assert chosen["box"] == "int8-ptq"


def test_every_bundle_has_a_folder_of_its_own_below_that_of_the_recipe() -> None:
    rows = [_made(title, 0.9, 1.0) for title in ("a b", "a/b", "A-b", "..", "../..", "ä.1")]
    names = folder_names(rows)
    assert [names[0], names[-1]] == ["a-b", "ä.1"]
    assert names[1:5] == [*(f"{start}-{row.key[:8]}" for start, row in zip(("a-b", "A-b"), rows[1:3], strict=True)),
                          *(row.key[:8] for row in rows[3:5])]  # fmt: skip
    both = [_made("a", 0.9, 1.0), _made("a", 0.9, 1.0, device="board")]
    assert folder_names(both) == ["a-box", "a-board"]


def test_where_baselines_dominate_every_student_the_best_one_is_bundled(caplog: pytest.LogCaptureFixture) -> None:
    rows = [_made("student", 0.8, 2.0), _made("baseline", 0.9, 1.0, role="baseline", size_bytes=10)]
    assert [row.model for row in bundled_rows(rows, "front")] == ["student"]
    assert "no student is on the front" in caplog.text


def test_a_run_whose_devices_take_no_bundle_is_refused() -> None:
    phone = DeviceSection(name="phone", runtime="ncnn")
    with pytest.raises(InputError, match=r"bundle.rows is front, and the devices run ncnn: .*onnxruntime and openvino"):
        check_bundled([phone], "front")
    check_bundled([phone], "none")
    check_bundled([phone, DeviceSection(name="box")], "front")
