"""`tutelage bench`: measure a model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption


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
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a device by the measuring protocol: p50, p90, p99, memory, load time.

    Example: [bold]tutelage bench student.int8.onnx --device host-ort[/]
    """
    from tutelage.bench.protocol.offline import BATCHES
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations import single_stage

    sizes = tuple(batch or BATCHES) if offline or batch else ()
    with terminal.run_setting(workspace) as (space, report, _):
        figures = single_stage.bench_file(
            space, report, model=model, device=device, resolution=resolution, offline=sizes, images=images, entry=entry
        )
    terminal.print_figures(figures, Console(), as_json)
