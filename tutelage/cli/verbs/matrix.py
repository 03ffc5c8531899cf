"""`tutelage leaderboard matrix`: architectures against devices, one figure a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from tutelage.cli.output_files import check_output
from tutelage.records import InputError


def matrix(
    figure: Annotated[str, typer.Argument(help="A quality or a cost (docs/columns.md).")] = "latency_p50_ms",
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows to use, e.g. 'dataset=cxr3'")] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="List the files of each architecture: teachers, schemes, seeds.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A .csv to write instead of printing.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Print one figure of every architecture on every device, or why there is none: failed, pending, never run.

    Example: [bold]tutelage leaderboard matrix accuracy --filter 'dataset=cxr3' --open[/]
    """
    import json

    from tutelage.cli.show import unmatched
    from tutelage.files import write_text
    from tutelage.leaderboard.comparisons.matrix import as_records, matrices, to_csv
    from tutelage.leaderboard.terminal.matrix import show_matrix
    from tutelage.pipeline.operations.board import open_board

    if out is not None:
        if as_json:
            raise InputError("--json has no effect on --out, which is CSV: leave one of them out")
        check_output(out, "--out", suffixes=(".csv",), apart_from={"the leaderboard": workspace / "leaderboard.db"})
    store = open_board(workspace)
    found = matrices(store, figure, filter_ or "", is_open=is_open)
    if not found and not as_json:
        kept = "" if filter_ is None else f" that {filter_!r} keeps"
        raise InputError("; ".join([f"{store.name} holds no row{kept}", *unmatched(store, filter_)]))
    if as_json:
        print(json.dumps(as_records(found), indent=1, ensure_ascii=False))
    elif out is not None:
        write_text(out, to_csv(found))
        print(f"wrote {out}")
    else:
        for one in found:
            show_matrix(one, Console(markup=False))
