"""Stores of other versions: older ones are migrated with their rows and ids after a copy, newer ones are refused."""

import json
import logging
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from tutelage import records
from tutelage.cli.app import app
from tutelage.leaderboard.store import Store, import_file, migrating, schema
from tutelage.leaderboard.store.schema import SCHEMA_VERSION
from tutelage.pipeline.keys.settings import recorded_settings
from tutelage.records import InputError, Row

from ..filed import dump_of, integrity, older_store, real_board, run_row

GAINED = {"auc": 0.012, "auc_lo": 0.003, "auc_hi": 0.021, "delong_p": 0.008, "accuracy": None, "margin": 0.02}
OLD_ROWS = [
    Row(model="distilled", role="student", dataset="d", details={"gain_over_twin": GAINED}),
    Row(model="control", role="student", dataset="d"),
]


def leaderboard(*words: object, workspace: Path) -> None:
    app(["leaderboard", *map(str, words), "--workspace", str(workspace)], standalone_mode=False)


def _without_settings(details: str) -> str:
    """Give details as the version before filed them: the settings are filed when its board is brought up to date."""
    said = json.loads(details)
    said.get("how", {}).pop("settings", None)
    return json.dumps(said, ensure_ascii=False)


def version_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT max(version) FROM schema_version").fetchone()[0])


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_each_older_version_becomes_todays_with_its_rows(tmp_path, version):
    path = tmp_path / "leaderboard.db"
    rows = [*OLD_ROWS, run_row("complete", auc=0.9)]
    older_store(path, version, rows)
    with pytest.raises(InputError, match=rf"schema version {version}.*leaderboard migrate"):
        Store(path, read_only=True)
    store = Store(path)
    assert store.rows() == rows
    assert store.columns(names=("row_id",))["row_id"] == [row.key for row in rows]
    assert store.columns(names=["gain_auc", "gain_auc_p", "gain_margin"]) == {
        "gain_auc": [0.012, None, None], "gain_auc_p": [0.008, None, None], "gain_margin": [0.02, None, None],
    }  # fmt: skip
    with store._read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.metadata)
    assert [one for one in differences if "alembic_version" not in str(one)] == []
    with sqlite3.connect(path) as connection:
        details = connection.execute("SELECT number, length(body) > 2 FROM details").fetchall()
        (triggers,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()
    assert details == [(1, 1), (3, 1)], "of a row that says nothing more there are none"
    assert triggers == 2 * len(schema.APPEND_ONLY)
    assert integrity(path) == "ok"
    for table in schema.APPEND_ONLY:
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO superseded VALUES (1, 'b')")
            connection.execute("INSERT INTO retractions VALUES (1, 'a', NULL, '')")
            connection.execute("INSERT INTO tags VALUES (1, 'a', 't', 1, '', '')")
            connection.execute("INSERT INTO measurements VALUES ('m', 'd', 'r', '{}')")
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(f"DELETE FROM {table}")
            connection.rollback()
    assert store.add([run_row("complete", auc=0.95, network="v")]) == 1


def test_a_real_board_of_the_version_before_keeps_all_that_it_said(tmp_path, caplog, capsys):
    path = real_board(tmp_path / "leaderboard.db")
    with sqlite3.connect(path) as connection:
        shown = "row_id, model, scheme, auc, latency_p50_ms, size_bytes, details"
        before = connection.execute(
            f"SELECT {shown} FROM rows WHERE number NOT IN (SELECT number FROM superseded)"
        ).fetchall()
    with caplog.at_level(logging.WARNING):
        leaderboard("migrate", workspace=tmp_path)
    assert caplog.messages == [
        f"{path}: brought from schema version 5 to {SCHEMA_VERSION}; a copy of before is leaderboard.version-5.db"
    ]
    copy = tmp_path / "leaderboard.version-5.db"
    assert version_in(copy) == 5
    assert integrity(copy) == integrity(path) == "ok"
    with sqlite3.connect(copy) as connection:
        assert "\n".join(connection.iterdump()) + "\n" == dump_of("version-5.sqlite.sql.gz")
    store = Store(path, read_only=True)
    names = tuple(shown.split(", "))
    found = store.columns(names=names)
    found["details"] = [_without_settings(one) for one in found["details"]]
    assert list(zip(*(found[name] for name in names), strict=True)) == before
    assert len(store.rows(every=True)) == len(before) == 8, "states of one row are no history"
    for row in store.rows("source=measured"):
        facts = (row.manifest, row.fold, row.image_size, row.processor, row.runtime_version, row.precision)
        assert facts == ("3ecaaa000bf4c6c8", None, 32, "AMD EPYC", "1.31.1", "fp32")
        assert row.key == row.model_copy(update={}).key
        assert row.key == row.model_copy(update={"created": ""}).key, "today's ids are not those of the version before"
    # An id that is no hash of what the store holds: filed with `auc_lo` NaN, which SQLite keeps as NULL.
    (odd,) = store.rows("model=DenseNet-Y")
    assert odd.key != odd.model_copy(update={"created": ""}).key
    capsys.readouterr()
    leaderboard("show", odd.key, workspace=tmp_path)
    assert "on it by the figures" in capsys.readouterr().out
    leaderboard("show", odd.key, "--how", workspace=tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "not known, so only with rows that lack it too: manifest, image size" in said
    assert "imported from paper.csv" in said


def _run_again(row: Row, **changes: object) -> Row:
    """A later run of the same by newer libraries: its network and file have other hashes, its details the settings."""
    made = {**row.details["how"], "file": {"sha256": "f" * 64}, "network": {"weights": {"sha256": "e" * 64}}}
    details = {**row.details, "how": made, "manifest": changes.get("manifest", row.manifest)}
    return row.model_copy(update={"details": details, "created": "2027-01-01T00:00:00Z", "auc": 0.6, **changes})


def test_a_run_again_supersedes_the_rows_of_the_version_before_and_others_stay(tmp_path, capsys):
    path = real_board(tmp_path / "leaderboard.db")
    Store(path).close()  # brought up to date by a version that filed no settings
    bare = Store(path).rows("source=measured")
    assert {row.identity for row in bare} == {""}
    leaderboard("migrate", workspace=tmp_path)
    assert integrity(path) == "ok"
    store = Store(path)
    old = store.rows("source=measured")
    assert [row.key for row in old] == [row.key for row in bare]
    assert len({row.identity for row in old} - {""}) == len(old) == 6
    settings = {row.role: row.details["how"]["settings"] for row in old}
    assert settings["teacher"]["teachers"][0]["epochs"] == 1
    assert not [row.model for row in store.rows("source=imported") if row.identity], "nothing tells what they are of"
    again = [_run_again(row) for row in old]
    store.add([*again, _run_again(old[0], manifest="0123")])
    assert [row.key for row in store.rows("source=measured and manifest!=0123")] == [row.key for row in again]
    assert store.num_hidden() == (6, 0)
    assert store.former(old[0].key)["superseded_by"] == again[0].key
    leaderboard("show", old[0].key, "--how", workspace=tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "superseded by" in said
    assert "by no later run" not in said
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE details SET body = ''")


def test_settings_are_filed_of_rows_that_say_them_only(tmp_path):
    """Without its images' hash, with a recipe that is not read, or with another network, a row is of nothing known."""
    path = real_board(tmp_path / "leaderboard.db")
    (row, *_) = Store(path).rows("source=measured and role=student")
    made = row.details["how"]
    assert recorded_settings(row) is not None
    for change in ({"recipe": {**made["recipe"], "unknown": 1}}, {"recipe": None}, {"network": {}}):
        assert recorded_settings(row.model_copy(update={"details": {**row.details, "how": {**made, **change}}})) is None
    for field in ({"manifest": ""}, {"source": "imported"}, {"teacher": "other"}, {"details": {}}):
        assert recorded_settings(row.model_copy(update=field)) is None


def test_a_row_that_knows_its_power_state_supersedes_an_earlier_one_that_does_not(tmp_path):
    """So did no row of the version before, and none that was not measured yet when its run was stopped."""
    store = Store(tmp_path / "leaderboard.db")
    rows = [
        run_row("complete", network=name, created=f"2026-01-0{place}", power_state=power)
        for place, (name, power) in enumerate((("a", ""), ("b", "powersave"), ("c", "performance"), ("d", "")), 1)
    ]
    for row in rows[:3]:
        store.add([row])
    assert [row.key for row in store.rows()] == [row.key for row in rows[1:3]], "two known states are two things"
    assert store.former(rows[0].key)["superseded_by"] == rows[2].key
    store.add(rows[3:])
    assert [row.key for row in store.rows()] == [row.key for row in rows[1:]], "it may be of a third state"


def test_a_row_that_lacks_its_data_is_comparable_with_what_lacks_them_too(tmp_path):
    """Rows of the version before that say no manifest stay together, apart from those that do."""
    path = tmp_path / "leaderboard.db"
    good = Row(model="a", role="student", dataset="d", auc=0.8, size_bytes=9)
    old = [good, good.model_copy(update={"model": "b", "auc": 0.7})]
    older_store(path, 5, old)
    store = Store(path)
    store.add([old[0].model_copy(update={"model": "new", "manifest": "0123", "auc": 0.99})])
    shown = store.columns()
    from tutelage.leaderboard import pareto

    assert dict(zip(shown["model"], pareto.on_front(shown), strict=True)) == {"a": True, "b": False, "new": True}


def test_a_revision_does_not_follow_what_rows_are_compared_by_later(tmp_path, monkeypatch):
    path = real_board(tmp_path / "leaderboard.db")
    with monkeypatch.context() as patch:
        patch.setattr(records, "COMPARABLE", (*records.COMPARABLE, "tomorrow"))
        Store(path)
    store = Store(path)
    assert store.columns(names=("comparable",))["comparable"] == [row.comparable for row in store.rows()]


def test_the_verbs_that_read_change_no_older_board_and_say_what_to_run(tmp_path, capsys):
    path = real_board(tmp_path / "leaderboard.db")
    before = path.read_bytes()
    for verb in (
        ["show"],
        ["show", "0"],
        ["show", "--json"],
        ["export"],
        ["build", "--out", f"{tmp_path}/p.html"],
        ["serve"],
    ):
        with pytest.raises(InputError, match=r"has schema version 5.*`tutelage leaderboard migrate`") as caught:
            leaderboard(*verb, workspace=tmp_path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["leaderboard.db"]
    for _ in range(2):
        leaderboard("migrate", workspace=tmp_path)
    assert version_in(path) == SCHEMA_VERSION
    assert sorted(file.name for file in tmp_path.glob("*.version-5*")) == ["leaderboard.version-5.db"]
    leaderboard("show", workspace=tmp_path)
    assert "8 rows" in capsys.readouterr().out


def test_a_copy_of_before_never_replaces_another(tmp_path):
    for _ in range(2):
        path = tmp_path / "leaderboard.db"
        path.unlink(missing_ok=True)
        Store(real_board(path)).close()
    assert {file.name for file in tmp_path.glob("*.version-5*")} == {
        "leaderboard.version-5.db", "leaderboard.version-5.2.db",
    }  # fmt: skip


def test_a_migration_that_fails_leaves_the_board_as_it_was(tmp_path, monkeypatch):
    path = real_board(tmp_path / "leaderboard.db")
    with sqlite3.connect(path) as connection:
        before = list(connection.iterdump())

    def fail(*_: object) -> None:
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:  # after the rows were copied into the new table
        patch.setattr("tutelage.leaderboard.store.details._whole", fail)
        with pytest.raises(InputError, match="disk is full"):
            Store(path)
    with sqlite3.connect(path) as connection:
        assert list(connection.iterdump()) == before
    assert len(Store(path).rows()) == 8


@pytest.mark.parametrize("fails", ["upgrade", "commit"])
def test_a_migration_that_is_not_committed_leaves_no_copy_and_is_not_reported(tmp_path, monkeypatch, caplog, fails):
    """On a full disk it is the commit that fails; each attempt left one more copy of the board there."""
    path = real_board(tmp_path / "leaderboard.db")
    upgrade = migrating.upgrade

    def upgraded(connection: Connection, found: int) -> None:
        if fails == "upgrade":
            raise InputError("the disk is full")
        upgrade(connection, found)
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql("INSERT INTO superseded VALUES (999, 'x')")  # refused by the commit alone

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(migrating, "upgrade", upgraded)
        for _ in range(2):
            with pytest.raises(InputError, match=r"disk is full|not there"):
                Store(path)
    assert caplog.messages == []
    assert [file.name for file in tmp_path.glob("*.db")] == ["leaderboard.db"]
    assert version_in(path) == 5


def test_importing_an_older_board_leaves_it_as_it_is(tmp_path):
    path = real_board(tmp_path / "theirs.db")
    before = path.read_bytes()
    mine = Store(tmp_path / "mine.db")
    assert import_file(mine, path) == 8
    assert import_file(mine, path) == 0
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.glob("*.db")) == ["mine.db", "theirs.db"]
    assert {row.manifest for row in mine.rows("recipe=tiny")} == {"3ecaaa000bf4c6c8"}


def test_a_store_of_a_newer_version_is_refused_by_readers_and_writers(tmp_path):
    path = tmp_path / "leaderboard.db"
    Store(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'tomorrow')")
    for options in ({}, {"read_only": True}, {"migrate": True}):
        with pytest.raises(InputError, match=r"schema version 99.*newer tutelage that wrote it") as caught:
            Store(path, **options)
        assert "\n" not in str(caught.value)
