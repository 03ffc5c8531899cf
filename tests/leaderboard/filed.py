"""What the tests of the store share: rows of runs, stores of older versions, and the check of a database file."""

import gzip
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select, text

from tutelage.leaderboard.store import schema
from tutelage.leaderboard.store.engines import open_engine
from tutelage.leaderboard.store.migrating import upgrade
from tutelage.leaderboard.store.rows import row_values
from tutelage.records import Row

BOARDS = Path(__file__).with_name("store") / "boards"


def integrity(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def run_row(state: str, **fields: Any) -> Row:
    """A row of a run whose network is fixed by the letter `network`; a later run of the same thing has another."""
    network = fields.pop("network", "w")
    made = {
        "recipe": {"name": "tiny"},
        "file": {"path": f"artifacts/{state}/m.onnx", "sha256": "f" * 64},
        "network": {"weights": {"path": "w", "sha256": network * 64}},
        "settings": fields.pop("settings", {}),
    }
    details = {"state": state, "how": made, **fields.pop("details", {})}
    return Row(**{"model": "m", "role": "student", "dataset": "d", **fields, "details": details})


def older_tables(connection: Connection, version: int, rows: Sequence[Row]) -> None:
    """Make the tables of an older version, by its revision, and put rows into them as it did: no trace of Alembic."""
    upgrade(connection, 0, version)
    connection.execute(text("DROP TABLE alembic_version"))
    table = Table("rows", MetaData(), autoload_with=connection)
    for row in rows:
        values = row_values(row)
        values.setdefault("twin", values["control"])  # its name before version 7
        connection.execute(insert(table).values({name: values[name] for name in table.c.keys() & values.keys()}))
        if "details" not in table.c and row.details:  # since version 9
            number = connection.execute(select(func.max(table.c.number))).scalar_one()
            connection.execute(insert(schema.details).values(number=number, body=values["details"]))


def older_store(path: Path, version: int, rows: Sequence[Row]) -> None:
    engine = open_engine(path, read_only=False)
    with engine.execution_options(write=True).begin() as connection:
        older_tables(connection, version, rows)
    engine.dispose()


def dump_of(name: str) -> str:
    """The SQL of a store that an older version of the package made, see boards/README.md."""
    return gzip.decompress((BOARDS / name).read_bytes()).decode()


def real_board(path: Path) -> Path:
    """The leaderboard of a run of version 5 and two imported rows."""
    with sqlite3.connect(path) as connection:
        connection.executescript(dump_of("version-5.sqlite.sql.gz"))
    connection.close()
    assert schema.SCHEMA_VERSION > 5
    return path
