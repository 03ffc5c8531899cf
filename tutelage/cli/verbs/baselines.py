"""`tutelage leaderboard baselines`: what the students gain over the networks that one would deploy otherwise."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption


def baselines(
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows, e.g. 'recipe=cifar10-small'")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Say of each baseline whether a student dominates it, and by how much, on every device and in every precision.

    A baseline is dominated where a student of no higher median latency is better beyond chance: by the paired test on
    the same test images, or by both intervals where predictions are missing. Each table ends with the hypervolume of
    the students' front over that of the baselines'.

    Example: [bold]tutelage leaderboard baselines --filter 'device=host-ort-32px'[/]
    """
    from tutelage.leaderboard.comparisons.baselines import against_baselines
    from tutelage.leaderboard.team.place import open_place
    from tutelage.leaderboard.terminal.baselines import ground_records, print_grounds
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.operations.paired import RowFigures

    store = open_board(workspace)
    found = against_baselines(store.rows(filter_), RowFigures(workspace, place=open_place()).compare)
    if as_json:
        print(json.dumps(ground_records(found)))
        return
    print_grounds(found, Console(markup=False))
