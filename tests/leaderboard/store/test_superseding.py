"""Rows that a later run superseded or a person retracted: what is said of them, while others write, and in files."""

import json

import pytest

from tutelage.cli.app import app
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.terminal import table
from tutelage.records import InputError, Row

from ..filed import run_row


def leaderboard(*words: object, workspace, capsys) -> str:
    capsys.readouterr()
    app(["leaderboard", *map(str, words), "--workspace", str(workspace)], standalone_mode=False)
    return capsys.readouterr().out


def run_of(day: int, **fields) -> Row:
    """A run of one and the same thing on some day of January."""
    return run_row("complete", network="abc"[day - 1], created=f"2026-01-0{day}", auc=day / 10, **fields)


def test_a_reason_is_one_line_wherever_it_is_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    store = Store(tmp_path / "leaderboard.db")
    row = run_of(1)
    store.add([row, run_of(2, model="other")])
    said = leaderboard("retract", row.key, "--reason", "  throttled,\n\n at 60 C ", workspace=tmp_path, capsys=capsys)
    assert said == f"row {row.key} (m) is retracted: throttled, at 60 C\n"
    with pytest.raises(InputError, match=r"retracted already: throttled, at 60 C$"):
        store.retract(row.key, "again")
    store.retract(row.key, None)
    for reason in ("x" * 501, "red \x1b[31m", "a\0b", "half \udcff"):
        with pytest.raises(InputError, match=r"is not one line: write at most 500 printable") as caught:
            store.retract(row.key, reason)
        assert len(str(caught.value)) < 200
        assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="says nothing"):
        store.retract(row.key, " \n")
    assert store.count() == 2
    store.retract(row.key, "because " * 60)
    (line,) = (one for one in leaderboard("show", "--all", workspace=tmp_path, capsys=capsys).splitlines()
               if row.key[:8] in one)  # fmt: skip
    assert "because" in line, "a long reason has no place in the table, which then does not say that it is retracted"


def test_the_row_that_supersedes_is_the_latest_run_in_whatever_order_they_came(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    for day in (3, 1, 2):
        store.add([run_of(day)])
    said = store.columns(names=("created", "superseded_by"), every=True)
    assert dict(zip(said["created"], said["superseded_by"], strict=True)) == {
        "2026-01-01": run_of(3).key, "2026-01-02": run_of(3).key, "2026-01-03": "",
    }  # fmt: skip
    assert store.former(run_of(1).key) == {"superseded_by": run_of(3).key, "retracted": ""}


@pytest.mark.parametrize("options", [[], ["--json"], ["--all", "--json"]])
def test_rows_that_a_run_files_between_two_readings_are_not_mixed_up(tmp_path, capsys, monkeypatch, options):
    store = Store(tmp_path / "leaderboard.db")
    early = run_row("evaluated", model="first", auc=0.9)
    store.add([early, run_of(1, model="second")])
    ranked = table.ranked

    def meanwhile(*given):
        """File a later state of the one row, which is now read after the other, and a later run of the other."""
        found = ranked(*given)
        store.add([run_row("complete", model="first", auc=0.9), run_of(2, model="second")])
        return found

    monkeypatch.setattr(table, "ranked", meanwhile)
    shown = leaderboard("show", *options, workspace=tmp_path, capsys=capsys)
    ids = {early.key: "first", run_of(1, model="second").key: "second"}
    if options:
        assert {one["row_id"]: one["model"] for one in json.loads(shown)} == ids
    else:
        assert [[name for name in ids.values() if name in line] for line in shown.splitlines()[1:3]] == [
            ["first"],
            ["second"],
        ]


def test_the_footer_counts_one_row_as_one(tmp_path, capsys):
    Store(tmp_path / "leaderboard.db").add([run_of(1), run_of(2, model="other")])
    for words, count in ((["--filter", "model=other"], "1 row"), ([], "2 rows"), (["--limit", "1"], "1 of 2 rows")):
        said = leaderboard("show", *words, workspace=tmp_path, capsys=capsys)
        assert said.splitlines()[len(said.splitlines()) - 2].startswith(f"{count} "), said


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_an_import_leaves_out_what_the_file_says_is_superseded_or_retracted(tmp_path, capsys, ending):
    store = Store(tmp_path / "leaderboard.db")
    bad = Row(model="bad", role="student", dataset="d", auc=0.99)
    store.add([run_of(1), run_of(2), bad])
    store.retract(bad.key, "throttled")
    file = tmp_path / f"all.{ending}"
    leaderboard("export", "--all", "--out", file, workspace=tmp_path, capsys=capsys)
    mine = Store(tmp_path / "mine.db")
    assert import_file(mine, file) == 1
    assert [row.auc for row in mine.rows(every=True)] == [0.2]
