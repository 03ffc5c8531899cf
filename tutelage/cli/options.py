"""Options common to many verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.inputs import ACCELERATORS

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder of artifacts and the leaderboard.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: section.key=value.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="Recipe whose data, teachers and schedules are used.")]
AcceleratorOption = Annotated[str | None, typer.Option(help=f"Where networks are trained and scored: {ACCELERATORS}.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_WORKSPACE = Path("tutelage-workspace")
