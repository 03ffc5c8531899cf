"""A page that the database sorts, filters and compares, against the rule over all rows in memory."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import event

from tutelage.leaderboard import export, pareto
from tutelage.leaderboard.columns import OF_FORMER
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.choose import chosen
from tutelage.leaderboard.page.data import page_columns
from tutelage.leaderboard.store import Store, fronts, ranking, rows, schema
from tutelage.leaderboard.store.page import SHARED, Request
from tutelage.leaderboard.terminal.table import columns_to_rank, ranked
from tutelage.records import InputError, Row

from ..filed import run_row

FILTERS = ("", "role=student", "latency_p50_ms<3 or auc>0.9", "device=cpu and not energy_mj=empty", "model~'no such'")
FRONTS = ((), ("latency_p50_ms", "auc"), ("params", "size_bytes:max"), ("auc", "latency_p50_ms", "size_bytes", "macs"))


def drawn_rows(rng: np.random.Generator, size: int) -> list[Row]:
    """Rows whose figures are often equal, near, or absent, in groups of which some lack a figure altogether."""
    drawn = []
    for place in range(size):
        group = int(rng.integers(4))
        figures: dict[str, float | int | None] = {
            "auc": None if group == 2 else round(float(rng.choice([0.9, 0.9004, 0.91, 0.93, 0.95])), 4),
            "accuracy": float(rng.choice([0.8, 0.85, 0.9])),
            "latency_p50_ms": None if group == 3 else float(rng.choice([1.0, 1.04, 1.1, 2.0, 4.0])),
            "size_bytes": int(rng.choice([1000, 1000, 1010, 2000, 5000])),
            "params": int(rng.choice([10, 20, 30])),
            "macs": int(rng.choice([100, 200])),
            "energy_mj": float(rng.choice([0.5, 1.0])),
        }
        figures = {name: None if rng.random() < 0.1 else value for name, value in figures.items()}
        width = rng.choice([0.0, 0.001, 0.02])
        auc, latency = figures["auc"], figures["latency_p50_ms"]
        bounds = {"auc_lo": auc - width, "auc_hi": auc + 0.5 * width} if auc is not None and width else {}
        ends = (
            {} if latency is None or not width else {"latency_p50_ms_lo": latency * 0.98, "latency_p50_ms_hi": latency}
        )
        common = {"role": ("student", "baseline")[place % 3 == 0], "device": ("cpu", "board")[group % 2]}
        common |= {"dataset": f"d{group // 2}", "scheme": ("fp32", "int8-ptq")[place % 2], **figures, **bounds}
        if rng.random() < 0.3:  # a run again of the same
            network, state = str(rng.integers(3)), str(rng.choice(["evaluated", "complete"]))
            made = f"2026-01-01T00:00:{place:02d}Z"
            drawn.append(
                run_row(state, network=network, created=made, model=f"run {place % 4}", details=ends, **common)
            )
        else:
            drawn.append(Row(model=f"m{place}", details=ends, seed=place, **common))
    return drawn


def fill(store: Store, rng: np.random.Generator, size: int) -> None:
    drawn = drawn_rows(rng, size)
    for some in (drawn[start : start + 7] for start in range(0, size, 7)):
        store.add(some)
    for row in store.rows()[:: max(1, size // 3)]:
        store.retract(row.key, "drawn")


def by_the_rule(store: Store, asked: Request) -> tuple[list[str], list[str], dict[str, str]]:
    """Give ids, marks and what all rows share, of all rows in memory."""
    names = (*columns_to_rank(list(asked.objectives) or None), *(OF_FORMER if asked.every else ()))
    found = store.columns(asked.filter or None, names, every=asked.every)
    if not found["row_id"]:
        return [], [], {}
    order, marks = ranked(found, list(asked.objectives) or None, asked.ties)
    shared = {name: set(found[name]) for name in SHARED}
    same = {name: str(values.pop()) for name, values in shared.items() if len(values) == 1 and values != {""}}
    return [found["row_id"][place] for place in order], [marks[place] for place in order], same


def check_pages(store: Store, rng: np.random.Generator, num: int = 8) -> int:
    """Compare pages of some requests with the rule; give the number of marked rows."""
    marked = 0
    requests = list(itertools.product(FILTERS, FRONTS, (False, True)))
    for place in rng.permutation(len(requests))[:num]:
        wanted, objectives, every = requests[place]
        few = rng.random() < 0.5
        whole = Request(wanted, objectives, "auc=0.005" if "auc" in objectives and few else "", every=every)
        ids, marks, shared = by_the_rule(store, whole)
        for limit, offset in ((None, 0), (4, 0), (5, 3)):
            asked = Request(whole.filter, objectives, whole.ties, limit, offset, every=every)
            page = ranking.page_of(store, asked, ("row_id",))
            end = None if limit is None else offset + limit
            assert list(page.columns["row_id"]) == ids[offset:end], asked
            assert list(page.marks) == marks[offset:end], asked
            assert (page.count, page.shared) == (len(ids), shared), asked
        numbers = ranking.ranked_numbers(store, whole)
        found = ranking.marks_of(store, whole)
        assert [found.get(number, "") for number in numbers] == marks, whole
        marked += sum(map(bool, marks))
    return marked


@pytest.mark.parametrize("seed", range(4))
def test_pages_and_marks_are_those_of_the_rule_over_all_rows(tmp_path: Path, monkeypatch, seed: int):
    """With groups of any size taken for large ones, of which SQL strikes out what a few rows of a sample dominate."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(ranking, "_SMALL", seed % 3)
    monkeypatch.setattr(ranking, "_FEW", (3, 2_000)[seed // 2])
    monkeypatch.setattr(ranking, "_SCANNED", 10 * (seed % 2))
    monkeypatch.setattr(fronts, "SAMPLE", 12)
    store = Store(tmp_path / "leaderboard.db")
    fill(store, rng, 40)
    assert check_pages(store, rng) > 10


@pytest.mark.parametrize("most", [0, 20])
def test_rows_are_sorted_by_a_column_with_empty_ones_last_and_their_marks(tmp_path: Path, monkeypatch, most: int):
    """With what dominates each row of a page looked for, and with groups read."""
    monkeypatch.setattr(ranking, "_SMALL", 2)
    monkeypatch.setattr(ranking, "_PROBED", most)
    monkeypatch.setattr(fronts, "_MOST_UNITED", 3)
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(9), 40)
    found = store.columns(None, columns_to_rank())
    order, marks = ranked(found, None, "")
    marked = {found["row_id"][place]: marks[place] for place in order}
    for sort, name, sign in (
        ("latency_p50_ms", "latency_p50_ms", 1),
        ("auc", "auc", -1),
        ("params:desc", "params", -1),
        ("size_bytes", "size_bytes", 1),
        ("latency_p50_ms:desc", "latency_p50_ms", -1),
    ):
        values = store.columns(names=("row_id", name))
        absent = [value is None for value in values[name]]
        keys = [0.0 if value is None else sign * value for value in values[name]]
        ids = [values["row_id"][place] for place in np.lexsort((keys, absent))]
        for limit, offset in ((None, 0), (7, 0), (3, 5), (7, 30)):
            page = ranking.page_of(store, Request(sort=sort, limit=limit, offset=offset), ("row_id",))
            assert list(page.columns["row_id"]) == ids[offset : None if limit is None else offset + limit]
            assert list(page.marks) == [marked[row_id] for row_id in page.columns["row_id"]]
    page = ranking.page_of(store, Request(sort="model:desc"), ("row_id", "model"))
    assert list(page.columns["model"]) == sorted(page.columns["model"], reverse=True)
    for wrong in ("latency_p50_ms:up", "details", "on_front", "latncy"):
        with pytest.raises(InputError, match=wrong):
            ranking.page_of(store, Request(sort=wrong), ("row_id",))


def plans_of(store: Store, asked: Request) -> list[tuple[str, str]]:
    """Give how SQLite finds the rows of each statement of a page."""
    seen: list[tuple[str, tuple[object, ...]]] = []
    event.listen(store._engine, "before_cursor_execute", lambda _c, _k, text, values, *_: seen.append((text, values)))
    ranking.page_of(store, asked, ("row_id",))
    plans = []
    with store.reading() as connection:
        for text, values in [one for one in seen if one[0].lstrip().startswith(("SELECT", "WITH"))]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
            plans += [(text, line[-1]) for line in plan]
    return plans


def test_the_few_rows_of_a_filter_are_found_once_and_then_looked_up(tmp_path: Path, monkeypatch):
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(3), 30)
    kinds = itertools.product(("", " and energy_mj=0.5"), ((), ("latency_p50_ms", "auc")), ("", "auc", "model"))
    asked = [Request(f"params<15{more}", objectives=front, sort=sort, limit=4) for more, front, sort in kinds]
    once = [ranking.page_of(store, one, ("row_id",)) for one in asked]
    for one in asked:
        plans = plans_of(store, one)
        tried = {text for text, _ in plans if "params" in text}
        assert len(tried) == 1, one
        others = [line for text, line in plans if text not in tried and line.startswith("SCAN rows")]
        assert not [line for line in others if "COVERING INDEX" not in line], one
    monkeypatch.setattr(ranking, "_FEW", -1)
    assert [ranking.page_of(store, one, ("row_id",)) for one in asked] == once


def test_a_page_of_a_board_reads_its_rows_by_indexes(tmp_path: Path, monkeypatch):
    """But for the question whether all rows are of one scheme, which ends at the first that is not."""
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(3), 30)
    for asked in (Request(limit=5), Request(limit=5, offset=7), Request(limit=5, objectives=("latency_p50_ms", "auc"))):
        plans = plans_of(store, asked)
        assert any("rows_by_rank" in line for _, line in plans)
        scans = [text for text, line in plans if line.startswith("SCAN rows") and "COVERING INDEX" not in line]
        assert [text for text in scans if not text.startswith("SELECT rows.scheme")] == []
    monkeypatch.setattr(ranking, "_FEW", -1)
    wide = plans_of(store, Request("latency_p50_ms<3 and role=student", limit=5))
    assert not any("rows_by_latency" in line for _, line in wide), "most rows may meet a range: one pass reads them"
    (counted,) = [line for text, line in wide if "GROUP BY (+" in text and line.startswith("SCAN rows")]
    assert counted == "SCAN rows USING COVERING INDEX rows_by_front", "role and figures of a front stand in the index"
    other = plans_of(store, Request("params>3 and seed=2", limit=5))
    (counted,) = [line for text, line in other if "GROUP BY (+" in text and line.startswith("SCAN rows")]
    assert counted == "SCAN rows", "rows are read as they lie, not in the order of an index"


def test_a_page_asks_no_more_of_many_groups_than_of_few(tmp_path: Path):
    """Each group was asked whether it has a row, for what all rows share: of 60 groups 60 statements."""
    asked = []
    for num_groups in (3, 30):
        store = Store(tmp_path / f"{num_groups}.db")
        names = {"role": "student", "device": "x", "runtime": "r"}
        store.add([Row(model=f"m{n}", dataset=f"d{n % num_groups}", auc=n / 100, **names) for n in range(90)])
        seen: list[str] = []
        event.listen(store._engine, "before_cursor_execute", lambda _c, _k, text, *_, seen=seen: seen.append(text))
        assert ranking.page_of(store, Request(limit=2), ("row_id",)).shared == {
            "device": "x", "runtime": "r", "scheme": "fp32"
        }  # fmt: skip
        asked.append(len(seen))
    assert asked[0] == asked[1] < 25


@pytest.mark.parametrize(
    ("sort", "index"), [(name, index) for index, name in schema.SORTED.items()] + [("auc:asc", "auc")]
)
def test_a_sorted_page_reads_the_first_rows_of_an_index(tmp_path: Path, sort: str, index: str):
    """Neither all rows, nor all of a group where those are looked for that are as good as the last of the page."""
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(3), 30)
    plans = plans_of(store, Request(sort=sort, limit=5))
    (first,) = {line for text, line in plans if "IS NOT NULL ORDER BY" in text.replace("\n", "") and " rows " in line}
    assert f"USING COVERING INDEX rows_by_{index}" in first, "their number is all that is asked for"
    assert [line for _, line in plans if line.startswith("SCAN rows") and "rows_by" not in line] == []
    if sort == "latency_p50_ms":
        as_good = [line for text, line in plans if text.endswith("rows.latency_p50_ms = ?") and "SEARCH rows" in line]
        assert as_good, "no row is as fast as the last of the page"
        assert set(as_good) == {
            "SEARCH rows USING COVERING INDEX rows_by_group_latency (comparable=? AND latency_p50_ms=?)"
        }


@pytest.mark.parametrize("quality", ["auc", "accuracy"])
def test_one_statement_looks_for_what_dominates_the_rows_of_a_page_by_name(tmp_path: Path, quality: str):
    """Whatever the number of its groups: a statement for each row took longer to make than to answer."""
    rng, store = np.random.default_rng(5), Store(tmp_path / "leaderboard.db")
    figures = [(*rng.random(2), int(size), f"d{size % 7}") for size in rng.integers(1000, 9000, 400)]
    many = [
        Row(model=f"m{n}", role="student", dataset=data, latency_p50_ms=ms, size_bytes=size, **{quality: value})
        for n, (value, ms, size, data) in enumerate(figures)
    ]
    store.add(many)
    plans = plans_of(store, Request(sort="model", limit=40))
    sought = {text for text, _ in plans if "page_rows" in text}
    assert len(sought) == 1
    found = [line for text, line in plans if text in sought and line.startswith("SEARCH rows ")]
    assert found
    assert all("USING COVERING INDEX rows_by" in line and "comparable=?" in line for line in found)
    assert len({text for text, line in plans if "SEARCH rows " in line and "comparable=?" in line}) < 7 * 4 + 10


def test_rows_are_chosen_for_a_page_fronts_first_and_then_the_newest(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ranking, "_SMALL", 2)
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(5), 60)
    whole = export.frame(store.frame(columns=page_columns(), categories=True))
    fronts_of = {
        (cost, quality): set(whole["row_id"][pareto.front(whole, (cost, quality))])
        for cost, quality in itertools.product(pareto.COSTS, pareto.QUALITY)
    }
    on_front = set(whole["row_id"][whole["on_front"]]).union(*fronts_of.values())
    limit = len(on_front) + 5
    assert limit < len(whole), "the board must not fit the page"
    shown = chosen(store, limit=limit)
    assert f"{limit} of {len(whole)} rows" in shown.note
    newest = [row_id for row_id in whole["row_id"][::-1] if row_id not in on_front][:5]
    assert set(shown.rows["row_id"]) == on_front | set(newest)
    page = export.frame(shown.rows)
    assert set(page["row_id"][page["on_front"]]) == set(whole["row_id"][whole["on_front"]])
    assert shown.note in page_text(shown.rows, "t", note=shown.note)
    assert chosen(store, limit=len(whole)).note == ""


def test_an_export_in_parts_is_that_of_all_rows_at_once(tmp_path: Path, monkeypatch):
    store = Store(tmp_path / "leaderboard.db")
    fill(store, np.random.default_rng(6), 30)
    monkeypatch.setattr(rows, "_PART", 7)
    monkeypatch.setattr(rows, "_LONG_PART", 4)
    for wanted, every in (("", True), ("role=student", False), ("model=none", False)):
        parts, whole = ranking.export_parts(store, wanted, every=every), store.frame(wanted, every=every)
        assert [len(part) for part in parts()][:1] == [min(8, len(whole))], "four by four, until there are seven"
        for format in export.FORMATS:
            read = ranking.export_parts(store, wanted, every=every, format=format)
            assert {isinstance(part, pd.DataFrame) for part in read()} == {format not in export.PLAIN or whole.empty}
            export.write(read, tmp_path / "parts", format)
            export.export(whole, tmp_path / "whole", format)
            if format == "parquet":
                both = [pd.read_parquet(tmp_path / name) for name in ("parts", "whole")]
                assert both[0].equals(both[1]) or (whole.empty and list(both[0]) == list(both[1]))
            else:
                assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text(), format
