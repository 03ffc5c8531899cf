"""The store: nothing lost, nothing doubled, nothing changed afterwards, whatever happens to its writers."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from tutelage.leaderboard.store import Store, engines, import_file, schema
from tutelage.records import InputError, Measurement, Row

from ..filed import integrity, run_row

# What a writer process runs: it files `count` rows, `step` a transaction, and says after each how far it is. Names
# after the first have processes of their own, forked after the imports, which would take each most of its time.
WRITER = """
import os, sys
from tutelage.leaderboard.store import Store
from tutelage.records import Measurement, Row
place, count, step, name, *others = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
forked = []
for other in others:
    forked.append(os.fork())
    if not forked[-1]:
        name, forked = other, []
        break
store = Store(place)
print("open", flush=True)
for start in range(0, count, step):
    rows, measured = [], []
    for n in range(start, min(count, start + step)):
        samples = Measurement(device="d", runtime="r", runtime_version="1", threads=1, batch=1, precision="fp32",
                              effective_precision="fp32", samples_ms=(1.0, n + 1.0), created=name)
        measured.append(samples)
        rows.append(Row(model=f"{name}-{n}", role="student", dataset="toy", measurement=samples.id))
    store.add(rows, measured)
    print(start + step, flush=True)
for child in forked:
    assert os.waitpid(child, 0)[1] == 0, child
"""


def write_aside(place: str | Path, count: int, step: int, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place), str(count), str(step), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_rows_and_samples_come_back_as_they_were(tmp_path, demo):
    rows, measurements = demo
    store = Store(tmp_path / "leaderboard.db")
    assert store.add(rows, measurements) == len(rows)
    assert store.rows() == rows
    assert store.measurement(rows[3].measurement) == next(m for m in measurements if m.id == rows[3].measurement)
    assert store.measurements([row.measurement for row in rows[:5]])
    assert store.count() == len(rows)


def test_the_same_row_is_kept_once_and_time_does_not_make_it_another(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    row = Row(model="m", role="student", dataset="d", created="2026-01-01T00:00:00Z")
    later = row.model_copy(update={"created": "2027-01-01T00:00:00Z"})
    assert store.add([row, row]) == 1
    assert store.add([later]) == 0
    assert store.rows() == [row]


def test_a_path_with_signs_that_mean_something_in_a_url_is_a_path(tmp_path):
    folder = tmp_path / "a %20?b#c&d"
    folder.mkdir()
    Store(folder / "leaderboard.db").add([Row(model="m", role="student", dataset="d")])
    assert (folder / "leaderboard.db").is_file()
    assert Store(folder / "leaderboard.db", read_only=True).count() == 1


def test_an_unmeasured_figure_is_none_in_and_out(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    store.add([Row(model="m", role="teacher", dataset="d", accuracy=0.0, params=3_000_000_000_000)])
    (row,) = store.rows()
    assert (row.accuracy, row.auc, row.latency_p50_ms, row.params) == (0.0, None, None, 3_000_000_000_000)
    frame = store.frame()
    assert frame["accuracy"][0] == 0.0
    assert frame["auc"].isna().all()
    assert frame["batch"].isna().all()


def test_a_row_whose_samples_are_missing_is_refused_whole(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    good = Row(model="good", role="student", dataset="d")
    bad = Row(model="bad", role="student", dataset="d", measurement="0123456789abcdef")
    with pytest.raises(InputError, match="names a measurement that is not there"):
        store.add([good, bad])
    assert store.count() == 0


@pytest.mark.parametrize("statement", ["UPDATE rows SET auc = 1", "DELETE FROM rows", "DELETE FROM measurements"])
def test_nothing_is_changed_or_deleted(tmp_path, demo, statement):
    store = Store(tmp_path / "leaderboard.db")
    store.add(demo[0][:3], demo[1][:3])
    connection = sqlite3.connect(tmp_path / "leaderboard.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert store.rows() == demo[0][:3]


def test_a_row_is_found_by_the_beginning_of_its_id(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    store.add(*demo)
    assert store.row(demo[0][7].key[:9]) == demo[0][7]
    with pytest.raises(InputError, match="no row"):
        store.row("zzzz")
    with pytest.raises(InputError):
        store.row("")
    with pytest.raises(InputError, match="no row"):
        store.row("%")
    store.add([Row(model=f"m{n}", role="student", dataset="d") for n in range(17)])
    ((digit, _),) = Counter(row.key[0] for row in store.rows()).most_common(1)
    with pytest.raises(InputError, match="more than one row"):
        store.row(digit)
    query = select(schema.rows.c.number).where(schema.has_id(demo[0][7].key[:4]))
    text = str(query.compile(store._engine, compile_kwargs={"literal_binds": True}))
    with sqlite3.connect(store.place) as connection:
        plan = str(connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall())
    assert "rows_by_id (row_id>? AND row_id<?)" in plan, "a million ids are not compared one by one"


def test_columns_and_details_are_read_by_id_and_peers_by_ground(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    rows = demo[0]
    store.add(*demo)
    ids = [rows[40].key, rows[3].key]
    assert store.columns(names=["model"], ids=ids)["model"] == [rows[3].model, rows[40].model]
    assert set(store.details(ids)) == set(ids)
    peers = store.peers(rows[0], ("row_id",))["row_id"]
    assert peers == [row.key for row in rows if (row.dataset, row.device) == (rows[0].dataset, rows[0].device)]


def test_what_is_no_leaderboard_is_reported_in_one_line(tmp_path):
    text = tmp_path / "notes.db"
    text.write_text("this is not a database, but it is long enough to be read as the head of one" * 4)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE rows (name TEXT)")
    for place, words in (
        (text, "not a database"),
        (foreign, "another program"),
        (tmp_path / "absent" / "x.db", "folder"),
        ("mysql://host/name", "postgresql"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            Store(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no leaderboard"):
        Store(tmp_path / "absent.db", read_only=True)


@pytest.mark.slow
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    details=st.dictionaries(st.text(), st.integers(-(2**53), 2**53)),
)
@settings(max_examples=25, deadline=None)
def test_any_name_comes_back(tmp_path_factory, name, details):
    path = tmp_path_factory.getbasetemp() / "names.db"
    store = Store(path)
    row = Row(model=name, role="student", dataset="d", details=details)
    store.add([row])
    assert store.row(row.key) == row


def test_a_store_that_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "leaderboard.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE unrelated (x)")
    other.execute("BEGIN IMMEDIATE")  # here SQLite refuses write-ahead mode at once, whatever its timeout
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        other.commit()

    monkeypatch.setattr(engines.time, "sleep", sleep)
    with engines.open_engine(path, read_only=False).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert waited


@pytest.mark.slow
def test_eight_writers_lose_no_row_and_double_none(tmp_path):
    path = tmp_path / "leaderboard.db"
    # All open an absent file at once, so they also race for its creation; two write the very same rows.
    names = [f"writer{n}" for n in range(7)] + ["writer0"]
    writer = write_aside(path, 300, 10, *names)
    _, errors = writer.communicate(timeout=300)
    assert writer.returncode == 0, errors
    models = [row.model for row in Store(path).rows()]
    assert sorted(models) == sorted(f"writer{n}-{i}" for n in range(7) for i in range(300))
    assert integrity(path) == "ok"


def test_a_store_that_was_migrated_while_it_was_open_is_not_written_to(tmp_path):
    """A run opens it hours before it files: rows of an older version would lack what the newer one compares by."""
    store = Store(tmp_path / "leaderboard.db")
    store.add([run_row("trained")])
    with sqlite3.connect(tmp_path / "leaderboard.db") as other:
        other.execute("INSERT INTO schema_version VALUES (99, 'now')")
    with pytest.raises(InputError, match=r"has schema version 99, this version .*use the newer tutelage"):
        store.add([run_row("evaluated")])
    with sqlite3.connect(tmp_path / "leaderboard.db") as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0, 3, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 4))])
def test_a_killed_writer_leaves_every_committed_row(tmp_path, moment):
    path = tmp_path / "leaderboard.db"
    writer = write_aside(path, 1_000_000, 7, "victim")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    time.sleep(0.05 + 0.11 * moment)
    os.kill(writer.pid, signal.SIGKILL)
    printed, _ = writer.communicate()
    committed = int(printed.split()[-1]) if printed.strip() else 0
    store = Store(path)
    num_rows = store.count()
    # What it printed is there; one more transaction may have been committed before it could print; none is torn.
    assert num_rows in (committed, committed + 7)
    assert len(store.measurements([row.measurement for row in store.rows()])) == num_rows
    assert integrity(path) == "ok"
    assert store.add([Row(model="after", role="student", dataset="d")]) == 1


def test_a_full_disk_is_a_clear_error_and_an_intact_store(tmp_path):
    path = tmp_path / "leaderboard.db"
    Store(path).add([Row(model=f"before{n}", role="student", dataset="d") for n in range(50)])
    before = Store(path).count()
    # The kernel refuses to let any file of this process grow past 300 kB, as a full disk does.
    script = """
import resource, sys
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    store.add([Row(model=f"more{n}", role="student", dataset="d", details={"note": "x" * 2000}) for n in range(1000)])
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "nothing of this write was kept" in done.stdout
    assert "space" in done.stdout
    assert done.stdout.count("\n") == 1
    assert Store(path).count() == before
    assert integrity(path) == "ok"
    assert Store(path).add([Row(model="after", role="student", dataset="d")]) == 1


def test_importing_another_workspace_brings_its_samples_marked_as_imported(tmp_path, demo):
    theirs, ours = Store(tmp_path / "theirs.db"), Store(tmp_path / "ours.db")
    theirs.add(demo[0][:10], demo[1][:10])
    assert import_file(ours, tmp_path / "theirs.db") == 10
    assert import_file(ours, tmp_path / "theirs.db") == 0
    assert {row.source for row in ours.rows()} == {"imported"}
    assert isinstance(ours.measurement(demo[0][0].measurement), Measurement)
    shutil.copy(tmp_path / "theirs.db", tmp_path / "others.db")
    assert import_file(ours, tmp_path / "others.db") == 10  # another origin is another row


def test_a_row_of_a_run_keeps_its_id_while_its_figures_come(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    evaluated, measured = run_row("evaluated", auc=0.9), run_row("measured", auc=0.9, latency_p50_ms=2.0)
    complete = measured.model_copy(
        update={"details": {**measured.details, "state": "complete", "gain_over_control": {"auc": 0.1}}, "control": "m"}
    )
    assert evaluated.key == measured.key == complete.key
    other = evaluated.model_copy(update={"details": {**evaluated.details, "manifest": "other images"}})
    assert other.key != evaluated.key
    versions = [store.version()]
    for row in (evaluated, measured, complete):
        assert store.add([row]) == 1
        assert store.rows() == [row]
        assert store.count() == 1
        assert store.unfinished("role=student") == (0 if row is complete else 1)
        assert store.row(row.key) == row
        assert store.columns(names=("row_id",), ids=[row.key]) == {"row_id": [row.key]}
        versions.append(store.version())
    assert versions == sorted(set(versions)), "a page that is served would not see the newer row"
    # A run that goes on files its rows anew from the first figure: a complete row is not taken back.
    assert [store.add([row]) for row in (evaluated, measured, complete)] == [0, 0, 0]
    assert store.rows() == [complete]
    again = complete.model_copy(update={"latency_p50_ms": 3.0})
    assert store.add([again, again]) == 1  # measured again: the later figures stand
    assert store.rows() == [again]
    with sqlite3.connect(tmp_path / "leaderboard.db") as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (4,), "something was deleted"


def test_what_no_database_of_ours_holds_is_refused_alike(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    for row, words in (
        (Row(model="a\0b", role="student", dataset="d"), "NUL"),
        (Row(model="\ud800", role="student", dataset="d"), "surrogate"),
        (Row(model="m", role="student", dataset="d", params=2**63), "63 bits"),
    ):
        with pytest.raises(InputError, match=words):
            store.add([row])
    assert store.count() == 0


def test_a_figure_that_is_no_number_was_not_measured(tmp_path):
    row = Row(model="m", role="student", dataset="d", auc=float("nan"))
    assert row.auc is None
    store = Store(tmp_path / "leaderboard.db")
    store.add([row])
    assert store.columns(names=("row_id",))["row_id"] == [store.rows()[0].key]
