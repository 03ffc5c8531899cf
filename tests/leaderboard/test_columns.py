"""One entry is a column everywhere: another package adds one, and every output of the leaderboard knows it."""

import csv
import io
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tutelage import plugins
from tutelage.cli.app import app
from tutelage.leaderboard import columns, pareto
from tutelage.leaderboard.columns import BUILTIN, COMPUTED, Column
from tutelage.leaderboard.export import export, frame
from tutelage.leaderboard.filters import parse
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.data import page_columns
from tutelage.leaderboard.plots.front import pareto_plot
from tutelage.leaderboard.reference import columns_page
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.terminal.compare import differences
from tutelage.leaderboard.terminal.standing import standing_of
from tutelage.leaderboard.terminal.table import show_table
from tutelage.records import InputError, Row

# All that another package writes for a column of its own.
ENTRY = """
from tutelage.leaderboard.columns import Column

power = Column("power_mw", "Mean power while it runs.", group="cost", label="power", unit="mW", better="min",
               at=("board.power_mw", "power"), is_usual=True, valid="positive", tolerance=0.05, former=("milliwatts",))
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution with one column, as pip leaves it: a module and its entry point."""
    place = tmp_path / "site"
    info = place / "board-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: board\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tutelage.columns]\npower_mw = board_columns:power\n")
    (place / "board_columns.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(str(place))
    plugins.forget()
    yield
    sys.modules.pop("board_columns", None)
    plugins.forget()


@pytest.fixture
def rows() -> list[Row]:
    common = {"role": "student", "dataset": "d", "device": "x", "batch": 1, "threads": 1}
    return [
        Row(model="thrifty", auc=0.90, latency_p50_ms=2.0, details={"board": {"power_mw": 120.5}}, **common),
        Row(model="hungry", auc=0.95, latency_p50_ms=3.0, details={"power": 480, "ece": float("nan")}, **common),
        Row(model="unknown", auc=0.80, latency_p50_ms=4.0, details={"board": {"power_mw": None}}, **common),
        Row(model="odd", auc=0.70, latency_p50_ms=5.0, details={"board": "none", "power": "high"}, **common),
    ]


@pytest.fixture
def store(tmp_path: Path, rows: list[Row]) -> Store:
    """A store that was filed before the column was there."""
    filed = Store(tmp_path / "leaderboard.db")
    filed.add(rows)
    return filed


def page_data(page: str) -> dict:
    return json.loads(re.search(r'id="data" data-packed="">(.*?)</script>', page, re.S)[1])


def test_without_the_package_there_is_no_such_column(store: Store) -> None:
    with pytest.raises(InputError, match="no column 'power_mw'"):
        store.rows("power_mw<200")


@pytest.mark.usefixtures("added")
def test_a_store_filters_by_it_without_a_migration(tmp_path: Path, store: Store, rows: list[Row]) -> None:
    before = (tmp_path / "leaderboard.db").read_bytes()
    reader = Store(tmp_path / "leaderboard.db", read_only=True)
    for text in ("power_mw<200", "board.power_mw<200", "milliwatts<200", "not power_mw>=200 and power_mw!=empty"):
        assert [row.model for row in reader.rows(text)] == ["thrifty"], text
        assert [row.model for row in rows if parse(text).keeps(row)] == ["thrifty"], text
    assert [row.model for row in reader.rows("power_mw=empty")] == ["unknown", "odd"]
    assert [row.model for row in reader.rows("not power_mw<200")] == ["hungry", "unknown", "odd"]
    assert [row.model for row in reader.rows("power_mw in (480, empty)")] == ["hungry", "unknown", "odd"]
    assert reader.columns(names=("milliwatts", "model"))["milliwatts"] == [120.5, 480.0, None, None]
    assert (tmp_path / "leaderboard.db").read_bytes() == before
    # Not even the deepest filter, of details alone, is too much for SQLite's parser.
    assert reader.rows("not " * 20 + "power_mw<200")


@pytest.mark.usefixtures("added")
def test_every_export_holds_it_and_an_import_brings_it_back(tmp_path: Path, store: Store, rows: list[Row]) -> None:
    for form in ("csv", "json", "md", "tex"):
        assert export(rows, None, form) == export(store.frame(), None, form)
    records = list(csv.DictReader(io.StringIO(export(rows, None, "csv"))))
    assert [record["power_mw"] for record in records] == ["120.5", "480.0", "", ""]
    assert [record["power_mw"] for record in json.loads(export(rows, None, "json"))] == [120.5, 480.0, None, None]
    assert "power (mW)" in export(rows, None, "md").splitlines()[0]
    table = tmp_path / "rows.csv"
    table.write_text("model,role,dataset,milliwatts\nold,student,d,250\n")
    other = Store(tmp_path / "other.db")
    assert import_file(other, table) == 1
    assert other.rows("power_mw=250")[0].details["board"] == {"power_mw": 250.0}
    table.write_text("model,role,dataset,power_mw\nold,student,d,0\n")
    with pytest.raises(InputError, match=r"line 2: power_mw is 0\.0"):
        import_file(other, table)


@pytest.mark.usefixtures("added")
def test_terminal_front_comparison_and_plot_know_it(
    tmp_path: Path, store: Store, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    app(["leaderboard", "show", "--columns", "power_mw,auc", "--workspace", str(tmp_path)], standalone_mode=False)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "power", "(mW)", "AUC"]
    assert next(line for line in lines if "thrifty" in line).split()[-2:] == ["120", "0.900"]
    assert pareto.front(store.frame(), ("power_mw", "auc")) == [True, True, False, False]
    assert standing_of(store, rows[1], ("auc", "power_mw")).verdict == "sure"
    one = next(one for one in differences(rows[0], rows[1]) if one.figure == "power_mw")
    assert (one.change, one.verdict) == ("3.98 x more", "worse")
    pareto_plot(rows, tmp_path / "plot.svg", x="power_mw")
    assert "power (mW)" in (tmp_path / "plot.svg").read_text()


@pytest.mark.usefixtures("added")
def test_the_page_and_the_reference_know_it(store: Store, rows: list[Row]) -> None:
    data = page_data(page_text(rows, "t"))
    assert data["figures"]["power_mw"] == [120.5, 480.0, None, None]
    about = data["columns"]["power_mw"]
    assert (about["heading"], about["better"], about["help"]) == ("power (mW)", -1, "Mean power while it runs.")
    assert "power_mw" in data["costs"]
    assert "power_mw" in data["usual"]
    assert data["grammar"]["names"]["milliwatts"] == "power_mw"
    assert data["fronts"]["auc|power_mw"] == "7700"
    quick = page_data(page_text(store.frame(columns=page_columns()), "t", details=store.details))
    assert quick | {"made": ""} == data | {"made": ""}
    assert "| `power_mw`, `milliwatts` | plain | mW | ↓ |" in columns_page(columns.known())


@pytest.mark.slow
@pytest.mark.usefixtures("added")
def test_the_page_in_a_browser_shows_it(open_page, rows: list[Row]) -> None:
    page = open_page(rows, link="#x0=milliwatts")
    assert "power (mW)" in page.locator("thead th").all_inner_texts()
    assert page.locator("#x-0").input_value() == "power_mw"
    assert page.inner_text("#count").endswith("on the chart fronts: 2 and 2")
    page.fill("#query", "milliwatts<200")
    page.locator("#count", has_text="1 of 4 rows").wait_for()
    assert page.locator("#table tbody .title").all_inner_texts() == ["thrifty"]


def test_the_page_of_the_columns_is_current() -> None:
    written = Path(__file__).resolve().parents[2] / "docs" / "columns.md"
    assert written.read_text() == columns_page(BUILTIN), (
        "run: python -m tutelage.leaderboard.reference > docs/columns.md"
    )


def test_a_column_that_stands_nowhere_is_refused() -> None:
    with pytest.raises(InputError, match="say where it stands"):
        Column("power_mw", "Mean power.")
    with pytest.raises(InputError, match="not flag"):
        Column("power_mw", "Mean power.", "flag", at=("power",))


def test_every_name_is_one_column_and_every_column_is_explained() -> None:
    names = [name for one in BUILTIN for name in one.names]
    assert len(names) == len(set(names))
    fields = {one.name for one in BUILTIN if not one.at}
    assert fields == set(Row.model_fields) | set(COMPUTED)
    for one in BUILTIN:
        assert one.help.endswith((".", "...")), one.name


def test_columns_of_details_have_one_meaning_in_python_and_in_the_database(tmp_path: Path) -> None:
    """Numbers, texts, NaN, keys and texts with quotes: SQLite selects what `Column.read` says."""
    values = [0.5, 1, -2.5e-7, float("nan"), float("inf"), True, None, "0.5", [1], {"a": 1}, 10**400, 2**63]
    rows = [
        Row(model=f"m{place}", role="student", dataset="d", details={"seeds": {"auc_sd": value}, "note": '"auc_sd": 7'})
        for place, value in enumerate(values)
    ]
    methods = ["gradcam", 'say "a"', "", None, 3, "Ärzte"]
    rows += [
        Row(model=f"t{place}", role="student", dataset="d", details={"explanation": {"method": value}})
        for place, value in enumerate(methods)
    ]
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    filters = [f"seeds_auc_sd{sign}{value}" for sign in ("<", ">=", "=", "!=") for value in ("0.5", "1", "0")]
    filters += ["seeds_auc_sd=empty", "not seeds_auc_sd<1", "seeds_auc_sd in (1, 0.5)", "explained_method~GRAD"]
    filters += ["explained_method=empty", "explained_method>=g", "explained_method in (gradcam, empty)"]
    for text in filters:
        keeps = parse(text).keeps
        expected = [row.model for row in rows if keeps(row)]
        assert store.columns(text, ("model",))["model"] == expected, text
    assert store.columns(names=("seeds_auc_sd",))["seeds_auc_sd"][:4] == [0.5, 1.0, -2.5e-7, None]
    assert store.columns(names=("seeds_auc_sd",))["seeds_auc_sd"][4:12] == [*[None] * 7, 2.0**63]


def test_an_export_of_before_comes_back_to_its_place(tmp_path: Path) -> None:
    """Columns of the details came back flat, as texts, and were lost in the next export."""
    details = {"seeds": {"auc_mean": 0.9, "auc_sd": 0.01}, "explanation": {"method": "gradcam", "insertion_auc": 0.7}}
    row = Row(model="m", role="student", dataset="d", details={**details, "gain_over_control": {"verdict": "gained"}})
    export([row], tmp_path / "rows.csv", "csv")
    store = Store(tmp_path / "leaderboard.db")
    import_file(store, tmp_path / "rows.csv")
    (back,) = store.rows()
    assert {name: back.details[name] for name in details} == details
    assert frame([back])["gain"].tolist() == ["gained"]
    assert "seeds_auc_mean" not in back.details


def test_chosen_columns_are_shown_and_odd_ones_refused(store: Store) -> None:
    console = Console(width=100, file=io.StringIO(), record=True, color_system=None)
    names = ["latency_p50_ms", "explanation.road", "gain", "auc"]
    show_table(store.columns(), console, names=names)
    assert console.export_text().splitlines()[0].split()[:3] == ["model", "p50", "(ms)"]
    for odd, words in (("details", "does not fit a table"), ("powr", "no column 'powr', the nearest is")):
        with pytest.raises(InputError, match=words):
            show_table(store.columns(), console, names=[odd])


def test_a_store_can_be_read_by_other_programs(tmp_path: Path, store: Store) -> None:
    """The table, its triggers and its indexes call no function of ours: a plain SQLite reads and copies it."""
    shutil.copy(tmp_path / "leaderboard.db", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (store.count(),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_former_names_of_the_control_are_read() -> None:
    """In rows and details of files of earlier versions, and as the name of a column; the id is the one of then."""
    said = {"model": "m", "role": "student", "dataset": "d", "details": {"gain_over_twin": {"auc": 0.02}}}
    row = Row.model_validate({**said, "twin": "alone"})
    assert row.control == "alone"
    assert "twin" not in row.to_dict()
    assert columns.column("twin") is columns.column("control")
    assert columns.column("gain_auc").of(row) == columns.column("gain_over_twin.auc").of(row) == 0.02
    assert row.key == "25fddf18ddcb64de"  # as version 5 of the store computed it
