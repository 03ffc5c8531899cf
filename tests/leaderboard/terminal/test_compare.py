"""Two rows side by side: only what may be compared is."""

import io

import pytest
from rich.console import Console

from tutelage.leaderboard.terminal.compare import differences, show_comparison
from tutelage.records import Comparison, Row

A = Row(
    model="A",
    role="student",
    dataset="d",
    device="x",
    auc=0.90,
    auc_lo=0.88,
    auc_hi=0.92,
    latency_p50_ms=2.0,
    params=10,
)
B = A.model_copy(
    update={"model": "[b]B", "auc": 0.95, "auc_lo": 0.93, "auc_hi": 0.96, "latency_p50_ms": 1.0, "params": 10}
)


def by_figure(first, second, tests=()):
    return {one.figure: one for one in differences(first, second, tests)}


def test_differences_have_their_unit_and_direction():
    found = by_figure(A, B)
    assert (found["auc"].change, found["auc"].verdict) == ("+5.0 points", "")  # not tested
    assert found["auc"].note == "not tested"
    assert (found["latency_p50_ms"].note, found["params"].note) == ("", "")
    assert (found["latency_p50_ms"].change, found["latency_p50_ms"].verdict) == ("2.00 x less", "better")
    assert found["params"].verdict == "same"
    assert "energy_mj" not in found
    assert by_figure(B, A)["latency_p50_ms"].verdict == "worse"


@pytest.mark.parametrize(("change", "figure"), [({"device": "y"}, "latency_p50_ms"), ({"dataset": "e"}, "auc")])
def test_other_ground_is_not_compared(change, figure):
    one = by_figure(A, B.model_copy(update=change))[figure]
    assert (one.change, one.verdict) == ("", "")
    assert one.note.startswith("other")


def test_a_paired_test_is_reported_before_the_intervals():
    found = {"claim": "file", "figure": "auc", "difference": 0.05, "low": 0.02, "high": 0.08, "p": 0.0004}
    tests = [Comparison.from_dict({**found, "margin": 0.01, "num_seeds": 1, "num_groups": 40})]
    assert by_figure(A, B, tests)["auc"].note == "gained +.050 AUC [+.020, +.080], p < .001"
    console = Console(width=110, file=io.StringIO(), record=True)
    show_comparison(A, B, console, tests=tests)
    text = console.export_text()
    assert "[b]B" in text
    assert "gained +.050" in text
    show_comparison(A, B, console)
    assert "No paired test" in console.export_text()


@pytest.mark.parametrize(
    ("change", "figure", "words"),
    [
        ({"size_bytes": 1_000_700}, "size_bytes", "same within 0.5 %"),
        ({"params": 9_999}, "params", "same within 0.5 %"),
        ({"auc": 0.9003}, "auc", "same to .1 point"),
    ],
)
def test_what_is_written_alike_is_not_called_better(change, figure, words):
    first = A.model_copy(update={"size_bytes": 1_000_000, "params": 10_000})
    one = by_figure(first, first.model_copy(update=change))[figure]
    assert (one.change, one.verdict) == (words, "")
    assert by_figure(first, first.model_copy(update={"size_bytes": 990_000}))["size_bytes"].verdict == "better"
