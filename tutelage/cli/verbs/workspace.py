"""`tutelage workspace`: list the stages of a workspace and its size, and remove what nothing needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from tutelage.pipeline.operations.stages import StageEntry

app = typer.Typer(no_args_is_help=False, rich_markup_mode="rich", help="List the stages of a workspace, and clean up.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """List the stages of a workspace: each with its size and what refers to it; and the size of the rest.

    Example: [bold]tutelage workspace --workspace tutelage-workspace[/]
    """
    if context.invoked_subcommand is not None:
        return
    from tutelage.pipeline.operations.clean import sizes
    from tutelage.pipeline.operations.stages import list_stages
    from tutelage.quantities import in_units

    console = Console(markup=False)
    _print(list_stages(_existing(workspace)), console, as_json)
    if not as_json:
        found = sizes(workspace)
        parts = ", ".join(f"{kind} {in_units(size, 'B')}" for kind, size in found.items())
        console.print(f"on the disk: {in_units(sum(found.values()), 'B')} ({parts})", highlight=False)


@app.command()
def prune(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the stages whose files no row of the leaderboard needs. A run does them again if it needs them.

    Example: [bold]tutelage workspace prune --dry-run[/]
    """
    from tutelage.pipeline.operations.stages import prune as remove
    from tutelage.pipeline.workspace import Workspace

    console = Console(markup=False)
    removed = remove(Workspace(_existing(workspace)), dry_run=dry_run)
    _print(removed, console, as_json)
    if not as_json:
        console.print("would be removed; nothing was" if dry_run else "removed", highlight=False)


@app.command()
def clean(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only listed.")] = False,
    caches: Annotated[
        bool, typer.Option("--caches", help="Remove decoded images and soft targets, too: a run computes them again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what no row, bundle or unfinished run needs: checkpoints, stages, images half decoded; --yes removes it.

    Example: [bold]tutelage workspace clean --yes[/]
    """
    from tutelage.pipeline.operations.clean import clean as remove
    from tutelage.pipeline.workspace import Workspace
    from tutelage.quantities import in_units

    found = remove(Workspace(_existing(workspace)), dry_run=not yes, caches=caches)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    console = Console(markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("path", "size", "what"):
        table.add_column(name, overflow="fold", no_wrap=name == "size")
    for one in found.removed:
        table.add_row(one.path, in_units(one.size_bytes, "B"), one.what)
    if found.removed:
        console.print(table)
    if found.kept:
        console.print(f"kept: stages and caches, since {found.kept}", highlight=False, soft_wrap=True)
    total = in_units(sum(one.size_bytes for one in found.removed), "B")
    console.print(f"{total} removed" if yes else f"{total} would be removed: --yes removes it", highlight=False)


def _existing(path: Path) -> Path:
    """Refuse a folder that is no workspace: listing makes none."""
    from tutelage.records import InputError

    if not (path / "workspace.json").is_file():
        raise InputError(f"{path} is no workspace: `tutelage run demo` makes one, or name another --workspace")
    return path


def _print(entries: Sequence[StageEntry], console: Console, as_json: bool) -> None:
    from tutelage.quantities import in_units

    if as_json:
        print(json.dumps([one.to_dict() for one in entries]))
        return
    table = Table(box=None, pad_edge=False)
    # Keys are copied, so that only the longest words, the stage's, are wrapped in a narrow terminal.
    for name in ("key", "finished", "size", "referred to by", "stage"):
        table.add_column(name, overflow="fold", no_wrap=name != "stage")
    for one in entries:
        counts = ((len(one.rows), "row"), (len(one.stages), "stage"))
        users = [f"{number} {what if number == 1 else what + 's'}" for number, what in counts if number]
        finished = one.finished[:16].replace("T", " ") or "not finished"  # to the minute, UTC
        table.add_row(one.key, finished, in_units(one.size_bytes, "B"), ", ".join(users) or "nothing", one.title)
    console.print(table)
    total = in_units(sum(one.size_bytes for one in entries), "B")
    console.print(f"{len(entries)} stages, {total}", highlight=False)
