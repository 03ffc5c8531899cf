"""The best student and the verdicts of a page come from the tests that `leaderboard compare` makes of the files."""

import json

import numpy as np
import pytest

from tutelage.leaderboard.export import frame
from tutelage.leaderboard.page import verdicts
from tutelage.leaderboard.page.data import embedded
from tutelage.leaderboard.page.verdicts import decide, decided_ids
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.terminal.provenance import provenance
from tutelage.pipeline.operations.paired import RowFigures, page_verdicts, paired_tests
from tutelage.pipeline.operations.stages import list_stages
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError, Row

NUM = 600


@pytest.fixture
def rows(tmp_path):
    """A teacher, a distilled student whose int8 file gives nearly its outputs, a control far below, on two devices."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM) % 2
    groups = np.array([f"patient {place // 2}" for place in range(NUM)])
    base = labels * 1.6 + rng.normal(0, 1, NUM)
    scores = {
        "teacher": labels * 2.6 + rng.normal(0, 1, NUM),
        "distilled": base,
        "int8": base + rng.normal(0, 0.01, NUM),
        "control": labels * 0.6 + rng.normal(0, 1, NUM),
    }
    found = []
    for name, values in scores.items():
        one = 1 / (1 + np.exp(-values))
        probs = np.stack([1 - one, one], axis=1).astype(np.float32)
        arrays = {f"{split}_{what}": array for split in ("val", "test") for what, array in
                  (("probs", probs), ("labels", labels), ("groups", groups))}  # fmt: skip
        np.savez(tmp_path / f"{name}.npz", **arrays)
        auc = float((one[labels == 1][:, None] > one[labels == 0]).mean())
        for device in ("here", "there"):
            found.append(
                Row(
                    model=name, role="teacher" if name == "teacher" else "student", dataset="d", device=device, auc=auc,
                    teacher="" if name in ("teacher", "control") else "teacher", latency_p50_ms=1.0,
                    scheme="int8-ptq" if name == "int8" else "fp32",
                    size_bytes=25 if name in ("int8", "control") else 99,
                    manifest="m",
                    details={
                        "validation": {"auc": auc}, "predictions": f"{name}.npz", "threshold": 0.5,
                        "how": {"file": {"path": "model.onnx"}},
                    },
                )
            )  # fmt: skip
    return found


def test_each_device_has_its_best_student_by_the_paired_test_on_validation(rows, tmp_path):
    found = page_verdicts(rows, tmp_path)
    by_id = {row.key: row for row in rows}
    chosen = [(by_id[one.student], by_id[one.teacher]) for one in found.headlines]
    assert [(a.model, a.device, b.model, b.device) for a, b in chosen] == [
        ("int8", "here", "teacher", "here"),
        ("int8", "there", "teacher", "there"),
    ]
    # Without a test the figures of both files are within the margin too, but a test that cannot tell outweighs them.
    near = {"auc": rows[2].details["validation"]["auc"] - 0.001}
    control = rows[-1].model_copy(update={"details": {**rows[-1].details, "validation": near}})
    unsure = [row for row in rows if row.model in ("distilled", "teacher") and row.device == "there"] + [control]
    assert [row.model for row in unsure if row.key == decide(unsure).headlines[0].student] == ["control"]
    assert [row.model for row in unsure if row.key == page_verdicts(unsure, tmp_path).headlines[0].student] == [
        "distilled"
    ]


def test_a_pair_has_the_verdict_that_compare_prints(rows, tmp_path):
    found = page_verdicts(rows, tmp_path)
    assert len(found.pairs) == 6  # four files: those of two devices are the same
    teacher, distilled = rows[0], rows[2]
    first, second = found.files[teacher.key], found.files[distilled.key]
    pair = found.pairs[min(first, second), max(first, second)]
    printed = paired_tests(teacher, distilled, tmp_path)  # the second less the first
    if first < second:
        printed = RowFigures(tmp_path).compare(teacher, distilled)
    assert list(pair) == printed
    assert {one.figure: one.verdict for one in paired_tests(teacher, distilled, tmp_path)}["auc"] == "lost"


def test_a_row_without_its_predictions_or_of_other_images_is_in_no_pair(rows, tmp_path):
    (tmp_path / "control.npz").unlink()
    other = rows[0].model_copy(update={"manifest": "other"})
    imported = rows[0].model_copy(update={"source": "imported", "details": {}})
    found = page_verdicts([*rows, other, imported], tmp_path)
    assert len(found.pairs) == 3
    assert imported.key not in found.files
    assert not any(found.files[other.key] in pair for pair in found.pairs)
    assert not any(found.files[rows[-1].key] in pair for pair in found.pairs)


def test_of_many_files_those_a_reader_compares_first_are_tested(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "MOST_TESTED", 2)
    found = page_verdicts(rows, tmp_path)
    tested = {row.model for row in rows if row.key in found.files}
    assert (tested, len(found.pairs)) == ({"int8", "teacher"}, 1)  # the headline's


def test_a_large_leaderboard_gives_its_fronts_to_be_decided(rows, monkeypatch):
    assert decided_ids(frame(rows)) == [row.key for row in rows]
    monkeypatch.setattr(verdicts, "MOST_DECIDED", 2)
    assert set(decided_ids(frame(rows))) == {row.key for row in rows if row.model == "teacher"}


def test_the_page_holds_the_verdicts_by_place(rows, tmp_path):
    data = json.loads(embedded(rows, "", None, page_verdicts(rows, tmp_path))[0])
    assert data["headlines"] == [[4, 0, ""], [5, 1, ""]]
    assert data["files"][0] == data["files"][1]
    first, second = sorted((data["files"][0], data["files"][2]))
    assert data["pairs"][f"{first},{second}"]["auc"][0] in ("gained", "lost")
    assert json.loads(embedded(rows, "", None)[0])["pairs"] == {}


def test_predictions_that_are_damaged_are_named(rows, tmp_path):
    (tmp_path / "teacher.npz").write_bytes((tmp_path / "teacher.npz").read_bytes()[:100])
    with pytest.raises(InputError, match=r"teacher\.npz does not hold the predictions of a row"):
        page_verdicts(rows, tmp_path)


def test_imported_rows_that_say_less_than_a_run_does_are_read(tmp_path):
    """Other programs write null where they know nothing, and files of seeds without their predictions."""
    less = [{"how": None}, {"how": {"file": None}, "seeds": {"files": [{}]}}]
    common = {"role": "student", "dataset": "d", "fold": 1}
    records = [
        {**common, "model": f"m{number}", "details": {"state": "complete", **details}}
        for number, details in enumerate(less)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(records))
    workspace = Workspace(tmp_path / "w")
    store = Store(workspace.store)
    assert import_file(store, tmp_path / "rows.json") == 2
    assert list_stages(workspace.path) == []
    assert paired_tests(*store.rows(), workspace.path) == []
    assert page_verdicts(store.rows(), workspace.path).files == {}
    assert all(provenance(store, row)["command"] is None for row in store.rows())
