"""`tutelage init`: a first recipe for a user's own images, with the reasons for its choices."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, AcceleratorOption, JsonOption, WorkspaceOption
from tutelage.cli.output_files import check_free, check_output

if TYPE_CHECKING:
    from tutelage.pipeline.operations.starting.start import Started


def init(
    device: Annotated[str, typer.Option("--device", help="Device profile that students are to run on.")],
    path: Annotated[
        Path | None,
        typer.Option(help="The images: a folder with one folder a class, a CSV, an archive, hf:owner/name."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="How they are laid out, where it is not seen: {datasets}.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="Latency budget on the device, e.g. 5ms; several (1ms,2ms): a student for each.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", "--max-flash", help="Bytes of the file that is deployed, e.g. 8MB.")
    ] = None,
    max_ram: Annotated[str | None, typer.Option(help="RAM on a microcontroller, TFLite Micro's arena: 512KB.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Energy of an inference as measured, e.g. 3mJ.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Microcontroller to deploy to at int8, whose memories are the bounds, e.g. stm32f746."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    minutes: Annotated[float, typer.Option(help="How long a run may take.")] = 30.0,
    size: Annotated[int | None, typer.Option(help="Image size in pixels; default: chosen.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime of a device that is not known yet: {runtimes}.")] = None,
    add_device: Annotated[
        bool, typer.Option("--add-device", help="Measure this machine under the device's name where it is not known.")
    ] = False,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Time no training step: take rough estimates for a 2-core server.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that --out names.")] = False,
    accelerator: AcceleratorOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Look at your images, choose image size, split, space, weights and epochs, and write a commented recipe.

    Example: [bold]tutelage init --path images/ --device my-laptop --add-device --max-latency 5ms[/]
    Then: [bold]tutelage run recipe.yaml[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations.starting.chosen import Wish
    from tutelage.pipeline.operations.starting.start import look_first, start

    check_output(out, "--out", suffixes=(".yaml", ".yml"))
    wish = Wish(
        device, path, dataset, max_latency, max_size, max_ram, max_energy, target, size, runtime, minutes,
        accelerator or "auto", add_device=add_device, timing=not no_timing,
    )  # fmt: skip
    found = look_first(wish)
    check_free(out, "--out", replace=force)
    with terminal.run_setting(workspace) as setting:
        started = start(wish, found, *setting, out)
    if as_json:
        print(json.dumps(started.to_dict()))
        return
    print_started(started, workspace, Console(markup=False))


def print_started(started: Started, workspace: Path, console: Console) -> None:
    """Say what was found and chosen, what a run will take, and the next command."""
    from tutelage.pipeline.operations.starting.start import words_of

    place = [] if workspace == DEFAULT_WORKSPACE else ["-w", str(workspace)]
    for line in words_of(started, shlex.join(["tutelage", "run", str(started.out), *place])):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
