"""`tutelage bundle`: write the folder that is deployed, and check one before it is trusted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    JsonOption,
    SetOption,
    WorkspaceOption,
    folder_option,
    last_recipe,
)
from tutelage.cli.output_files import check_new_folder, check_output
from tutelage.records import InputError, Row


class _MakeByDefault(TyperGroup):
    """Read `bundle ROW` as `bundle make ROW`: what is no verb of the group is a row."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, "--help"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


class BundleFormat(StrEnum):
    """What a bundle is made for."""

    PYTHON = "python"
    TFLM_C = "tflm-c"


app = typer.Typer(no_args_is_help=True, cls=_MakeByDefault, help="Write the folder that is deployed, or check one.")


@app.command("make")
def bundle_make(
    row: Annotated[
        str | None, typer.Argument(help="A row's id (its first digits do); default: the recipe's best student.")
    ] = None,
    out: Annotated[Path, folder_option(help="Folder to write; it must not exist, or be empty.")] = Path("bundle"),
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Whose best student by validation is meant where no row is; default: of the last search or run."
        ),
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Rows to choose of, e.g. 'scheme=int8-ptq and runtime=openvino'")
    ] = None,
    format_: Annotated[
        BundleFormat,
        typer.Option("--format", help="python: the row's file and predict.py; tflm-c: sources for TFLite Micro, int8."),
    ] = BundleFormat.PYTHON,
    target: Annotated[
        str | None, typer.Option(help="With tflm-c: a device known by its memories, which the network must fit.")
    ] = None,
    set_: SetOption = None,
    note: Annotated[list[str] | None, typer.Option(help="A line for the model card; repeatable.")] = None,
    coreml: Annotated[
        Path | None,
        typer.Option(help="Write the row's network, before int8, as a Core ML program too: a .mlpackage or .mlzip."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Write a row's model with predict.py, labels, thresholds, parity figures, MODEL_CARD.md and every file's hash.

    Example: [bold]tutelage bundle 8576a5ae --out bundle[/]   or   [bold]tutelage bundle --recipe demo --out bundle[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations.bundle import bundle_row, row_of
    from tutelage.pipeline.stages.fits import over_in_bundle
    from tutelage.pipeline.workspace import database

    database(workspace)
    check_new_folder(out, "--out")
    _refuse_without_effect(row, recipe, target, format_, coreml)
    with terminal.run_setting(workspace) as (place, report, threads):
        whose = last_recipe(recipe, workspace) if row is None else ""
        chosen = row_of(place, row, whose, filter_)
        if format_ is BundleFormat.TFLM_C:
            from tutelage.pipeline.operations.micro.bundle import bundle_for_micro

            sources = bundle_for_micro(
                chosen, place, report, threads, out=out, target=target, changes=set_ or (), notes=note or ()
            )
            facts = {"row": chosen.key, "model": chosen.model, "bundle": str(sources.folder)}
            if target is None:  # one that is named refused what it cannot hold
                _warn(
                    chosen, over_in_bundle(chosen, place.path, (sources.flash_bytes, sources.arena_bytes), set_ or ())
                )
            memories = {"flash_bytes": sources.flash_bytes, "ram_bytes": sources.arena_bytes}
            terminal.print_figures({**facts, **memories, **sources.parity}, Console(markup=False), as_json)
            return
        made = bundle_row(chosen, place, report, threads, out=out, changes=set_ or (), notes=note or (), coreml=coreml)
        _warn(chosen, over_in_bundle(chosen, place.path, changes=set_ or ()))
    facts = {"row": chosen.key, "model": chosen.model, "scheme": chosen.scheme}
    extra = {} if coreml is None else {"coreml": str(coreml)}
    terminal.print_figures({**facts, **_facts(made), **extra}, Console(markup=False), as_json)


@app.command("check")
def bundle_check(
    folder: Annotated[Path, typer.Argument(help="A bundle.")],
    as_json: JsonOption = False,
) -> None:
    """Refuse a bundle one byte of which was changed, lost or added; else say what it is.

    Example: [bold]tutelage bundle check bundle[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.quant.bundle.write import load_bundle

    terminal.print_figures(_facts(load_bundle(folder)), Console(markup=False), as_json)


def _refuse_without_effect(
    row: str | None, recipe: str | None, target: str | None, format_: BundleFormat, coreml: Path | None
) -> None:
    """Refuse options that would be ignored, and a place where no Core ML program could be written."""
    if row is not None and recipe is not None:
        raise InputError("--recipe has no effect where a row is named: leave one of both out")
    if target is not None and format_ is not BundleFormat.TFLM_C:
        raise InputError(f"--target {target} has no effect on a bundle of Python: add --format tflm-c, or leave it out")
    if coreml is not None and format_ is BundleFormat.TFLM_C:
        raise InputError(f"--coreml {coreml} has no effect beside --format tflm-c: leave one of both out")
    if coreml is not None and not coreml.is_dir():
        check_output(coreml, "--coreml", makes_folder=coreml.suffix == ".mlpackage")


def _warn(row: Row, over: Sequence[str]) -> None:
    for line in over:
        print(f"warning: {row.model} {row.scheme}: {line}", file=sys.stderr)


def _facts(bundle: object) -> dict[str, object]:
    from tutelage.quant.bundle.write import Bundle

    assert isinstance(bundle, Bundle)
    parity = bundle.parity
    return {
        "bundle": str(bundle.folder),
        "manifest_id": bundle.manifest_id,
        "runtime": bundle.runtime,
        "labels": ", ".join(bundle.labels),
        "input": f"{bundle.preprocess.channels} x {bundle.preprocess.height} x {bundle.preprocess.width}",
        "validation_images": parity.num_images,
        "largest_difference": parity.largest_difference,
        "mean_difference": parity.mean_difference,
        "same_top1": parity.same_top1,
        "evaluated_difference": parity.evaluated_difference,
    }
