"""`tutelage leaderboard tag`: set and take off tags of a row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.options import DEFAULT_WORKSPACE, folder_option
from tutelage.records import InputError


def tag(
    row: Annotated[str, typer.Argument(help="A row's id; its first digits do.")],
    changes: Annotated[list[str] | None, typer.Argument(help="+TAG sets a tag, -TAG takes it off.")] = None,
    # No -w here: it would be the tag w, taken off.
    workspace: Annotated[
        Path, folder_option("--workspace", help="Folder of artifacts and the leaderboard.")
    ] = DEFAULT_WORKSPACE,
) -> None:
    """Tag a row, or print its tags: `show`, `build` and `export` take --filter tags=TAG.

    Example: [bold]tutelage leaderboard tag 8576a5ae +paper +camera-ready -draft[/]
    """
    from tutelage.leaderboard.store import Store
    from tutelage.leaderboard.team import people
    from tutelage.leaderboard.terminal.table import printable
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.workspace import database

    changes = changes or []
    if odd := [one for one in changes if one[:1] not in ("+", "-")]:
        raise InputError(f"{odd[0]!r} neither sets a tag nor takes one off: write +{odd[0]} or -{odd[0]}")
    if changes:
        store = Store(database(workspace))
        add, remove = ([one[1:] for one in changes if one[0] == sign] for sign in "+-")
        found, tags = people.tag(store, row, add, remove)
    else:
        store = open_board(workspace)
        found = store.row(row)
        tags = people.tags_of(store, found.key)
    print(f"row {found.key} ({printable(found.model)}): {' '.join(tags) or 'no tags'}")
