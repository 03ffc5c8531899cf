"""`tutelage run` and `tutelage reproduce`: run a recipe, and run again what made a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, SetOption, WorkspaceOption


def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe or a YAML file.")],
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do this recipe's stages again; what older rows refer to is kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe from images to the leaderboard; stopped, it goes on where it was.

    Example: [bold]tutelage run demo[/]   or   [bold]tutelage run pneumoniamnist --set data.path=pneumoniamnist.npz[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import print_plan
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.recipe import load_recipe

    chosen = load_recipe(recipe, set_ or ())
    if follow(chosen, workspace, terminal.cores()):
        return
    with terminal.run_setting(workspace) as setting, leading():
        if fresh:
            setting[0].start_over(chosen.name)
        searched, published = pipeline.run(chosen, *setting, announce=print_plan)
    if as_json:
        print(json.dumps([row.to_dict() for row in published.rows]))
        return
    terminal.print_run(searched, published, Console())


def reproduce(
    row: Annotated[str, typer.Argument(help="A row's id; `tutelage leaderboard show` prints them.")],
    into: Annotated[Path, typer.Option(help="Workspace of the new run.")] = Path("tutelage-reproduced"),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Run the recipe that made a row again, elsewhere, and say which figures are the same.

    Example: [bold]tutelage reproduce 8576a5ae[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations.reproduce import check_place
    from tutelage.pipeline.operations.reproduce import reproduce as run_again

    check_place(workspace, into)
    with terminal.run_setting(into) as (place, report, threads):
        agreement = run_again(row, workspace, place, report, threads)
    terminal.print_agreement(agreement, Console(), as_json)
