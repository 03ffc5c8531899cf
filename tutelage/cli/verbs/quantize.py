"""`tutelage quantize`: quantize an ONNX file to int8."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    JsonOption,
    LastRecipeOption,
    SetOption,
    WorkspaceOption,
    last_recipe,
)
from tutelage.cli.output_files import check_output


def quantize(
    model: Annotated[Path, typer.Argument(help="An fp32 ONNX file, e.g. one that `tutelage run` left in artifacts.")],
    out: Annotated[Path, typer.Option(help="Where the int8 model goes: .onnx, or .xml for OpenVINO.")],
    method: Annotated[
        str | None, typer.Option(help="How: auto (of ranges, the best on validation), or one of {schemes}.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Training images to calibrate on, drawn by class.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of validation accuracy that int8 may lose; layers go back to float.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Measure here, and keep the fastest of what holds --max-drop.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG or SVG of each layer's quantization noise.")] = None,
    start: Annotated[
        str | None, typer.Option("--input", help="Tensor where the network starts, where a file has several inputs.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--output", help="Tensor of the classes' logits, where a file has several outputs.")
    ] = None,
    recipe: LastRecipeOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Quantize an ONNX model to int8, calibrated on the recipe's training images, and compare it on validation.

    Example: [bold]tutelage quantize student.onnx --out student.int8.onnx --max-drop 0.5 --device host-ort-64px[/]
    Quantization-aware training needs the student: [bold]tutelage run demo --set quantize.qat_epochs=3[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations import quantize as quantizing
    from tutelage.pipeline.recipe import load_recipe, with_options

    options: dict[str, object] = {"quantize.method": method, "quantize.calibration_images": images}
    chosen = with_options(
        load_recipe(last_recipe(recipe, workspace), set_ or ()), options | {"quantize.max_drop": max_drop}
    )
    check_output(
        out, "--out", suffixes=(".onnx", ".xml"), apart_from={"the model that is read": model}, makes_folder=True
    )
    if picture is not None:
        others = {"the model": model, "--out": out}
        check_output(picture, "--picture", suffixes=(".png", ".svg"), apart_from=others, makes_folder=True)
    with terminal.run_setting(workspace) as setting:
        figures = quantizing.quantize_file(
            chosen, *setting, model=model, out=out, device=device, picture=picture, start=start or "", end=end or ""
        )
    terminal.print_figures(figures, Console(markup=False), as_json)
