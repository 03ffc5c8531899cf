"""What a row is of: who is compared with whom, what a later run supersedes, and what a person takes back."""

import io
import json
import re

import pytest
from rich.console import Console

from tutelage.cli.app import app
from tutelage.leaderboard import pareto
from tutelage.leaderboard.best import best_students
from tutelage.leaderboard.export import export, frame
from tutelage.leaderboard.names import data_names, device_names
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.data import page_columns
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.terminal.compare import differences
from tutelage.leaderboard.terminal.standing import standing_of
from tutelage.leaderboard.terminal.table import show_table
from tutelage.records import COMPARABLE, DATA_KEY, DEVICE_KEY, InputError, Row

from ..filed import run_row

HERE = {
    **{"dataset": "folder", "manifest": "0011223344556677", "image_size": 64, "device": "host-ort-64px"},
    **{"processor": "AMD EPYC", "runtime": "onnxruntime", "runtime_version": "1.31.1", "precision": "fp32"},
    **{"power_state": "governor performance, turbo off", "threads": 1, "batch": 1},
}
# Every part of the key with another value: another host, another fold, another set of the same name ...
OTHER = {
    **{"dataset": "lungs", "manifest": "8899aabbccddeeff", "split": "test (leaky split)", "fold": 1, "image_size": 128},
    **{"device": "phone", "processor": "Cortex-A76", "runtime": "openvino", "runtime_version": "1.30.0", "threads": 2},
    **{"batch": 8, "precision": "bf16", "power_state": "governor powersave"},
}


def nine_on_a_front() -> list[Row]:
    """Nine students of one run, each on the front."""
    figures = [(0.80 + 0.01 * n, 1.0 + n, 1_000_000 * (n + 1)) for n in range(9)]
    return [
        Row(model=f"s{n}", role="student", auc=auc, latency_p50_ms=ms, size_bytes=size, **HERE)
        for n, (auc, ms, size) in enumerate(figures)
    ]


def foreign(**changes: object) -> Row:
    """A row of the same names that dominates all nine."""
    return Row(**{"model": "foreign", "role": "student", **HERE, **changes},
               auc=0.99, latency_p50_ms=0.5, size_bytes=1000)  # fmt: skip


def leaderboard(*words: object, workspace, capsys) -> str:
    capsys.readouterr()
    app(["leaderboard", *map(str, words), "--workspace", str(workspace)], standalone_mode=False)
    return capsys.readouterr().out


def test_the_key_is_all_that_is_named_here() -> None:
    assert set(OTHER) == {*DATA_KEY, *DEVICE_KEY}


@pytest.mark.parametrize("part", OTHER)
def test_a_foreign_row_of_the_same_names_leaves_the_front_as_it_is(tmp_path, part):
    """It cut a front of nine to one wherever only names and split were compared."""
    rows = [*nine_on_a_front(), foreign(**{part: OTHER[part]})]
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    for given in (rows, store.frame(), store.columns()):
        assert pareto.on_front(given) == [True] * 10
        assert pareto.front(given, ("auc", "latency_p50_ms")) == [True] * 10
        assert pareto.front_with_intervals(given, ("auc", "size_bytes")) == ["sure"] * 10
    assert standing_of(store, rows[0]).num_peers == 9
    assert frame(rows)["on_front"].all()
    data = json.loads(re.search(r'id="data" data-packed="">(.*?)</script>', page_text(rows, "t"), re.S)[1])
    assert data["fronts"]["auc|latency_p50_ms"] == "7" * 10, "the page draws another front than the table"
    columns = {name: [getattr(row, name) for row in rows] for name in OTHER}
    named = list(zip(data_names(columns), device_names(columns), strict=True))
    assert len(set(named)) == 2, "rows that are not comparable stand under one name"
    console = Console(width=300, file=io.StringIO(), record=True, color_system=None)
    show_table(store.columns(), console)
    lines = console.export_text().splitlines()[1:-1]
    assert all(line.startswith("*") for line in lines)
    (alone,) = (line for line in lines if "foreign" in line)
    different = next(name for name in named[-1] if name not in named[0])
    assert different in alone, "the table does not say why both are on a front"
    details = {"validation": {"auc": 0.9}, "how": {"file": {"path": "m"}}}
    chosen = best_students([row.model_copy(update={"details": details}) for row in rows])
    assert len(chosen) == 2
    (quality, latency) = (next(one for one in differences(rows[0], rows[-1]) if one.figure == name)
                          for name in ("auc", "latency_p50_ms"))  # fmt: skip
    assert bool(quality.change) == (part in DEVICE_KEY)
    assert bool(latency.change) == (part in DATA_KEY)


def test_the_same_row_of_the_same_host_still_cuts_the_front():
    assert pareto.on_front([*nine_on_a_front(), foreign()]) == [False] * 9 + [True]
    # The scheme is no part of the key: fp32 and int8 files of one profile share a front, whatever it computes in.
    assert pareto.on_front([*nine_on_a_front(), foreign(scheme="int8-ptq")]) == [False] * 9 + [True]
    # Nor is the resolution that a network takes its images at: a search chooses it.
    assert pareto.on_front([*nine_on_a_front(), foreign(details={"side_px": 48})]) == [False] * 9 + [True]


def test_names_say_no_more_than_tells_data_and_devices_apart():
    rows = [foreign(), foreign(fold=0), foreign(fold=1), foreign(manifest="", fold=1), foreign(image_size=None)]
    columns = {name: [getattr(row, name) for row in rows] for name in DATA_KEY}
    assert data_names(columns) == [
        "folder · images of 64 px", "folder · fold 0", "folder · fold 1 · manifest 00112233",
        "folder · fold 1 · manifest not known", "folder · image size not known",
    ]  # fmt: skip
    rows = [foreign(), foreign(power_state=""), foreign(threads=2), foreign(device=""), foreign(device="", batch=2)]
    rows.append(foreign(dataset="lungs", power_state="on battery"))  # of other data: nothing to tell it from
    columns = {name: [getattr(row, name) for row in rows] for name in (*DATA_KEY, *DEVICE_KEY)}
    assert device_names(columns) == [
        "host-ort-64px · governor performance, turbo off", "host-ort-64px · power state not known",
        "host-ort-64px · 2 threads", "", "", "host-ort-64px",
    ]  # fmt: skip


def test_a_later_run_of_the_same_supersedes_the_earlier(tmp_path, capsys):
    store = Store(tmp_path / "leaderboard.db")
    first = run_row("complete", auc=0.9, created="2026-01-01T00:00:00Z", **{**HERE, "dataset": "d"})
    second = run_row("complete", auc=0.8, created="2026-01-02T00:00:00Z", network="v", **{**HERE, "dataset": "d"})
    assert first.key != second.key
    assert first.identity == second.identity != ""
    store.add([first])
    early = run_row("evaluated", auc=0.8, created="2026-01-02T00:00:00Z", network="v", **{**HERE, "dataset": "d"})
    store.add([early])
    assert store.rows() == [first, early], "a run that has only begun took the place of a complete row"
    assert store.unfinished() == 1
    store.add([second])
    assert store.rows() == [second]
    assert store.rows(every=True) == [first, second]
    assert store.columns(names=("superseded_by",), every=True)["superseded_by"] == [second.key, ""]
    assert store.rows("superseded_by!=empty", every=True) == [first]
    assert store.row(first.key) == first, "history is not found by its id"
    assert (store.count(), store.num_hidden()) == (1, (1, 0))
    shown = leaderboard("show", workspace=tmp_path, capsys=capsys)
    assert first.key[:8] not in shown
    assert "1 superseded and 0 retracted rows are not shown" in shown
    listed = json.loads(leaderboard("show", "--all", "--json", workspace=tmp_path, capsys=capsys))
    assert {row["row_id"]: (row["superseded_by"], row["on_front"]) for row in listed} == {
        first.key: (second.key, False), second.key: ("", True),
    }  # fmt: skip
    table = leaderboard("show", "--all", workspace=tmp_path, capsys=capsys)
    assert "superseded by" in table
    one = " ".join(leaderboard("show", first.key, workspace=tmp_path, capsys=capsys).split())
    assert f"On no front: superseded by {second.key}, a later run of the same." in one
    assert store.add([second]) == 0
    # The earlier configuration is run once more: its row is there, and is the latest now.
    again = first.model_copy(update={"created": "2026-01-03T00:00:00Z"})
    assert again.key == first.key
    assert store.add([again]) == 1
    assert store.rows() == [again]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1}, {"scheme": "int8-ptq"}, {"teacher": "t"}, {"recipe": "other"}, {"model": "n"}, {"fold": 2},
        {"processor": "another host"}, {"settings": {"distill": {"alpha": 0.9}}}, {"power_state": "on battery"},
        {"source": "imported"},
    ],
)  # fmt: skip
def test_another_thing_supersedes_nothing(tmp_path, changes):
    store = Store(tmp_path / "leaderboard.db")
    rows = [run_row("complete"), run_row("complete", network="v", **changes)]
    store.add(rows)
    assert store.rows() == rows


def test_rows_that_do_not_say_what_they_are_of_supersede_nothing(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    old = run_row("complete")
    rows = [run_row("complete", network=letter, settings=None) for letter in "ab"]
    rows += [Row(model="m", role="student", dataset="d", auc=auc) for auc in (0.1, 0.2)]
    assert {row.identity for row in rows} == {""}
    store.add([old, *rows])
    assert store.rows() == [old, *rows]


def test_an_import_of_an_earlier_run_does_not_replace_the_later(tmp_path):
    theirs = Store(tmp_path / "theirs.db")
    mine = Store(tmp_path / "mine.db")
    days = [run_row("complete", network=letter, created=f"2026-01-0{n}") for n, letter in enumerate("abc", 1)]
    for day in (days[2], days[0], days[1]):
        (tmp_path / "theirs.db").unlink()
        theirs = Store(tmp_path / "theirs.db")
        theirs.add([day])
        import_file(mine, tmp_path / "theirs.db")
    assert [row.created for row in mine.rows()] == ["2026-01-03"]
    assert len(mine.rows(every=True)) == 3


def test_a_retracted_row_is_shown_nowhere_and_is_not_gone(tmp_path, capsys):
    store = Store(tmp_path / "leaderboard.db")
    rows = nine_on_a_front()
    bad = foreign()
    store.add([*rows, bad])
    assert pareto.on_front(store.frame()) == [False] * 9 + [True]
    reason = "the board was throttled"
    version = store.version()
    said = leaderboard("retract", bad.key[:9], "--reason", reason, workspace=tmp_path, capsys=capsys)
    assert said == f"row {bad.key} (foreign) is retracted: {reason}\n"
    assert store.version() > version, "a page that is served would go on showing it"
    assert store.rows() == rows
    assert pareto.on_front(store.frame()) == [True] * 9
    assert "foreign" not in page_text(store.frame(columns=page_columns()), "t", details=store.details)
    assert "foreign" not in leaderboard("export", workspace=tmp_path, capsys=capsys)
    everything = leaderboard("export", "--all", workspace=tmp_path, capsys=capsys)
    assert reason in everything
    assert export(store.frame(every=True), None, "csv") == everything
    assert pareto.on_front(store.frame(every=True)) == [True] * 9 + [False]
    table = leaderboard("show", "--all", workspace=tmp_path, capsys=capsys)
    assert reason in table
    assert "0 superseded and 1 retracted rows" in leaderboard("show", workspace=tmp_path, capsys=capsys)
    how = json.loads(leaderboard("show", bad.key, "--how", "--json", workspace=tmp_path, capsys=capsys))
    assert (how["retracted"], how["num_comparable"]) == (reason, 9)
    assert f"retracted: {reason}" in leaderboard("show", bad.key, "--how", workspace=tmp_path, capsys=capsys)
    with pytest.raises(InputError, match=f"retracted already: {reason}"):
        store.retract(bad.key, "again")
    assert store.add([bad]) == 0, "to file it again does not take the retraction back"
    assert store.rows() == rows
    assert "stands again" in leaderboard("retract", bad.key, "--undo", workspace=tmp_path, capsys=capsys)
    assert store.rows() == [*rows, bad]
    with pytest.raises(InputError, match="not retracted"):
        store.retract(bad.key, None)


def test_where_the_later_run_is_retracted_the_earlier_one_is_current_again(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    runs = [
        run_row("complete", network=letter, created=f"2026-01-0{n}", auc=n / 10) for n, letter in enumerate("abc", 1)
    ]
    for run in runs:
        for state in ("evaluated", "measured", "complete"):
            details = {**run.details, "state": state}
            store.add([run.model_copy(update={"details": details})])
    assert store.rows() == [runs[2]]
    for place in (2, 1):
        store.retract(runs[place].key, "wrong")
        assert store.rows() == [runs[place - 1]]
    store.retract(runs[2].key, None)
    assert store.rows() == [runs[2]], "the middle run is still retracted, and the first superseded by the last"
    assert store.columns(names=("superseded_by",), every=True)["superseded_by"] == [runs[2].key, runs[2].key, ""]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retract", "abc"], "give --reason, or --undo"),
        (["retract", "abc", "--reason", "x", "--undo"], "leave one of both out"),
        (["retract", "abc", "--reason", "x"], "no row has an id that begins with 'abc'"),
        (["show", "abc", "--all"], "--all has no effect on one row"),
    ],
)
def test_what_cannot_be_retracted_is_said(tmp_path, capsys, words, message):
    store = Store(tmp_path / "leaderboard.db")
    store.add(nine_on_a_front())
    with pytest.raises(InputError, match=message):
        leaderboard(*words, workspace=tmp_path, capsys=capsys)
    with pytest.raises(InputError, match="says nothing"):
        store.retract(store.rows()[0].key, "  ")


def test_an_id_is_stored_and_never_made_again(tmp_path):
    """What the store holds may say less, or more, than what the id was once the hash of."""
    store = Store(tmp_path / "leaderboard.db")
    row = nine_on_a_front()[0].filed_as("feedfeedfeedfeed")
    store.add([row, *nine_on_a_front()[1:]])
    (back,) = store.rows("model=s0")
    assert back.key == "feedfeedfeedfeed" != back.model_copy(update={"seed": 0}).key
    assert standing_of(store, store.row("feed")).on_front
    nan = nine_on_a_front()[0].model_copy(update={"model": "nan", "auc_lo": float("nan")})  # no validator sees a copy
    store.add([nan])
    assert standing_of(store, store.row(nan.key)).num_peers == 10
    # As the version before named it, fields that came later left out: computed there from this very row.
    assert Row(model="m", role="student", dataset="d").key == "e06b981aa8319527"


def test_how_says_in_lines_what_a_row_is_of(tmp_path, capsys):
    store = Store(tmp_path / "leaderboard.db")
    made = {"command": "tutelage run tiny", "recipe": {"data": {"folds": 5}}, "settings": {"distill": {"epochs": 3}}}
    details = {"state": "complete", "how": made, "test_images": 200, "side_px": 48, "versions": {"torch": "2.15"}}
    row = foreign(recipe="tiny", fold=1, seed=3, details=details)
    store.add([row, row.model_copy(update={"model": "other"})])
    said = leaderboard("show", row.key[:6], "--how", workspace=tmp_path, capsys=capsys)
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in said.splitlines())
    assert lines == {
        "row": row.key,
        "status": "current",
        "data": "folder, manifest 00112233, split test, fold 1 of 5, images of 64 px, 200 test images",
        "network takes": "images of 48 px",
        "device": "host-ort-64px, AMD EPYC, onnxruntime 1.31.1, 1 thread, batch 1, precision fp32, "
        "governor performance, turbo off",
        "comparable": "with 1 other row of the same data and device",
        "source": "measured",
        "command": "tutelage run tiny",
        "recipe": "tiny, seed 3",
        "settings": "distill.epochs=3",
        "version torch": "2.15",
    }
    shown = json.loads(leaderboard("show", row.key, "--how", "--json", workspace=tmp_path, capsys=capsys))
    assert shown["device"] == {name: getattr(row, name) for name in DEVICE_KEY}
    assert (shown["data"]["manifest"], shown["data"]["fold"], shown["unknown"]) == (row.manifest, 1, [])
    bare = Row(model="bare", role="baseline", dataset="d")
    store.add([bare])
    said = leaderboard("show", bare.key, "--how", workspace=tmp_path, capsys=capsys)
    assert "not known, so only with rows that lack it too: manifest, image size" in said
    assert "the row does not say how it was made" in said
    of_before = Row(model="m", role="student", dataset="d", details={"state": "complete", "how": {"command": "c"}})
    store.add([of_before])
    said = " ".join(leaderboard("show", of_before.key, "--how", workspace=tmp_path, capsys=capsys).split())
    assert "by no later run: it was filed without the settings" in said
    assert f"`tutelage leaderboard retract {of_before.key[:8]} --reason" in said


def test_the_frame_that_is_read_by_groups_says_what_the_other_says(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    for rows in ([], [*nine_on_a_front(), *(foreign(**{part: OTHER[part]}) for part in OTHER)]):
        store.add(rows)
        plain, quick = store.frame(), store.frame(categories=True)
        assert set(plain) == set(quick)
        for name in plain:
            assert plain[name].isna().tolist() == quick[name].isna().tolist(), name
            assert plain[name].dropna().tolist() == quick[name].dropna().tolist(), name
        assert pareto.on_front(plain) == pareto.on_front(quick) == [True] * len(rows)
    by_group = store.columns(names=("comparable", *COMPARABLE))
    assert by_group.pop("comparable") == [row.comparable for row in store.rows()]
    assert by_group == store.columns(names=COMPARABLE)
    # The stored hash parts the rows as the columns themselves do.
    parts = {(row.comparable, *(getattr(row, name) for name in COMPARABLE)) for row in store.rows()}
    assert len(parts) == len({part[0] for part in parts}) == len({part[1:] for part in parts}) == 1 + len(OTHER)


def test_a_row_that_is_filed_again_under_the_own_name_of_its_data_is_the_same_row(tmp_path):
    of = {"auc": 0.9, "manifest": "0011223344556677"}
    own = {**of, "dataset": "beans", "details": {"data_reader": "folder"}}
    before = run_row("complete", dataset="folder", created="2026-01-01T00:00:00Z", **of)
    again = run_row("complete", created="2026-01-02T00:00:00Z", **own)
    later = run_row("complete", created="2026-01-03T00:00:00Z", network="v", **own)
    assert (before.key, before.identity) == (again.key, again.identity)
    assert before.comparable != again.comparable == later.comparable
    store = Store(tmp_path / "leaderboard.db")
    for rows in ([before], [again], [again]):
        store.add(rows)
    assert store.columns(names=("row_id", "dataset")) == {"row_id": [before.key], "dataset": ["beans"]}
    other = Store(tmp_path / "other.db")
    other.add([before])
    other.add([later])
    assert later.key != before.key
    assert other.columns(names=("row_id", "dataset")) == {"row_id": [later.key], "dataset": ["beans"]}
