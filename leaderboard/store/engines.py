"""Open the store's database: a SQLite file (WAL) or a PostgreSQL server, for writing, or for reading and nothing else.

`open_engine` gives the engine, `plain_errors` turns a driver's error into one line that names the store and the remedy.
A reader creates, changes and migrates nothing, and needs no right to write: neither to the file nor to its folder.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tutelage.leaderboard.details import add_functions
from tutelage.records import InputError

# A writer waits this long for the others; eight of them committing row by row stay far below.
BUSY_SECONDS = 60


def open_engine(place: str | Path, read_only: bool) -> Engine:
    """Give an engine for a path, a sqlite: or a postgresql: URL; raise InputError for what cannot be opened."""
    path = file_of(place)
    if path is None:
        return _open_server(str(place), read_only)
    if read_only and not path.is_file():
        raise InputError(f"there is no leaderboard at {path}: run a recipe first, or name another --workspace")
    if not path.parent.is_dir():
        raise InputError(f"the folder of {path} does not exist: make it, or name another --workspace")

    def connect() -> sqlite3.Connection:
        return _reader(path) if read_only else _connected(f"{path.as_uri()}?mode=rwc")

    # No pool: opening a file is cheap, and a connection that lived through a fork would corrupt the database.
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        add_functions(connection)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys=ON")
        if not read_only:
            _write_ahead(cursor)
            cursor.execute("PRAGMA synchronous=FULL")  # a committed row outlives a power cut, too
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: two that began by reading would deadlock when both want to write.
        writes = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Put the file into write-ahead mode; while another makes it, SQLite refuses that at once, without its timeout."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def file_of(place: str | Path) -> Path | None:
    """Give the file of a SQLite store; None for a server."""
    text = str(place)
    if "://" in text and not text.startswith("sqlite:"):
        return None
    return Path(text.removeprefix("sqlite:///")).expanduser().absolute()


def _connected(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _reader(path: Path) -> sqlite3.Connection:
    """Open a file to be read alone, beside writers, on a read-only disk, too.

    A reader of a WAL database shares memory with the writers through a file beside it, which cannot be made where the
    folder cannot be written. Without a log (`-wal`) the file is all there is, and nobody can write to it (immutable);
    rows of a log that was left there are read from a copy.
    """
    connection = _connected(f"{path.as_uri()}?mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if not any(word in str(error) for word in ("unable to open", "readonly")):
            raise
    log = path.with_name(f"{path.name}-wal")
    if not log.is_file() or log.stat().st_size == 0:
        return _connected(f"{path.as_uri()}?mode=ro&immutable=1")
    copied = _connected(":memory:")
    with TemporaryDirectory() as folder:
        for file in (path, log):
            shutil.copyfile(file, Path(folder, file.name))
        whole = _connected(Path(folder, path.name).as_uri())
        whole.backup(copied)
        whole.close()
    copied.execute("PRAGMA query_only=ON")
    return copied


def copied(path: Path, target: Path) -> Path:
    """Copy a SQLite store as it stands, what writers have committed included; give the copy's path."""
    with plain_errors(str(path), writes=False):
        source, copy = _reader(path.absolute()), _connected(target.as_uri())
        source.backup(copy)
        for connection in (source, copy):
            connection.close()
    return target


def _open_server(url: str, read_only: bool) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise InputError(f"{parsed.render_as_string()} is neither a file nor a postgresql:// URL")
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if read_only:
            return create_engine(parsed, pool_pre_ping=True, execution_options={"postgresql_readonly": True})
        # No pool for a run: hours lie between its rows, and a loader's forked workers would share the connection.
        return create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the database URL cannot be read ({error}): postgresql://USER@HOST/NAME") from error
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InputError(f"PostgreSQL needs a driver ({error}): pip install 'psycopg[binary]'") from error


@contextmanager
def plain_errors(name: str, *, writes: bool) -> Iterator[None]:
    """Turn a driver's error into one line that names the store and the remedy."""
    try:
        yield
    except IntegrityError as error:
        if "FOREIGN KEY" in str(error.orig).upper():
            raise InputError(
                f"{name}: a row names a measurement that is not there; nothing was written: "
                "pass its Measurement in the same add()"
            ) from error
        raise
    except (DBAPIError, sqlite3.Error) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().split("\n")[0]
        kept = "; nothing of this write was kept" if writes else ""
        raise InputError(f"{name}: {reason}{kept}. {_remedy(reason)}") from error
    except SQLAlchemyError as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error


def _remedy(reason: str) -> str:
    remedies = {
        "full": "Free space on that disk and run again: finished stages are not done twice",
        "disk I/O error": "Check the disk and its free space, then run again",
        "not a database": "Name another file: this one was not made by tutelage",
        "malformed": "Restore it from a copy; `tutelage leaderboard import` merges what others have",
        "readonly": "Make the file and its folder writable, or name another --workspace",
        "unable to open": "Make the file and its folder writable, or name another --workspace",
        "locking protocol": "Its file system has no locks: name a --workspace on a local disk",
        "locked": "Another program holds it: close that one and run again",
        "append-only": "Rows are never changed or deleted: add a new one",
    }
    return next((remedy for word, remedy in remedies.items() if word in reason), "Check that the server is up")
