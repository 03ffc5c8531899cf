"""Stores of other versions: older ones are migrated with their rows, newer ones are refused."""

import sqlite3

import pytest

from tutelage.cli.app import app
from tutelage.leaderboard.columns import GAINS
from tutelage.leaderboard.store import Store, import_file
from tutelage.leaderboard.store.schema import SCHEMA_VERSION
from tutelage.records import InputError, Row

from ..filed import integrity, run_row


def test_version_1_is_migrated_with_its_rows(tmp_path, monkeypatch):
    from tutelage.leaderboard.store import schema

    path = tmp_path / "leaderboard.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA_VERSION", 1)
        Store(path).add([Row(model="old", role="student", dataset="d")])
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (0,)
    with pytest.raises(InputError, match="schema version 1"):
        Store(path, read_only=True)
    assert [row.model for row in Store(path).rows()] == ["old"]
    assert Store(path).columns(names=["model"]) == {"model": ["old"]}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (6,)


def test_version_4_gets_the_margins_of_its_gains(tmp_path):
    path = tmp_path / "leaderboard.db"
    details = {"gain_over_twin": {"auc": 0.012, "margin": 0.02}}
    Store(path).add([Row(model="distilled", role="student", dataset="d", details=details)])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE rows DROP COLUMN gain_margin")
        connection.execute("DELETE FROM schema_version WHERE version >= 5")
    assert Store(path).columns(names=["gain_auc", "gain_margin"]) == {"gain_auc": [0.012], "gain_margin": [0.02]}


def test_version_2_is_migrated_and_its_gains_become_columns(tmp_path):
    path = tmp_path / "leaderboard.db"
    gained = {"auc": 0.012, "auc_lo": 0.003, "auc_hi": 0.021, "delong_p": 0.008, "accuracy": None, "mcnemar_p": None}
    taught = Row(model="taught", role="student", dataset="d", details={"gain_over_twin": gained})
    alone = Row(model="alone", role="student", dataset="d")
    Store(path).add([taught, alone])
    # Make it what version 2 was: no such columns, and no word of later versions.
    with sqlite3.connect(path) as connection:
        for name in GAINS:
            connection.execute(f"ALTER TABLE rows DROP COLUMN {name}")
        connection.execute("ALTER TABLE rows DROP COLUMN state")
        connection.execute("DELETE FROM schema_version WHERE version >= 3")
    store = Store(path)
    assert store.rows() == [taught, alone]
    found = store.columns(names=["gain_auc", "gain_auc_lo", "gain_auc_p", "gain_accuracy"])
    assert found == {
        **{"gain_auc": [0.012, None], "gain_auc_lo": [0.003, None]},
        **{"gain_auc_p": [0.008, None], "gain_accuracy": [None, None]},
    }
    assert [row.model for row in store.rows("gain_auc>1% and gain_auc_p<0.05")] == ["taught"]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), sqlite3.connect(path) as connection:
        connection.execute("UPDATE rows SET gain_auc = 1")


def test_a_store_of_version_3_keeps_its_rows_and_ids(tmp_path, demo):
    path = tmp_path / "leaderboard.db"
    store = Store(path)
    store.add(demo[0][:20], demo[1][:20])
    text = sqlite3.connect(path).execute("SELECT sql FROM sqlite_master WHERE name = 'rows'").fetchone()[0]
    with sqlite3.connect(path) as connection:  # as version 3 made it
        connection.execute("DROP TABLE superseded")
        connection.execute("ALTER TABLE rows RENAME TO current")
        connection.execute(text.replace("row_id VARCHAR(32) NOT NULL", "row_id VARCHAR(32) NOT NULL UNIQUE"))
        connection.execute("INSERT INTO rows SELECT * FROM current")
        connection.execute("DROP TABLE current")
        connection.execute("ALTER TABLE rows DROP COLUMN state")
        connection.execute("ALTER TABLE rows DROP COLUMN gain_margin")
        connection.execute("DELETE FROM schema_version WHERE version >= 4")
    before = path.read_bytes()
    page = str(tmp_path / "page.html")
    for verb in (["show"], ["show", "abc"], ["build", "--out", page], ["export"], ["compare", "a", "b"], ["serve"]):
        with pytest.raises(InputError, match=r"schema version 3.*leaderboard migrate"):
            app(["leaderboard", *verb, "--workspace", str(tmp_path)], standalone_mode=False)
        assert path.read_bytes() == before, f"{verb[0]} changed a store of an older version"
    imported = Store(tmp_path / "mine.db")
    assert import_file(imported, path) == 20  # another's older store is read from a copy
    assert path.read_bytes() == before
    app(["leaderboard", "migrate", "--workspace", str(tmp_path)], standalone_mode=False)
    assert Store(path, read_only=True).rows() == demo[0][:20]
    store = Store(path)
    assert store.add([run_row("evaluated")]) == store.add([run_row("complete")]) == 1
    assert store.count() == 21
    for table in ("rows", "superseded", "measurements"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"), sqlite3.connect(path) as connection:
            connection.execute(f"DELETE FROM {table}")
    assert integrity(path) == "ok"


def test_a_store_of_a_newer_version_is_refused_by_readers_and_writers(tmp_path):
    path = tmp_path / "leaderboard.db"
    Store(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'tomorrow')")
    for options in ({}, {"read_only": True}, {"migrate": True}):
        with pytest.raises(InputError, match=r"schema version 99.*newer tutelage that wrote it") as caught:
            Store(path, **options)
        assert "\n" not in str(caught.value)
