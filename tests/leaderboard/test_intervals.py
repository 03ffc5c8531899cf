"""The interval of a latency goes with its row: into the store, through an export and back, into standings and marks."""

import io
import math

import pytest
from rich.console import Console

from tutelage.leaderboard import pareto
from tutelage.leaderboard.export import export
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.importing import read_file
from tutelage.leaderboard.terminal.standing import standing_of
from tutelage.leaderboard.terminal.table import show_table
from tutelage.records import Row

LATENCY_BOUNDS = ("latency_p50_ms_lo", "latency_p50_ms_hi")


@pytest.fixture
def rows():
    """2.0 ms and 2.3 ms at a lower AUC: distinguished by the tolerance, not by the interval of the second."""
    first = Row(model="first", role="student", dataset="d", auc=0.95, latency_p50_ms=2.0, size_bytes=9)
    wide = {"latency_p50_ms_lo": 1.9, "latency_p50_ms_hi": 2.7e0}
    odd = {**wide, "ece": math.nan, "note": 'a "latency_p50_ms_lo": 7 in a text', "later": [1]}
    return [
        first,
        first.model_copy(update={"model": "second", "auc": 0.9, "latency_p50_ms": 2.3, "details": odd}),
        first.model_copy(update={"model": "third", "auc": 0.94997, "latency_p50_ms": 2.05}),
    ]


def test_a_store_gives_the_interval_beside_its_columns(tmp_path, rows):
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    expected = {"latency_p50_ms_lo": [None, 1.9, None], "latency_p50_ms_hi": [None, 2.7, None]}
    assert store.columns(names=LATENCY_BOUNDS) == expected
    assert {name: store.columns()[name] for name in LATENCY_BOUNDS} == expected
    assert store.frame()["latency_p50_ms_lo"].tolist()[1] == 1.9
    objectives = ("auc", "latency_p50_ms")
    by_row = pareto.front_with_intervals(rows, objectives)
    assert by_row == ["maybe", "maybe", "maybe"]
    assert pareto.front_with_intervals(store.frame(), objectives) == by_row
    assert [standing_of(store, row, objectives).verdict for row in rows] == by_row


def test_the_interval_survives_an_export(tmp_path, rows):
    for name in ("rows.csv", "rows.json"):
        export(rows, tmp_path / name, name.rpartition(".")[2])
        back, _ = read_file(tmp_path / name)
        assert [row.details.get("latency_p50_ms_hi") for row in back] == [None, 2.7, None]
        store = Store(tmp_path / f"{name}.db")
        store.add(back)
        assert store.columns(names=LATENCY_BOUNDS)["latency_p50_ms_hi"] == [None, 2.7, None]


def test_a_row_that_a_tie_keeps_is_marked_so(tmp_path, rows):
    console = Console(width=120, file=io.StringIO(), record=True)
    show_table(rows, console, objectives=["auc", "latency_p50_ms"])
    text = console.export_text()
    marks = {
        name: next(line for line in text.splitlines() if f" {name} " in line).split()[:2]
        for name in ("first", "second", "third")
    }
    assert marks["first"] == ["*", "maybe"]
    assert marks["second"][0] == "maybe"
    assert marks["third"][0] == "tie"
    assert "tie: within .0005 of quality or 5 % of a measured cost" in text
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    assert [standing_of(store, row, ("auc", "latency_p50_ms")).on_front for row in rows] == [True, False, True]
