"""`tutelage leaderboard`: show, draw and export what the runs of a workspace left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from tutelage.cli.output_files import check_output
from tutelage.leaderboard.store.page import MOST_ROWS
from tutelage.records import InputError

from .baselines import baselines
from .exchange import pull, push
from .matrix import matrix
from .retract import retract
from .serve import serve
from .share import share
from .tag import tag

app = typer.Typer(no_args_is_help=True, help="Show, draw and export the leaderboard.")
app.command("matrix")(matrix)
app.command("retract")(retract)
app.command("baselines")(baselines)
app.command("serve")(serve)
app.command("share")(share)
app.command("push")(push)
app.command("pull")(pull)
app.command("tag", context_settings={"ignore_unknown_options": True})(tag)


@app.command("show")
def board_show(
    row: Annotated[str | None, typer.Argument(help="A row's id (its first digits do); default: all rows.")] = None,
    how: Annotated[
        bool, typer.Option("--how", help="Say what the row is of: data, device, recipe, versions, what superseded it.")
    ] = False,
    every: Annotated[
        bool,
        typer.Option("--all", help="Superseded and retracted rows, too; they are on no front."),
    ] = False,
    filter_: Annotated[str | None, typer.Option("--filter", help="e.g. 'latency_p50_ms<5 and role=student'")] = None,
    front: Annotated[str | None, typer.Option(help="Figures of the front, e.g. latency_p50_ms,auc")] = None,
    ties: Annotated[
        str,
        typer.Option(help="Differences that do not count for --front: 0.005 (quality) or auc=0.005,size_bytes=50kB"),
    ] = "",
    columns: Annotated[
        str, typer.Option(help="Columns to print, e.g. auc,gain,gain_seeds (docs/columns.md); default: those that fit.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most rows to print; default: 200, and all of them as JSON.")
    ] = None,
    page: Annotated[int, typer.Option(min=1, help="Which --limit rows to print: 1 are the first.")] = 1,
    sort: Annotated[
        str, typer.Option(help="Sort all rows by a column, best first: latency_p50_ms, params:desc, model:asc.")
    ] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Print the columns that fit the terminal, the Pareto front marked; or one row with all its details.

    With --front, each row also says whether its intervals put it on that front certainly or possibly; a single row
    lists the rows that dominate it, and by how much.

    Example: [bold]tutelage leaderboard show --filter 'role=student and scheme=int8-ptq' --front latency_p50_ms,auc[/]
    """
    from tutelage.cli import show as board
    from tutelage.leaderboard.store.page import Request
    from tutelage.pipeline.operations.board import open_board

    store = open_board(workspace)
    if row is not None:
        given = {"--filter": filter_, "--ties": ties, "--limit": limit, "--columns": columns, "--all": every}
        given |= {"--front": front if how else None, "--sort": sort, "--page": page if page > 1 else None}
        if unused := [name for name, value in given.items() if value]:
            raise InputError(f"{', '.join(unused)} has no effect on one row{' and --how' if how else ''}: leave it out")
        board.print_row(store.row(row), store, how, Console(markup=False), as_json, front)
        return
    if how:
        raise InputError("--how belongs to one row: give its id, the first column of the table")
    if page > 1 and limit is None and as_json:
        raise InputError("--page of --json needs --limit: without it all rows are given")
    objectives = tuple(board.objectives_of(front) or ())
    offset = (page - 1) * (limit or board.MAX_SHOWN)
    asked = Request(filter_ or "", objectives, ties, limit, offset, sort, every)
    board.print_board(store, asked, Console(markup=False), as_json=as_json, columns=columns)


@app.command("build")
def board_build(
    out: Annotated[Path, typer.Option(help="The HTML file to write; a .png lies beside it.")] = Path(
        "leaderboard.html"
    ),
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows to show.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most rows to show: those on fronts first, then the newest.")
    ] = MOST_ROWS,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Leaderboard",
    front: Annotated[
        str | None,
        typer.Option(help="Figures of the picture: costs and one quality, e.g. latency_p50_ms,size_bytes,accuracy."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Draw the leaderboard as one self-contained HTML page and a PNG.

    Example: [bold]tutelage leaderboard build --out leaderboard.html[/]
    """
    from tutelage.cli.show import objectives_of, unmatched
    from tutelage.leaderboard.page.build import build_page
    from tutelage.leaderboard.page.choose import chosen
    from tutelage.leaderboard.page.verdicts import decided_ids
    from tutelage.leaderboard.pareto import COSTS
    from tutelage.leaderboard.plots.front import axes_of, chosen_ids, pareto_plot
    from tutelage.pipeline.curves import with_curves
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.operations.paired import page_verdicts

    if not title.strip():
        raise InputError(f"--title {title!r} is empty: give one, or leave it out")
    check_output(out, "--out", suffixes=(".html", ".htm"))
    picture = check_output(out.with_suffix(".png"), "the picture beside --out", suffixes=(".png",))
    store = open_board(workspace)
    objectives = objectives_of(front)
    costs, quality = (list(COSTS), "") if objectives is None else axes_of(objectives)
    shown = chosen(store, filter_ or "", limit)
    found = shown.rows
    if found.empty:
        kept = "" if filter_ is None else f" that {filter_!r} keeps"
        raise InputError("; ".join([f"{store.name} holds no row{kept}", *unmatched(store, filter_)]))
    verdicts = page_verdicts(store.rows(ids=decided_ids(found)), workspace)
    details = with_curves(store.details, workspace)
    build_page(found, out, title, details=details, verdicts=verdicts, note=shown.note)
    # A picture of more marks is unreadable: of a large leaderboard one data set and device is drawn, its fronts whole.
    drawn, num, note = store.rows(ids=chosen_ids(found)), len(found), shown.note
    if all(row.auc is None and row.accuracy is None for row in drawn):
        print(f"{num} rows: {out}; no picture, since no row has an AUC or an accuracy")
        return
    del shown, found, verdicts, details  # a large board's are tens of megabytes, and so is what draws
    pareto_plot(drawn, picture, x=costs, y=quality, title=title)
    if note:
        print(f"{note} --limit and --filter choose others.")
    scope = "" if len(drawn) == num else f" (the picture draws {len(drawn)} of one data set and device)"
    print(f"{num} rows: {out} and {picture}{scope}")


@app.command("import")
def board_import(
    file: Annotated[Path, typer.Argument(help="A leaderboard.db, an exported .csv or .json, or timm's results.csv.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Add other people's rows, marked as imported: they are shown, and never taken for measured here.

    Example: [bold]tutelage leaderboard import colleague/leaderboard.db[/]
    """
    from tutelage.leaderboard.store import Store, import_file
    from tutelage.pipeline.workspace import Workspace

    print(f"{import_file(Store(Workspace(workspace).store), file)} new rows from {file}")


@app.command("migrate")
def board_migrate(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Bring the leaderboard of an older version up to date; older versions of tutelage then cannot open it.

    A verb that only reads never does it, and says that this must be run. A file is copied before; `tutelage run`,
    `import` and `retract`, which write, bring a workspace's own file up to date themselves, a team's server never.

    Example: [bold]tutelage leaderboard migrate[/]
    """
    from tutelage.leaderboard.store.schema import SCHEMA_VERSION
    from tutelage.pipeline.operations.board import bring_up_to_date
    from tutelage.pipeline.workspace import database

    store = bring_up_to_date(database(workspace))
    print(f"{store.name} has schema version {SCHEMA_VERSION}")


@app.command("compare")
def board_compare(
    first: Annotated[str, typer.Argument(help="A row's id; its first digits do.")],
    second: Annotated[str, typer.Argument(help="Another row's id.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Compare two rows, with a paired test by group where both were evaluated on the same images.

    Example: [bold]tutelage leaderboard compare 8576a5ae 0c2e2c63[/]
    """
    from tutelage.leaderboard.terminal.compare import show_comparison
    from tutelage.pipeline.operations.board import open_board
    from tutelage.pipeline.operations.paired import paired_tests

    store = open_board(workspace)
    rows = (store.row(first), store.row(second))
    show_comparison(*rows, Console(markup=False), tests=paired_tests(*rows, workspace))


@app.command("export")
def board_export(
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, json, md, tex or parquet; default: as --out ends, else csv.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="Rows to export.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Superseded and retracted rows, too: two columns say which these are.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Export rows with every column; what was not measured is empty, never 0.

    Example: [bold]tutelage leaderboard export --format csv --out leaderboard.csv[/]
    """
    from tutelage.cli.show import unmatched
    from tutelage.leaderboard.export import FORMATS, pieces, write
    from tutelage.leaderboard.store.ranking import export_parts
    from tutelage.pipeline.operations.board import open_board

    ending = out.suffix.lower().removeprefix(".") if out is not None else ""
    if format_ is not None and ending in FORMATS and ending != format_:
        raise InputError(f"--out {str(out)!r} ends in .{ending} and --format is {format_}: leave one of both out")
    format_ = format_ or (ending if ending in FORMATS else "csv")
    if out is not None:
        check_output(out, "--out", apart_from={"the leaderboard": workspace / "leaderboard.db"})
    store = open_board(workspace)
    if filter_ and not store.count(filter_, every=every):
        for line in unmatched(store, filter_) or [f"{filter_!r} keeps no row"]:
            print(f"note: {line}", file=sys.stderr)
    parts = export_parts(store, filter_, every=every, format=format_)
    if out is not None:
        write(parts, out, format_)
        print(f"wrote {out}")
        return
    for text in pieces(parts, format_):
        print(text, end="")
