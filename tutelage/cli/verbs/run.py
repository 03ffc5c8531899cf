"""`tutelage run` and `tutelage reproduce`: run a recipe, and run again what made a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    AcceleratorOption,
    ClusterOption,
    JsonOption,
    Place,
    SetOption,
    ShareOption,
    WorkersOption,
    WorkspaceOption,
    folder_option,
)
from tutelage.records import InputError


def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe or a YAML file.")],
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do this recipe's stages again; what older rows refer to is kept.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the recipe and print what would be reused and computed; train nothing."),
    ] = False,
    accelerator: AcceleratorOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    share: ShareOption = None,
    project: Annotated[
        str | None, typer.Option(help="Project that the rows belong to; default: the recipe's, else TUTELAGE_PROJECT.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe from images to the leaderboard; stopped, it goes on where it was.

    Example: [bold]tutelage run demo --dry-run[/]   or   [bold]tutelage run pneumoniamnist --set data.path=NPZ[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import announcing, keys_given, memories_line, print_rehearsal
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.preflight import read_recipe
    from tutelage.pipeline.processes import follows

    if dry_run and fresh:
        raise InputError("--fresh does the stages again and --dry-run does none: give one of them")
    place = Place(workers, cluster, share)
    if dry_run and place.option:
        raise InputError(f"{place.option} computes and --dry-run does not: give one of them")
    chosen = read_recipe(recipe, set_ or (), workspace, "run", {"accelerator": accelerator, "project": project})
    if dry_run:
        if follows():  # the leader prints it
            return
        with terminal.run_setting(workspace) as setting:
            plan = pipeline.rehearse(chosen, *setting)
            print_rehearsal(plan, as_json, memories_line(chosen, workspace, keys_given(set_)))
        return
    announce = announcing(chosen, workspace, keys_given(set_))
    if follow(chosen, workspace, terminal.cores()):
        return
    with terminal.run_setting(workspace) as setting, leading(chosen):
        if fresh:
            setting[0].start_over(chosen.name)
        with terminal.workers_setting(chosen, setting, place) as (spread, failed):
            searched, published = pipeline.run(chosen, *spread, announce=announce)
    if as_json:
        print(json.dumps([row.to_dict() for row in published.rows]))
    else:
        terminal.print_run(searched, published, Console(markup=False))
    terminal.exit_for_failed(failed)
    terminal.exit_for_refused(published.refused)


def reproduce(
    row: Annotated[str, typer.Argument(help="A row's id; `tutelage leaderboard show` prints them.")],
    into: Annotated[Path, folder_option(help="Workspace of the new run.")] = Path("tutelage-reproduced"),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    accelerator: AcceleratorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the recipe that made a row again, elsewhere, and say which figures are the same.

    Example: [bold]tutelage reproduce 8576a5ae[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import print_plan
    from tutelage.pipeline.operations.reproduce import check_place
    from tutelage.pipeline.operations.reproduce import reproduce as run_again

    check_place(workspace, into)
    with terminal.run_setting(into) as (place, report, threads):
        agreement = run_again(row, workspace, place, report, threads, accelerator, announce=print_plan)
    terminal.print_agreement(agreement, Console(markup=False), as_json)
