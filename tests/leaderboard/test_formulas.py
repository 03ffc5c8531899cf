"""Names that a spreadsheet would compute stay text in every CSV, and importing gives them back as they were."""

import csv
import io
import re

import pytest

from tutelage.leaderboard.comparisons.matrix import matrices, to_csv
from tutelage.leaderboard.export import as_named, export, inert
from tutelage.leaderboard.store import Store, import_file
from tutelage.records import Row

FORMULAS = ['=cmd|"/c calc"!A1', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1", "'=1", "''@x", "-"]
PLAIN = ["net", "a=b", "'quoted'", "x-y", " =1", "1e-3", "5"]
COMPUTED = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def named(text: str, **more) -> Row:
    """A row that bears a text wherever somebody names something, and a loss of accuracy, a number below 0."""
    names = dict.fromkeys(("teacher", "recipe", "split", "runtime", "device", "processor"), text)
    details = {"user": text, "project": text, "start": text, "failed": text, "gain_over_control": {"accuracy": -0.02}}
    return Row(**{"model": text, "role": "student", "dataset": text, **names, "details": details, **more})


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_no_cell_of_an_export_is_computed_but_its_numbers(tmp_path):
    rows = [named(text) for text in (*FORMULAS, *PLAIN)]
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    head, *lines = cells(export(store.frame(), None, "csv"))
    assert len(lines) == len(rows)
    computed = [(name, cell) for line in lines for name, cell in zip(head, line, strict=True) if COMPUTED.match(cell)]
    assert {name for name, _ in computed} <= {"gain_accuracy"}
    path = tmp_path / "rows.csv"
    path.write_text(export(rows, None, "csv"), encoding="utf-8")
    other = Store(tmp_path / "other.db")
    assert import_file(other, path) == len(rows)
    names = ("model", "dataset", "device", "user", "failed")
    assert other.columns(names=names) == store.columns(names=names)


@pytest.mark.parametrize("text", ["a\rb", "\r=1"])
def test_a_carriage_return_begins_no_line(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_bytes(export([named(text)], None, "csv").encode())
    with path.open(newline="") as file:
        assert len(list(csv.reader(file))) == 2
    assert import_file(Store(tmp_path / "leaderboard.db"), path) == 1


def test_no_cell_of_a_matrix_is_computed(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    store.add([named(text, latency_p50_ms=1.0, seed=seed) for text in FORMULAS for seed in (0, 1)])
    found = cells(to_csv(matrices(store, "latency_p50_ms", is_open=True)))
    assert len(found) > 1 + 2 * len(FORMULAS)
    assert not [cell for line in found for cell in line if COMPUTED.match(cell)]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, ""])
def test_what_was_written_is_read_again(text):
    assert as_named(inert(text)) == text
    assert (inert(text) == text) == (text in (*PLAIN, ""))
