"""`tutelage leaderboard push` and `pull`: rows to and from a folder, the hub or, pushed only, an MLflow server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.options import DEFAULT_WORKSPACE, WorkspaceOption
from tutelage.records import InputError, Row

if TYPE_CHECKING:
    from tutelage.leaderboard.store import Store


def push(
    to: Annotated[str, typer.Argument(metavar="TO", help="A folder, or hf://datasets/OWNER/NAME.")] = "",
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows to push; default: all.")] = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Their files, too: predictions, models, weights, device profiles.")
    ] = False,
    mlflow: Annotated[
        str, typer.Option(help="Log rows as runs of an MLflow server, e.g. http://HOST:5000 (extra `mlflow`).")
    ] = "",
    experiment: Annotated[str, typer.Option(help="MLflow's experiment.")] = "tutelage",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Copy rows to a folder, a data set of the Hugging Face hub, or an MLflow server; what is there stays as it is.

    A new data set is private. Rows say host names, paths of recipes and who filed them; files say what they hold.

    Example: [bold]tutelage leaderboard push hf://datasets/my-lab/boards --filter tags=paper[/]   or
    [bold]tutelage leaderboard push --mlflow sqlite:///mlflow.db[/]
    """
    from tutelage.leaderboard.team.exchange import push as push_rows
    from tutelage.leaderboard.team.targets import open_target
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.sharing.named import files_by_hash

    if bool(to) == bool(mlflow):
        raise InputError("say where rows are pushed to: a folder, hf://datasets/OWNER/NAME, or --mlflow ADDRESS")
    if experiment != "tutelage" and not mlflow:
        raise InputError(f"--experiment {experiment} has no effect without --mlflow: leave it out")
    store = open_board(workspace)
    if mlflow:
        _log(store, filter_, mlflow, experiment, workspace, artifacts)
        return
    target = open_target(to, read=False)
    if artifacts:  # first: who sees the rows can then have their files
        files = {sha: file for row in store.rows(filter_) for sha, file in files_by_hash(row, workspace).items()}
        target.add({f"artifacts/{sha[:2]}/{sha}": file for sha, file in files.items()}, f"{len(files)} files")
    done = push_rows(store, filter_, target)
    print(f"{done.copied} rows and {done.retracted} retractions pushed to {target.name}; {done.same} were there")
    _print_conflicts(done.conflicts)


def pull(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A folder that was pushed to, or hf://datasets/OWNER/NAME.")
    ],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Add the rows of a folder or data set that the team pushed to, under their ids and as they were measured.

    For results of others use `import`, which marks them. A row that is here stays; conflicts are said.

    Example: [bold]tutelage leaderboard pull hf://datasets/my-lab/boards[/]
    """
    from tutelage.leaderboard.store import Store
    from tutelage.leaderboard.team.exchange import pull as pull_rows
    from tutelage.leaderboard.team.targets import open_target
    from tutelage.pipeline.workspace import Workspace

    target = open_target(source, read=True)
    done = pull_rows(Store(Workspace(workspace).store), target)
    print(f"{done.copied} rows and {done.retracted} retractions of {target.name} added; {done.same} were here")
    _print_conflicts(done.conflicts)


def _print_conflicts(conflicts: list[str]) -> None:
    for line in conflicts:
        print(f"conflict: {line}", file=sys.stderr)


def _log(store: Store, filter: str | None, uri: str, experiment: str, workspace: Path, artifacts: bool) -> None:
    """Log rows as runs of MLflow, with the learning curves that are here."""
    from tutelage.leaderboard.team.tracking import push_runs
    from tutelage.pipeline.curves import HISTORY
    from tutelage.pipeline.sharing.fetched import RowFiles
    from tutelage.pipeline.sharing.named import named_files

    files = RowFiles(workspace)

    def history(row: Row) -> list[dict[str, Any]]:
        weights = ((row.details.get("how") or {}).get("network") or {}).get("weights") or {}
        path = Path(str(weights.get("path") or "")).parent / HISTORY
        found = files.find(row.details, path.as_posix()) if weights else None
        return json.loads(found.read_text(encoding="utf-8")) if found is not None else []

    def named(row: Row) -> dict[str, Path]:
        return named_files(row, workspace) if artifacts else {}

    done = push_runs(store.rows(filter), uri, experiment, history=history, files=named)
    print(f"{len(done.runs)} runs logged in experiment {experiment}; {done.there} rows had one")
    if done.unfinished:
        print(f"{done.unfinished} rows are of a run that goes on or was stopped: they are logged when it is done")
