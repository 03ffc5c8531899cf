"""`tutelage leaderboard share`: copy the files of rows to where the team finds them."""

from __future__ import annotations

from typing import Annotated

import typer

from tutelage.cli.options import DEFAULT_WORKSPACE, WorkspaceOption
from tutelage.records import InputError


def share(
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows whose files are copied; default: all.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Copy the files of this workspace's rows to the place that TUTELAGE_ARTIFACTS names: a folder, s3:// or gs://.

    `run` does it for its own rows where the variable is set; this is for rows from before. Colleagues with the same
    leaderboard then `compare`, `bundle` and `reproduce` them in workspaces of their own.

    Example: [bold]TUTELAGE_ARTIFACTS=s3://bucket/prefix tutelage leaderboard share --filter project=chest[/]
    """
    from tutelage.leaderboard.store import Store
    from tutelage.leaderboard.team.place import VARIABLE, open_place
    from tutelage.pipeline.sharing.named import share_filed
    from tutelage.pipeline.workspace import database

    place = open_place()
    if place is None:
        raise InputError(
            f"{VARIABLE} is not set: name a folder or bucket that the team reaches, e.g. s3://bucket/prefix"
        )
    store = Store(database(workspace))
    place.check_writable()
    done = share_filed(store, filter_, workspace, place)
    print(f"{done.copied} files copied to {place.name}: all of {done.whole} rows are there")
    if done.elsewhere:
        print(f"{done.elsewhere} rows have files that are not in {workspace}: their makers share those")
