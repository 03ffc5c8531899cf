"""Options common to many verbs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.bench.boards.address import check_address
from tutelage.inputs import ACCELERATORS
from tutelage.records import InputError


def folder_of(given: str | Path) -> Path:
    """Read what an option that takes a folder names: a folder that can be read, or nothing yet.

    Raises typer.BadParameter, of which the command line makes one line with the option's name.
    """
    try:
        path = Path(given).expanduser()
        if path.exists():
            if not path.is_dir():
                raise typer.BadParameter(f"{str(given)!r} is a file: give a folder")
            with os.scandir(path):
                pass
        elif (above := next(part for part in path.absolute().parents if part.exists())) and not above.is_dir():
            raise typer.BadParameter(f"{str(given)!r}: {above} is a file: give a folder")
    except (OSError, RuntimeError) as error:  # no right to read it, a name that is too long, ~ of nobody
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(f"{str(given)!r} cannot be read ({reason}): give another folder") from None
    return path


def folder_option(*names: str, help: str) -> Any:
    """Declare an option that names a folder."""
    return typer.Option(*names, parser=folder_of, metavar="PATH", help=help)


WorkspaceOption = Annotated[Path, folder_option("--workspace", "-w", help="Folder of artifacts and the leaderboard.")]
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
ClusterOption = Annotated[
    str | None,
    typer.Option(help="Do stages on the machines of a running Ray cluster: auto, or ray://HOST:10001 (extra `ray`)."),
]
ShareOption = Annotated[
    str | None,
    typer.Option(help="With --cluster: folder or fsspec URL that all its machines reach, for the files of stages."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_WORKSPACE = Path("tutelage-workspace")


@dataclass(frozen=True)
class Place:
    """Where the stages of a run are done: in this process, by workers on this host, or on a cluster."""

    workers: int | None = None
    cluster: str | None = None
    share: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.cluster is not None:
            raise InputError("--workers starts workers on this machine, --cluster takes those that run: give one")
        if self.share is not None and not self.share.strip():
            raise InputError("--share is empty: name a folder or fsspec URL that all machines of the cluster reach")
        if self.cluster is not None:
            check_address(self.cluster)
        if self.share is not None and self.cluster is None:
            raise InputError(f"--share {self.share} is for the machines of a cluster: give --cluster, too")

    @property
    def option(self) -> str:
        """Name the option; empty for this process."""
        return "--workers" if self.workers is not None else "--cluster" if self.cluster is not None else ""


def last_recipe(named: str | None, workspace: Path) -> str:
    """Give the recipe that a verb goes on with, and say on standard error which it is where the user did not."""
    from tutelage.pipeline.operations.remembered import recall
    from tutelage.pipeline.processes import follows

    recipe, line = recall(named, workspace)
    if line and not follows():
        print(line, file=sys.stderr)
    return recipe
