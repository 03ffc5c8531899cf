"""Make the tables of a store, or bring older ones up to date by the revisions of `migrations/` (`prepare`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, inspect, select
from sqlalchemy.exc import OperationalError, ProgrammingError

from tutelage.files import whole_file
from tutelage.records import InputError, utc_now

from . import schema
from .engines import copied
from .schema import SCHEMA_VERSION

log = logging.getLogger(__name__)


def prepare(begin: Callable[[], AbstractContextManager[Connection]], migrate: bool, file: Path | None = None) -> None:
    """Create or migrate the tables in one write transaction, which `begin` opens.

    Raise InputError for the tables of a newer version, and for those of an older one without `migrate`. file: of a
    SQLite store; it is copied before it is migrated, and the copy goes where the migration is not committed.
    """
    with ExitStack() as undo:
        with begin() as connection:
            message = _prepared(connection, migrate, file, undo)
        undo.pop_all()
    if message:
        log.warning(message)


def _prepared(connection: Connection, migrate: bool, file: Path | None, undo: ExitStack) -> str:
    """Create or migrate the tables; give what to say of it when it is committed."""
    found = version_of(connection)
    if found == SCHEMA_VERSION:
        return ""
    if found > SCHEMA_VERSION:
        raise InputError(
            f"the leaderboard has schema version {found}, this version of tutelage knows {SCHEMA_VERSION}: "
            "use the newer tutelage that wrote it, or another --workspace"
        )
    if found == 0:
        _create(connection)
        return ""
    if not migrate:
        raise InputError(
            f"the shared leaderboard has schema version {found}, this version of tutelage writes {SCHEMA_VERSION}: "
            "`tutelage leaderboard migrate` brings it up to date for everybody; older versions then cannot open it"
        )
    message = ""
    if file is not None:
        copy = _copied_aside(file, found)
        undo.callback(copy.unlink)
        message = f"{file}: brought from schema version {found} to {SCHEMA_VERSION}; a copy of before is {copy.name}"
    upgrade(connection, found)
    return message


def version_of(connection: Connection) -> int:
    """Read the schema version: 0 for an empty database; raise InputError for somebody else's."""
    names = set(inspect(connection).get_table_names())
    if "schema_version" in names:
        return int(connection.execute(select(func.max(schema.versions.c.version))).scalar() or 0)
    if names & {"rows", "measurements"}:
        raise InputError("the database holds tables of another program (no schema_version): name another file or URL")
    return 0


def check_readable(connection: Connection, name: str) -> None:
    """Raise InputError for a store of another version, or of none, with what to run.

    Which tables there are is asked only where there is no version: that takes longer than a page of rows.
    """
    try:
        found = int(connection.execute(select(func.max(schema.versions.c.version))).scalar() or 0)
    except (OperationalError, ProgrammingError):
        connection.rollback()
        found = version_of(connection)
    if found == 0:
        raise InputError(f"{name} holds no leaderboard yet: run a recipe first, or name another --workspace")
    if found != SCHEMA_VERSION:
        raise InputError(
            f"{name} has schema version {found}, this version of tutelage reads {SCHEMA_VERSION}: "
            + (
                "`tutelage leaderboard migrate` brings it up to date; older versions then cannot open it"
                if found < SCHEMA_VERSION
                else "use the newer tutelage that wrote it"
            )
        )


def _create(connection: Connection) -> None:
    """Make today's tables at once: the revisions are for tables that are there."""
    schema.metadata.create_all(connection)
    schema.forbid_changes(connection)
    connection.execute(insert(schema.versions).values(version=SCHEMA_VERSION, applied=utc_now()))


def upgrade(connection: Connection, found: int, version: int = SCHEMA_VERSION) -> None:
    """Run the revisions after `found`, up to `version`, on this connection and in its transaction; 0: from nothing."""
    from alembic import command
    from alembic.config import Config

    def applied(*, step: Any, **_: Any) -> None:
        if step.is_upgrade and not step.is_stamp:
            connection.execute(insert(schema.versions).values(version=int(step.up_revision_id), applied=utc_now()))

    config = Config(attributes={"connection": connection, "applied": applied})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    # Stores from before Alembic say their version in our own table alone; that one counts.
    command.stamp(config, f"{found:04d}" if found else "base", purge=True)
    command.upgrade(config, f"{version:04d}")


def _copied_aside(file: Path, version: int) -> Path:
    """Copy a store beside itself under a name that is free; give the copy's path."""
    names = (f"{file.stem}.version-{version}{f'.{n}' * (n > 1)}{file.suffix}" for n in count(1))
    target = next(path for name in names if not (path := file.with_name(name)).exists())
    with whole_file(target) as aside:
        copied(file, aside)
    return target
