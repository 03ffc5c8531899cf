"""A table of 80 columns: the id that other commands take, names that stay apart, digits that the intervals carry."""

import io
from itertools import product

import pytest
from rich.console import Console

from tutelage.leaderboard.columns import column
from tutelage.leaderboard.terminal import lines as terminal_lines
from tutelage.leaderboard.terminal.table import brief_teachers, cut_apart, show_table
from tutelage.quantities import decimals_of
from tutelage.records import Row

DENSE, DEIT = "densenet121.tv_in1k", "deit_tiny_patch16_224"
TEACHERS = ("", DENSE, DEIT, f"{DENSE}+{DEIT}", f"{DENSE}+vit_small_patch16_224", "vit_small_patch16_224")


def rows() -> list[Row]:
    return [
        Row(
            **{"model": "ofa-77aa01-of-a-long-name", "teacher": teacher, "scheme": scheme, "role": "student"},
            **{"dataset": "chest", "device": "board", "auc": 0.9 + place / 1000, "accuracy": 0.8 + place / 500},
            **{"latency_p50_ms": 1.0 + place / 10, "size_bytes": 2_000_000 + place, "params": 10**6 + place},
        )
        for place, (teacher, scheme) in enumerate(product(TEACHERS, ("fp32", "int8-ptq")))
    ]


@pytest.mark.parametrize("objectives", [None, ["auc", "latency_p50_ms"]])
def test_eighty_columns_show_the_id_and_no_two_rows_alike(objectives):
    console = Console(width=80, file=io.StringIO(), record=True, color_system=None)
    show_table(rows(), console, objectives=objectives)
    head, *lines = console.export_text().splitlines()[: len(rows()) + 1]
    assert {"id", "model", "teacher", "AUC"} <= set(head.split())
    assert {row.key[:8] for row in rows()} <= set(" ".join(lines).split())
    assert max(map(len, [head, *lines])) <= 80
    assert "…" not in "".join(lines)
    start, end = head.index("model"), head.index("AUC") - 2
    # Two rows of one scheme are distinguished by name and teacher; of two schemes by the scheme, where it has room.
    assert len({line[start:end] for line in lines}) == (len(lines) if "scheme" in head else len(TEACHERS))


def test_names_are_cut_as_short_as_they_stay_apart():
    names = [f"network_{letter}_of_the_same_family" for letter in "abc"]
    assert len(set(cut_apart(names, 12))) == 3
    assert cut_apart(["short", "one"], 12) == ["short", "one"]
    both = brief_teachers([f"{DENSE}+{DEIT}", DENSE, DEIT, ""], 15)
    assert len(set(both)) == 4
    assert both[0].count("+") == 1  # two teachers are not written as one
    assert brief_teachers(["vit_patch16_224", "vit_patch32_224"], 15) == ["vit_patch16_224", "vit_patch32_224"]


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "text"),
    [
        ("auc", 0.9571, 0.941, 0.971, "0.957"),  # half of it .015: two digits of the uncertainty
        ("auc", 0.9571, 0.89, 0.99, "0.96"),  # half of it .05: one
        ("auc", 0.99962, 0.9994, 0.9998, "0.9996"),
        ("auc", 0.9571, None, float("nan"), "0.957"),
        ("latency_p50_ms", 4.012, 3.4, 4.6, "4.0"),
        ("latency_p50_ms", 0.3812, 0.379, 0.384, "0.381"),  # never more than three digits
        ("latency_p50_ms", 1234.0, 800, 1600, "1,200"),
        ("latency_p50_ms", 0.3, 0.0, 20.0, "0.300"),  # what would round to nothing keeps its digits
    ],
)
def test_a_figure_has_the_digits_that_its_interval_carries(name, value, low, high, text):
    assert column(name).write(value, low, high) == text


def test_an_interval_without_width_carries_every_digit():
    assert decimals_of(0.5, 0.5) is None


def test_lines_are_those_of_rich_without_its_layout(monkeypatch):
    cells = {
        "on_front": ["*", "", "* tie"],
        "model": ["日本 [b]", "Ärzte", ""],
        "auc": [".9", "", ".9123"],
        "scheme": ["fp32", "int8", "x"],
    }
    printed = []
    for kind in ("print_lines", "_laid_out"):
        console = Console(width=60, file=io.StringIO(), record=True, force_terminal=True, color_system="standard")
        with monkeypatch.context() as patched:
            if kind == "print_lines":
                patched.setattr(terminal_lines, "_laid_out", None)
            getattr(terminal_lines, kind)(cells, [True, False, True], console, "")
        printed.append(console.export_text(clear=False))
        assert console.export_text(styles=True).count("\x1b[1;32m") >= 2, "rows on the front are green"
    assert printed[0] == printed[1]
    console = Console(width=20, file=io.StringIO(), record=True)
    terminal_lines.print_lines(cells, [True, False, True], console)
    assert max(map(len, console.export_text().splitlines())) <= 20
