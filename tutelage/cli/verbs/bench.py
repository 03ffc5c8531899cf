"""`tutelage bench`: measure a model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from tutelage.cli.output_files import check_output
from tutelage.records import InputError

_PICTURES = (".png", ".svg", ".pdf")


def bench(
    model: Annotated[
        Path, typer.Argument(help="An .onnx (converted for the device if need be), .xml, .tflite, .pt2, .pte.")
    ],
    device: Annotated[str, typer.Option("--device", help="Device profile; see `tutelage device list`.")],
    resolution: Annotated[
        int | None,
        typer.Option("--resolution", "--side", min=1, max=8192, help="Input resolution in pixels, where not fixed."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Measure throughput over batch sizes too.")] = False,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, max=65536, help="Batch size of --offline; repeatable.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of image files: time their pre-processing too.")] = None,
    entry: Annotated[
        str,
        typer.Option("--input", help="Input of an .onnx file that takes the image; the others are given zeros."),
    ] = "",
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Profile it instead: time a layer, what ran it, what was not quantized."),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="With --layers: draw the bars there, .png, .svg or .pdf.")
    ] = None,
    arch: Annotated[
        Path | None,
        typer.Option(
            help="With --layers: the network's architecture, JSON; shows the latency model's times of blocks."
        ),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a device by the measuring protocol: p50, p90, p99, memory, load time.

    Example: [bold]tutelage bench student.int8.onnx --device host-ort[/]
    Where the time goes: [bold]tutelage bench student.int8.onnx --device host-ort --layers --picture layers.png[/]
    """
    from tutelage.bench.protocol.offline import BATCHES
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations import single_stage

    if layers:
        others = {"--offline": offline, "--batch": batch, "--images": images, "--input": entry}
        if unused := [option for option, value in others.items() if value]:
            raise InputError(f"{unused[0]} has no effect with --layers, which measures no latency: leave one out")
        _profile(model, device, resolution, arch, picture, workspace, as_json)
        return
    if unused := [option for option, value in (("--picture", picture), ("--arch", arch)) if value is not None]:
        raise InputError(f"{unused[0]} belongs to --layers: add it, or leave {unused[0]} out")
    sizes = tuple(batch or BATCHES) if offline or batch else ()
    with terminal.run_setting(workspace) as (space, report, _):
        figures = single_stage.bench_file(
            space, report, model=model, device=device, resolution=resolution, offline=sizes, images=images, entry=entry
        )
    terminal.print_figures(figures, Console(markup=False), as_json)


def _profile(
    model: Path,
    device: str,
    resolution: int | None,
    arch: Path | None,
    picture: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    from tutelage.cli import output as terminal
    from tutelage.cli.layers import draw_layers, print_layers
    from tutelage.pipeline.operations.layers import bench_layers

    if picture is not None:
        others = {"the model": model} | ({} if arch is None else {"--arch": arch})
        check_output(picture, "--picture", suffixes=_PICTURES, apart_from=others)
    with terminal.run_setting(workspace) as (space, _, _):
        found = bench_layers(space, model=model, device=device, resolution=resolution, arch=arch)
    print_layers(found, Console(markup=False), as_json)
    if picture is not None:
        draw_layers(found, picture)
