"""Options common to many verbs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tutelage.inputs import ACCELERATORS

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder of artifacts and the leaderboard.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: section.key=value.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="Recipe whose data, teachers and schedules are used.")]
LastRecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="Recipe to go on with; default: of the workspace's last search or run, else demo."),
]
AcceleratorOption = Annotated[str | None, typer.Option(help=f"Where networks are trained and scored: {ACCELERATORS}.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Do this many stages at once on this machine, e.g. 2 trainings (extra `ray`)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_WORKSPACE = Path("tutelage-workspace")


def last_recipe(named: str | None, workspace: Path) -> str:
    """Give the recipe that a verb goes on with, and say on standard error which it is where the user did not."""
    from tutelage.pipeline.operations.remembered import recall
    from tutelage.pipeline.processes import follows

    recipe, line = recall(named, workspace)
    if line and not follows():
        print(line, file=sys.stderr)
    return recipe
