"""The same store on a real PostgreSQL server, started here where Debian's `postgresql` is installed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, select, text

from tutelage.leaderboard import pareto
from tutelage.leaderboard.filters import parse
from tutelage.leaderboard.page.choose import chosen
from tutelage.leaderboard.store import Store, fronts, import_file, ranking, schema
from tutelage.leaderboard.store.page import Request
from tutelage.leaderboard.team.people import tag
from tutelage.records import InputError, Row

from ..filed import dump_of, older_tables, run_row
from .test_ranking import check_pages, fill

pytestmark = pytest.mark.slow

# Files 300 rows under each name at once, each in a process of its own, forked after the imports.
WRITERS = """
import os, sys
from tutelage.leaderboard.store import Store
from tutelage.records import Row
forked = []
for name in sys.argv[2:]:
    forked.append(os.fork())
    if not forked[-1]:
        store = Store(sys.argv[1])
        for start in range(0, 300, 10):
            numbers = range(start, start + 10)
            store.add([Row(model=f"{name}-{n}", role="student", dataset="toy") for n in numbers])
        sys.exit()
for child in forked:
    assert os.waitpid(child, 0)[1] == 0, child
"""


def test_rows_come_back_and_filters_agree_with_sqlite(url, tmp_path, demo):
    server, file = Store(url), Store(tmp_path / "leaderboard.db")
    assert server.add(*demo) == len(demo[0])
    assert server.add(*demo) == 0
    file.add(*demo)
    assert server.rows() == demo[0]
    assert server.measurement(demo[0][0].measurement) in demo[1]
    bounds = {"latency_p50_ms_lo": 1.25, "latency_p50_ms_hi": 2e-05}
    for store in (server, file):
        store.add([Row(model="with bounds", role="student", dataset="d", details=bounds)])
        found = store.columns("dataset=d", tuple(bounds))
        assert found == {name: [value] for name, value in bounds.items()}
        tag(store, demo[0][0].key, ["paper", "p-1", "p1"])
        tag(store, demo[0][0].key, ["fast"], ["paper"])
    assert server.columns("tags=fast", ("tags",)) == {"tags": ["fast p-1 p1"]}
    for wanted in (
        *("tags=paper", "tags!=fast and role=teacher", "tags in (p1, empty) and user=empty", "tags~P-1"),
        "latency_p50_ms<0.5 and role=student",
        "not teacher=empty or energy_mj=empty",
        "model~INT8 and size_bytes>1.5MB",
        "device in (host-ort) and not energy_mj<5",
    ):
        assert server.rows(wanted) == file.rows(wanted), wanted
    assert server.frame().equals(file.frame())
    assert import_file(server, Path(file.place)) == len(demo[0]) + 1
    server.close()


def test_the_server_keeps_rows_append_only_and_refuses_lost_samples(url):
    store = Store(url)
    store.add([Row(model="m", role="student", dataset="d")])
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    for statement in ("UPDATE rows SET auc = 1", "DELETE FROM rows", "TRUNCATE measurements CASCADE"):
        with pytest.raises(Exception, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    with pytest.raises(InputError, match="names a measurement"):
        store.add([Row(model="bad", role="student", dataset="d", measurement="0123456789abcdef")])
    assert store.count() == 1
    engine.dispose()
    store.close()


def test_eight_processes_write_to_the_server(url):
    names = [f"writer{n % 7}" for n in range(8)]
    command = [sys.executable, "-c", WRITERS, url, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    store = Store(url)
    assert sorted(row.model for row in store.rows()) == sorted(f"writer{n}-{i}" for n in range(7) for i in range(300))
    store.close()


def test_a_server_that_is_away_is_reported_in_one_line_without_the_password():
    with pytest.raises(InputError) as caught:
        Store("postgresql://tester:secret@127.0.0.1:1/none")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "server is up" in str(caught.value)


# Names that a locale, LIKE, a quote or another alphabet would treat in its own way.
NAMES = (
    *("Ärzte", "ärzte", "Arzte", "arzte", "ARZTE", "zebra", "Zebra", "_under", "un_der", "under", "50%", "50", "5000"),
    *("back\\slash", "back/slash", "it's", 'say "so"', "a b", "a-b", "ab"),
    *("é", "e\u0301", "ß", "SS", "İstanbul", "日本", "😀"),
)
NUMBERS = (None, 0.0, -0.0, 0.1, 0.1 + 0.2, 0.3, 1e-300, 1.0, 1e300, float("inf"), float("nan"))
COUNTS = (None, 0, 1, 2, 3, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1)
# What may stand in the details where a column expects a number.
ODD_VALUES = (0.5, float("nan"), 1, -2.5e-7, float("-inf"), True, None, "0.5", [1], {"a": 1}, 10**400, 2**63, -0.0)


def odd_rows() -> list[Row]:
    return [
        Row(
            model=name,
            role="student",
            dataset="d",
            teacher="" if place % 3 else "vit",
            auc=NUMBERS[place % len(NUMBERS)],
            energy_mj=NUMBERS[(place * 7 + 3) % len(NUMBERS)],
            params=COUNTS[place % len(COUNTS)],
            batch=(None, 1, 2, 3)[place % 4],
            seed=place,
            details={
                "gain_over_control": {"auc": (None, 0.01, float("nan"), -0.01)[place % 4]},
                "seeds": {"auc_sd": ODD_VALUES[place % len(ODD_VALUES)]},
                "explanation": {"method": (name, None, 3, "")[place % 4]},
                "curve": [float("nan"), 1.5, float("-inf")],
            },
        )
        for place, name in enumerate(NAMES)
    ]


def odd_filters() -> list[str]:
    quoted = [f'"{name}"' if '"' not in name else f"'{name}'" for name in NAMES]
    texts = [f"model{sign}{name}" for name in quoted for sign in ("~", "=", "!=", "<", "<=", ">", ">=")]
    texts += [f"model~{part}" for part in ("ä", "Ä", "RZTE", "_", "%", "'\\'", "/", "ss", "I", "''", "' '")]
    values = (
        "-1",
        "0",
        "0.1",
        "0.3",
        "1",
        "1.5",
        "2",
        "2.5",
        "9007199254740992",
        "9223372036854775807",
        "1e18",
        "1e30",
    )
    signs = ("<", "<=", ">", ">=", "=", "!=")
    numbers = [
        f"{column}{sign}{value}"
        for column in ("auc", "energy_mj", "params", "batch", "gain_auc")
        for sign in signs
        for value in values
    ]
    empty = [f"{column}{sign}empty" for column in ("auc", "params", "teacher", "gain_auc") for sign in ("=", "!=")]
    inside = [f"explained_method{sign}{name}" for name in quoted for sign in ("~", "=", "!=", "<", ">=")]
    inside += [f"seeds.auc_sd{sign}{value}" for sign in signs for value in ("0", "0.5", "1", "1e18")]
    inside += [f"not {text}" for text in inside[::5]]
    inside += [
        "seeds_auc_sd=empty",
        "explained_method!=empty",
        "seeds_auc_sd in (1, empty)",
        "explained_method in (50)",
    ]
    many = ", ".join(str(number) for number in range(1500))
    lists = [
        f"model in ({', '.join(quoted)})",
        f"seed in ({many})",
        "batch in (1, 2.5, empty, 1e30)",
        "params in (2.5)",
    ]
    nested = ["not auc>0.1", "not (params<2.5 or model~ä)", "not batch in (1, empty)", "auc>=0 and not energy_mj<1"]
    return [*texts, *numbers, *empty, *inside, *lists, *nested]


@pytest.mark.long
def test_every_filter_selects_the_same_in_sqlite_postgresql_and_python(url, tmp_path):
    server, file = Store(url), Store(tmp_path / "leaderboard.db")
    rows = odd_rows()
    assert server.add(rows) == file.add(rows) == len(rows)
    everything = ("model", "auc", "energy_mj", "params", "batch", "seed", "gain_auc", "row_id", "seeds_auc_sd")
    assert server.columns(names=everything) == file.columns(names=everything)
    assert file.columns(names=("row_id",))["row_id"] == [row.key for row in file.rows()] == [row.key for row in rows]
    selected = set()
    for wanted in odd_filters():
        keeps = parse(wanted).keeps
        expected = [row.model for row in rows if keeps(row)]
        assert file.columns(wanted, ("model",))["model"] == expected, f"SQLite: {wanted}"
        assert server.columns(wanted, ("model",))["model"] == expected, f"PostgreSQL: {wanted}"
        selected.add(tuple(expected))
    assert len(selected) > 100, "the filters select too little that differs to say anything"
    for store in (server, file):
        assert store.row(rows[0].key[:9].upper()).model == rows[0].model
        for wildcard in ("%", "_" * 16, rows[0].key[:4] + "%"):
            with pytest.raises(InputError, match="no row"):
                store.row(wildcard)
    assert server.frame("auc>=0").equals(file.frame("auc>=0"))
    server.close()


def test_the_test_of_odd_names_runs_where_the_locale_would_sort_otherwise(url):
    """The server's own order of these names is not the order of their bytes, so a clause without "C" would differ."""
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        names = text('SELECT x FROM unnest(cast(:names AS text[])) AS x ORDER BY x COLLATE "und-x-icu"')
        found = list(connection.execute(names, {"names": list(NAMES)}).scalars())
    assert found != sorted(NAMES, key=str.encode)
    engine.dispose()


def test_a_teams_schema_is_migrated_only_where_that_is_asked_for(url):
    """A real board of the version before, as `pg_dump` gave it."""
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    dump = dump_of("version-5.postgresql.sql.gz")
    with engine.begin() as connection:  # what begins with a backslash is meant for psql
        plain = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))
        connection.connection.cursor().execute(plain)
    with engine.begin() as connection:
        ids = select_ids(connection)
    engine.dispose()  # the dump left its connection without a search path
    for options in ({"read_only": True}, {}):
        with pytest.raises(InputError, match=r"schema version 5.*leaderboard migrate") as caught:
            Store(url, **options)
        assert "\n" not in str(caught.value)
    store = Store(url, migrate=True)
    assert store.columns(names=("row_id",))["row_id"] == ids
    assert len(ids) == 8
    facts = store.columns("source=measured", ("manifest", "image_size", "processor", "runtime_version", "precision"))
    assert {name: set(values) for name, values in facts.items()} == {
        "manifest": {"3ecaaa000bf4c6c8"}, "image_size": {32}, "processor": {"AMD EPYC"},
        "runtime_version": {"1.31.1"}, "precision": {"fp32"},
    }  # fmt: skip
    with store._read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.metadata)
    assert [one for one in differences if "alembic_version" not in str(one)] == []
    complete = run_row("complete", auc=0.5)
    assert [store.add([row]) for row in (run_row("evaluated", auc=0.5), complete)] == [1, 1]
    assert store.rows("recipe=empty and model=m") == [complete]
    store.retract(complete.key, "made by a test")
    assert store.rows("recipe=empty and model=m") == []
    for table in schema.APPEND_ONLY:
        with pytest.raises(Exception, match="append-only"), engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()
    store.close()


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION))
def test_each_older_version_of_the_server_becomes_todays(url, version):
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    rows = [Row(model="old", role="student", dataset="d"), run_row("complete", auc=0.9)]
    with engine.begin() as connection:
        older_tables(connection, version, rows)
    store = Store(url, migrate=True)
    assert store.rows() == rows
    assert store.add([run_row("complete", auc=0.95, network="v", settings={"distill": {"alpha": 0.5}})]) == 1
    engine.dispose()
    store.close()


def select_ids(connection: Connection) -> list[str]:
    """What a reader of version 5 saw."""
    superseded = "SELECT number FROM public.superseded"
    current = f"SELECT row_id FROM public.rows WHERE number NOT IN ({superseded}) ORDER BY number"
    return list(connection.execute(text(current)).scalars())


def test_pages_fronts_and_exports_are_those_of_the_rule_on_the_server_too(url, monkeypatch):
    """The suite of `test_ranking.py`, on PostgreSQL: groups of more than two rows are taken for large ones."""
    rng = np.random.default_rng(11)
    monkeypatch.setattr(ranking, "_SMALL", 2)
    monkeypatch.setattr(fronts, "SAMPLE", 12)
    store = Store(url)
    fill(store, rng, 40)
    assert check_pages(store, rng, num=12) > 10
    found = store.columns(names=("row_id", "latency_p50_ms", "model"))
    page = ranking.page_of(store, Request(sort="model:desc"), ("row_id", "model"))
    assert list(page.columns["model"]) == sorted(found["model"], key=str.encode, reverse=True)
    shown = chosen(store, limit=20)
    assert f"20 of {store.count()} rows" in shown.note
    parts = pd.concat(list(ranking.export_parts(store)()), ignore_index=True)
    assert parts["on_front"].tolist() == pareto.on_front(store.columns())
    store.close()


def test_rows_are_counted_once_and_hidden_ones_by_their_own_tables(url, demo):
    """What superseded a row or took it back was tried on each row, which took as long as counting all once more."""
    store, counted = Store(url), []
    store.add(*demo)
    store.retract(demo[0][0].key, "drawn")
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        names = ", ".join(f'"{name}"' for name in [one.name for one in schema.rows.c][2:])
        connection.execute(
            text(f"INSERT INTO rows (row_id, {names}) SELECT 'x' || n, {names} FROM rows, generate_series(1, 40) AS n")
        )
        connection.execute(text("ANALYZE"))
    event.listen(store._engine, "before_cursor_execute", lambda _c, _k, sql, values, *_: counted.append((sql, values)))
    assert store.count() == 41 * len(demo[0]) - 1
    with store.reading() as connection:
        costs = [
            connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", values).scalar_one()[0]["Plan"]["Total Cost"]
            for sql, values in list(counted)
        ]
        assert len(costs) == 2
        assert costs[1] < costs[0] / 2
        query = select(schema.rows.c.number).where(schema.has_id(demo[0][1].key[:4]))
        plan = connection.execute(text(f"EXPLAIN {query.compile(engine, compile_kwargs={'literal_binds': True})}"))
        assert "rows_by_id" in str(plan.all()), "a million ids are not compared one by one"
