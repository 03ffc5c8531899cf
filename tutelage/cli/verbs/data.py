"""`tutelage data`: list the data sets, and check a folder or file before a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import JsonOption

EXIT_PROBLEM = 2  # as of any other input that cannot be used

app = typer.Typer(no_args_is_help=True, help="List the data sets, check a folder or file.")


@app.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """List the data sets that can be read, and what each expects on disk.

    Example: [bold]tutelage data list[/]
    """
    from tutelage.cli import inventory
    from tutelage.distill.data.registry import DATASETS

    inventory.print_datasets(DATASETS, Console(markup=False), as_json)


@app.command("check")
def data_check(path: Annotated[Path, typer.Argument()], as_json: JsonOption = False) -> None:
    """Say what a folder, archive, table, npz or set of the hub holds: classes, unreadable files, duplicates, leakage.

    Examples: [bold]tutelage data check xrays/[/]   [bold]images.zip[/]   [bold]labels.csv[/]
    [bold]pneumoniamnist.npz[/]   [bold]cifar10/[/] (parquet files)
    [bold]'shards/train-{000..146}.tar'[/] (WebDataset)   [bold]hf:owner/name[/]
    Exit code 2 where there is a problem, with which a run would refuse the data; notes leave it at 0.
    """
    from tutelage.cli import inventory
    from tutelage.distill.data.check import check_path

    report = check_path(path)
    inventory.print_data_report(report, Console(markup=False), as_json)
    if not report.ok:
        raise typer.Exit(EXIT_PROBLEM)
