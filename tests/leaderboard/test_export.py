"""Files for other programs: the promised columns, empty for unmeasured, a round trip through import, safe names."""

import csv
import io
import json

import pandas as pd
import pytest
from rich.console import Console

from tutelage.leaderboard.export import export, frame, plain
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.terminal.table import show_row, show_table
from tutelage.records import InputError, Row

PROMISED = [
    "row_id",
    "model",
    "role",
    "arch",
    "teacher",
    "recipe",
    "dataset",
    "split",
    "scheme",
    "runtime",
    "device",
    "batch",
    "threads",
    "accuracy",
    "accuracy_lo",
    "accuracy_hi",
    "auc",
    "auc_lo",
    "auc_hi",
    "params",
    "macs",
    "size_bytes",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "peak_rss_bytes",
    "energy_mj",
    "on_front",
    "seed",
    "created",
]


def printed(rows, width, **more):
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    show_table(rows, console, **more)
    return console.export_text()


def test_csv_has_the_promised_columns_first_and_nothing_for_unmeasured(demo):
    rows = [*demo[0], Row(model="bare", role="baseline", dataset="d")]
    records = list(csv.DictReader(io.StringIO(export(rows, None, "csv"))))
    assert list(records[0])[: len(PROMISED)] == list(PROMISED)
    assert len(records) == len(rows)
    bare = records[-1]
    assert {name for name, cell in bare.items() if cell} == {
        "row_id",
        "model",
        "role",
        "dataset",
        "split",
        "scheme",
        "on_front",
        "seed",
        "source",
    }
    assert records[0]["params"] == "6955906"
    assert records[0]["row_id"] == rows[0].key
    assert json.loads(next(record["arch"] for record in records if record["arch"]))["space"].startswith("ofa_mbv3")


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_what_is_exported_can_be_imported_and_is_marked(tmp_path, demo, ending):
    path = tmp_path / f"rows.{ending}"
    export(demo[0], path, ending)
    store = Store(tmp_path / "leaderboard.db")
    assert import_file(store, path) == len(demo[0])
    for ours, theirs in zip(demo[0], store.rows(), strict=True):
        assert theirs.source == "imported"
        assert theirs.details["imported_from"] == path.name
        same = {"source": "measured", "measurement": ours.measurement, "details": ours.details}
        assert theirs.model_copy(update=same) == ours


def test_json_and_parquet_agree(tmp_path, demo):
    path = tmp_path / "rows.parquet"
    assert export(demo[0], path, "parquet") == str(path)
    table, records = pd.read_parquet(path), json.loads(export(demo[0], None, "json"))
    assert table["auc"].tolist() == [record["auc"] for record in records]
    assert table["on_front"].tolist() == [record["on_front"] for record in records]
    assert records[0]["energy_mj"] is None
    assert isinstance(records[0]["params"], int)


def test_a_store_frame_and_its_rows_export_the_same(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    store.add(*demo)
    for format in ("csv", "md", "json", "tex"):
        assert export(store.frame(), None, format) == export(demo[0], None, format)


def test_names_stay_names_in_markdown_and_latex():
    row = Row(model="<b>|a_b & 50 % \\x{}$^~", role="student", dataset="d", accuracy=0.5)
    cells = export([row], None, "md").splitlines()[2]
    assert "<b>" not in cells
    assert cells.replace("\\|", "").count("|") == cells.count(" | ") + 2
    latex = export([row], None, "tex")
    assert r"\textless{}b\textgreater{}\textbar{}a\_b \& 50 \% \textbackslash{}x\{\}\$\textasciicircum{}" in latex


def test_unknown_formats_and_unwritable_places_are_reported(tmp_path):
    with pytest.raises(InputError, match="xls"):
        export([], None, "xls")
    with pytest.raises(InputError, match="name a file"):
        export([], None, "parquet")
    with pytest.raises(InputError, match="cannot be written"):
        export([], tmp_path / "absent" / "rows.csv", "csv")
    assert export([], None, "csv").startswith("row_id,model")


@pytest.mark.parametrize(
    ("value", "column", "written"),
    [
        (0.9684, "auc", "0.968"),
        (1_234_567, "params", "1.23"),
        (12_345_678, "size_bytes", "12.3"),
        (0.02345, "latency_p50_ms", "0.0234"),
        (9.996, "latency_p50_ms", "10.0"),
        (1234.5, "latency_p50_ms", "1,230"),
        (None, "auc", ""),
        (float("nan"), "latency_p50_ms", ""),
        (pd.NA, "params", ""),
    ],
)
def test_figures_have_three_digits_that_mean_something(value, column, written):
    assert plain(value, column) == written


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_the_table_fits_its_terminal_and_marks_the_front(demo, width):
    group = [row for row in demo[0] if row.device == "host-ort" and row.dataset == "cxr3"]
    lines = printed(group, width).splitlines()
    assert max(map(len, lines[: len(group) + 1])) <= max(width, 50)  # the model's name is never left out
    assert sum(line.startswith("*") for line in lines[: len(group) + 1]) == frame(group)["on_front"].sum()
    assert "…" not in "".join(lines[: len(group)]) or width < 60
    if width >= 80:
        assert "p50 (ms)" in lines[0]


def test_the_table_shows_names_as_they_are_and_no_control_characters():
    text = printed([Row(model="[red]x[/red]\x1b[31m", role="student", dataset="d", accuracy=0.5)], 100)
    assert "[red]x[/red]?[31m" in text
    assert "no such row" in printed([], 80)


def test_another_front_can_be_marked(demo):
    group = [row for row in demo[0] if row.device == "host-ort" and row.dataset == "cxr3"]
    text = printed(group, 120, objectives=("params",))
    assert text.count("\n*") == len({row.model for row in group if row.params == min(r.params for r in group)})
    assert "front of params" in text


def test_one_row_is_shown_whole_with_what_made_it(demo):
    console = Console(width=120, file=io.StringIO(), record=True)
    row = next(row for row in demo[0] if row.parent)
    samples = next(one for one in demo[1] if one.id == row.measurement)
    show_row(row, console, measurement=samples)
    text = console.export_text()
    for words in (row.key, row.model, "how.command", "tutelage run", "60 runs, onnxruntime 1.31.1", '"space"'):
        assert words in text
    assert "energy_mj" not in text


def test_a_gain_is_a_column_everywhere_and_comes_back(tmp_path):
    gain = {"auc": 0.012, "auc_lo": 0.003, "auc_hi": 0.021, "auc_p": 0.008, "accuracy": 0.0, "accuracy_p": 1.0}
    near = {"auc": 0.002, "auc_lo": -0.003, "auc_hi": 0.007, "auc_p": 0.41}
    wide = {"auc": 0.098, "auc_lo": -0.02, "auc_hi": 0.21, "auc_p": 0.14}
    rows = [
        Row(model="good", role="student", dataset="d", auc=0.9, details={"gain_over_control": gain}),
        Row(model="vain", role="student", dataset="d", auc=0.8, details={"gain_over_control": near}),
        Row(model="wide", role="student", dataset="d", auc=0.8, details={"gain_over_control": wide}),
        Row(model="once", role="student", dataset="d", auc=0.8, details={"gain_over_control": {"auc": 0.03}}),
        Row(model="alone", role="student", dataset="d", auc=0.7),
        Row(model="lax", role="student", dataset="d", auc=0.6, details={"gain_over_control": {**gain, "margin": 0.03}}),
    ]
    text = printed(rows, 120)
    assert "gain of teacher" in text
    assert "equivalent (+0.012)" in text  # the same figures, in a recipe with a wider margin
    assert "gained +0.012 (p 0.008)" in text
    assert "equivalent (+0.002)" in text
    assert "inconclusive (+0.098, p 0.14)" in text
    assert "inconclusive (+0.030)" in text  # one seed: no claim about a teacher, and no p
    assert "gain of teacher" in export(rows, None, "md")
    records = list(csv.DictReader(io.StringIO(export(rows, None, "csv"))))
    assert [record["gain_auc"] for record in records] == ["0.012", "0.002", "0.098", "0.03", "", "0.012"]
    store = Store(tmp_path / "leaderboard.db")
    for ending in ("csv", "json"):
        export(rows, tmp_path / f"rows.{ending}", ending)
        import_file(store, tmp_path / f"rows.{ending}")
    assert store.columns(names=["gain_auc_p"])["gain_auc_p"] == [0.008, 0.41, 0.14, None, None, 0.008] * 2
    assert store.columns(names=["gain_margin"])["gain_margin"] == [None] * 5 + [0.03] + [None] * 5 + [0.03]


def test_a_chosen_front_says_how_sure_it_is_and_what_ties():
    rows = [
        Row(model="best", role="student", dataset="d", auc=0.95, auc_lo=0.94, auc_hi=0.96, latency_p50_ms=5.0),
        Row(model="rival", role="student", dataset="d", auc=0.949, auc_lo=0.93, auc_hi=0.96, latency_p50_ms=5.0),
        Row(model="quick", role="student", dataset="d", auc=0.90, auc_lo=0.89, auc_hi=0.91, latency_p50_ms=1.0),
        Row(model="poor", role="student", dataset="d", auc=0.80, auc_lo=0.79, auc_hi=0.81, latency_p50_ms=2.0),
    ]

    def marks(**more):
        lines = printed(rows, 100, objectives=["latency_p50_ms", "auc"], **more).splitlines()
        return {
            name: line[:7].rstrip() for name in ("best", "rival", "quick", "poor") for line in lines if name in line
        }

    assert marks() == {"best": "* maybe", "rival": "  maybe", "quick": "* sure", "poor": ""}
    assert marks(ties="0.005") == {"best": "* maybe", "rival": "  tie", "quick": "* sure", "poor": ""}


def test_a_row_is_reported_where_it_stands_and_what_beats_it(tmp_path):
    from tutelage.leaderboard.terminal.standing import show_standing, standing_of

    store = Store(tmp_path / "leaderboard.db")
    best = Row(model="best", role="student", dataset="d", auc=0.95, latency_p50_ms=1.0, size_bytes=2_000_000)
    poor = Row(model="poor", role="student", dataset="d", auc=0.90, latency_p50_ms=1.5, size_bytes=2_000_000)
    store.add([best, poor, poor.model_copy(update={"dataset": "other", "auc": 0.99})])
    assert standing_of(store, best).verdict == "sure"
    found = standing_of(store, poor)
    assert (found.on_front, found.verdict, found.num_peers) == (False, "no", 2)
    assert [one.row_id for one in found.beaten_by] == [best.key]
    assert found.beaten_by[0].gains == pytest.approx({"auc": 0.05, "latency_p50_ms": 0.5, "size_bytes": 0.0})
    console = Console(width=120, file=io.StringIO(), record=True, color_system=None)
    show_standing(found, console)
    text = console.export_text()
    assert "+0.050" in text
    assert "0.500 ms less" in text
    assert "same" in text
    assert standing_of(store, poor, ["params"]).beaten_by == ()


def test_figures_of_the_details_are_columns() -> None:
    details = {
        "gain_over_control": {
            "verdict": "gained +.020 AUC [+.010, +.030], p .001",
            "file_verdict": "gained +.020 AUC",
            "num_seeds": 5,
            "auc": 0.02,
        },
        "seeds": {"accuracy_mean": 0.8, "accuracy_sd": 0.01},
        "explanation": {"method": "scorecam", "insertion_auc": 0.7, "pointing": None, "fp32_spearman": 0.9},
    }
    rows = [
        Row(model="distilled", role="student", dataset="d", details=details),
        Row(model="alone", role="student", dataset="d"),
    ]
    distilled, alone = csv.DictReader(io.StringIO(export(rows, None, "csv")))
    assert distilled["gain"].startswith("gained +.020")
    assert (distilled["gain_file"], distilled["gain_seeds"]) == ("gained +.020 AUC", "5.0")
    assert distilled["seeds_accuracy_mean"] == "0.8"
    assert (distilled["explained_insertion_auc"], distilled["explained_pointing"]) == ("0.7", "")
    assert distilled["explained_fp32_spearman"] == "0.9"
    assert {alone[name] for name in alone if name.startswith(("gain", "seeds_", "explained_", "second_"))} == {""}


def test_a_narrow_terminal_still_tells_students_of_different_teachers_apart():
    teachers = ("", "resnet10t", "vit_tiny_patch16_224", "resnet10t+vit_tiny_patch16_224")
    rows = [
        Row(model="vit_tiny_patch16_224", role="student", teacher=teacher, dataset="d", device="box", scheme="int8-ptq",
            auc=0.9, accuracy=0.8, latency_p50_ms=0.4, size_bytes=2_400_000)
        for teacher in teachers
    ]  # fmt: skip
    lines = [line for line in printed(rows, 80).splitlines() if "vit_tiny_patch16_224" in line]
    assert len(lines) == 4
    shown = [line[line.index(rows[0].model) :].split()[1] for line in lines]
    assert len(set(shown)) == 4
    assert sorted(text.count("+") for text in shown) == [0, 0, 0, 1]  # of two teachers both are named
    assert all(len(line) <= 80 for line in lines)


def test_json_holds_null_for_what_details_leave_undefined():
    row = Row(model="m", role="student", dataset="d", details={"ece": float("nan"), "kept": [1.5, float("inf")]})
    (exported,) = json.loads(export([row], None, "json"), parse_constant=pytest.fail)
    assert exported["details"] == {"ece": None, "kept": [1.5, None]}


def test_a_figure_of_the_details_is_exported_as_its_column_is_typed(tmp_path):
    from tutelage.cli.verbs.leaderboard import board_export

    row = Row(model="m", role="student", dataset="d", details={"latency_p50_ms_lo": 2, "epochs": 3.0})
    Store(tmp_path / "leaderboard.db").add([row])
    board_export(format_=None, out=tmp_path / "a.csv", filter_=None, workspace=tmp_path)
    (exported,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    typed = {"latency_p50_ms_lo": "2.0", "epochs": "3"}
    assert {name: exported[name] for name in ("latency_p50_ms_lo", "epochs")} == typed


def test_the_ending_of_a_file_names_its_format(tmp_path):
    from tutelage.cli.verbs.leaderboard import board_export

    Store(tmp_path / "leaderboard.db").add([Row(model="m", role="student", dataset="d")])
    for name in ("a.json", "a.csv", "a.txt"):
        board_export(format_=None, out=tmp_path / name, filter_=None, workspace=tmp_path)
    assert json.loads((tmp_path / "a.json").read_text())[0]["model"] == "m"
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "a.txt").read_bytes()
    assert (tmp_path / "a.csv").read_text().startswith("row_id,")


def test_rows_without_a_quality_make_a_page_and_no_picture(tmp_path, capsys):
    from tutelage.cli.verbs.leaderboard import board_build

    Store(tmp_path / "leaderboard.db").add([Row(model="m", role="student", dataset="d", params=3)])
    board_build(out=tmp_path / "x.html", filter_=None, title="t", workspace=tmp_path)
    assert "no picture" in capsys.readouterr().out
    assert [path.name for path in sorted(tmp_path.glob("x.*"))] == ["x.html"]


def test_the_picture_beside_a_page_is_of_the_figures_asked_for(tmp_path, capsys, monkeypatch):
    from tutelage.cli.verbs.leaderboard import board_build
    from tutelage.leaderboard.plots import front

    rows = [
        Row(model=f"m{n}", role="student", dataset="d", params=3 * n, accuracy=0.5 + n / 10, auc=0.6, size_bytes=n)
        for n in (1, 2)
    ]
    Store(tmp_path / "leaderboard.db").add(rows)
    drawn = []
    real = front.pareto_plot
    monkeypatch.setattr(front, "pareto_plot", lambda *given, **axes: drawn.append(axes) or real(*given, **axes))
    board_build(
        out=tmp_path / "x.html", filter_=None, title="t", front="accuracy, params,size_bytes", workspace=tmp_path
    )
    assert drawn == [{"title": "t", "x": ["params", "size_bytes"], "y": "accuracy"}]
    assert (tmp_path / "x.png").is_file()
    for wrong, said in (("auc", "one quality"), ("auc,accuracy,params", "one quality"), ("params,speed", "speed")):
        with pytest.raises(InputError, match=said):
            board_build(out=tmp_path / "y.html", filter_=None, title="t", front=wrong, workspace=tmp_path)
    assert not (tmp_path / "y.html").exists()
