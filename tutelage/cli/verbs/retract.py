"""`tutelage leaderboard retract`: say of a row that nobody should use it, and why; or let it stand again."""

from __future__ import annotations

from typing import Annotated

import typer

from tutelage.cli.options import DEFAULT_WORKSPACE, WorkspaceOption
from tutelage.records import InputError


def retract(
    row: Annotated[str, typer.Argument(help="A row's id; its first digits do.")],
    reason: Annotated[str | None, typer.Option(help="Why nobody should use the row; it is shown with it.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let a retracted row stand again.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Retract a row: it is left out of tables, fronts, page and exports, and nothing is deleted.

    `leaderboard show --all` lists it with the reason. The earlier run that it superseded is current again.

    Example: [bold]tutelage leaderboard retract 8576a5ae --reason "the board was throttled"[/]
    """
    from tutelage.leaderboard.store import Store
    from tutelage.leaderboard.terminal.table import printable
    from tutelage.pipeline.workspace import database

    if undo and reason is not None:
        raise InputError("--reason has no effect beside --undo: leave one of both out")
    if not undo and reason is None:
        raise InputError(f"row {row!r} is retracted for a reason: give --reason, or --undo to let it stand again")
    store = Store(database(workspace))
    found = store.retract(row, reason)
    said = "stands again" if undo else f"is retracted: {store.former(found.key)['retracted']}"
    print(f"row {found.key} ({printable(found.model)}) {said}")
