"""The command line: one short function a verb, which reads options, calls the pipeline and prints the result."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from tutelage.records import InfeasibleBudgetError, InputError, UnsteadyDeviceError

from .options import DEFAULT_WORKSPACE, JsonOption, RecipeOption, SetOption, WorkspaceOption
from .output_files import check_folder, check_output
from .registry_help import RegistryCommand
from .verbs import bundle, data, device
from .verbs import leaderboard as board

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.add_typer(device.app, name="device")
app.add_typer(board.app, name="leaderboard")
app.add_typer(data.app, name="data")
app.add_typer(bundle.app, name="bundle")

EXIT_BAD_INPUT, EXIT_INFEASIBLE, EXIT_UNSTEADY, EXIT_INTERRUPTED = 2, 3, 4, 130
# What typer raises for a wrong option; it carries a click of its own, or uses the one that is installed.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
EXIT_TERMINATED = 128 + signal.SIGTERM


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Find small image classifiers that fit a device, distil them, compress them, and show where they stand."""
    if version:
        import tutelage

        print(f"tutelage {tutelage.__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe or a YAML file.")],
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do this recipe's stages again; what older rows refer to is kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe from images to the leaderboard; stopped, it goes on where it was.

    Example: [bold]tutelage run demo[/]   or   [bold]tutelage run pneumoniamnist --set data.path=pneumoniamnist.npz[/]
    """
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.recipe import load_recipe

    from . import output as terminal

    chosen = load_recipe(recipe, set_ or ())
    if follow(chosen, workspace, terminal.cores()):
        return
    with terminal.run_setting(workspace) as setting, leading():
        if fresh:
            setting[0].start_over(chosen.name)
        searched, published = pipeline.run(chosen, *setting)
    if as_json:
        print(json.dumps([row.to_dict() for row in published.rows]))
        return
    terminal.print_run(searched, published, Console())


@app.command(cls=RegistryCommand)
def search(
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Device profile to hold budgets on; repeatable.")
    ] = None,
    max_latency: Annotated[str | None, typer.Option(help="Latency budget on those devices, e.g. 5ms.")] = None,
    risk: Annotated[
        float | None, typer.Option(help="Probability that a subnet breaks its latency budget: 0.05 holds it to 95 %.")
    ] = None,
    max_macs: Annotated[str | None, typer.Option(help="Multiply-accumulates, e.g. 100M.")] = None,
    max_params: Annotated[str | None, typer.Option(help="Parameters, e.g. 3M.")] = None,
    max_size: Annotated[str | None, typer.Option(help="fp32 bytes, e.g. 8MB.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Space of architectures, those with _stem1 for small images. One of: {spaces}.",
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set: {datasets}; see `tutelage data list`.")] = None,
    path: Annotated[Path | None, typer.Option(help="Folder or file of the data set.")] = None,
    evals: Annotated[int | None, typer.Option(help="Subnets to score.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Search strategy. One of: {strategies:help}.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    supernet_weights: Annotated[
        Path | None, typer.Option(help="Official or own supernet weights to start from.")
    ] = None,
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Find the best subnets within a budget; finalists are measured again on the device.

    Example: [bold]tutelage search --device host-ort --max-latency 1.5ms --max-params 3M --evals 100[/]
    """
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.operations import single_stage
    from tutelage.pipeline.recipe import load_recipe, with_options

    from . import output as terminal

    options: dict[str, object] = {
        "search.max_macs": max_macs,
        "search.max_params": max_params,
        "search.max_size": max_size,
    }
    options |= {"supernet.space": space, "data.dataset": dataset, "data.path": path, "search.evaluations": evals}
    options |= {"search.strategy": strategy}
    options |= {"seed": seed, "supernet.weights": supernet_weights}
    base = load_recipe(recipe, set_ or ())
    devices = single_stage.named_devices(base, device or (), max_latency, workspace, risk)
    chosen = with_options(base, options, devices)
    terminal.note_budget(max_latency, risk, None if device else devices)
    if follow(chosen, workspace, terminal.cores()):
        return
    with terminal.run_setting(workspace) as setting, leading():
        searched = pipeline.search(chosen, *setting)
    if as_json:
        print(json.dumps({**searched.found.result.to_dict(), "verified": searched.found.to_dict()}))
        return
    terminal.print_search(searched, Console())


@app.command(cls=RegistryCommand)
def distill(
    arch: Annotated[
        Path | None, typer.Option(help="JSON of one architecture to train; default: the search's winners.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="What is compared with the teacher: {losses}.")] = None,
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Train the winners with each teacher, with all and with none; validation figures only, the test split is not used.

    Example: [bold]tutelage distill --recipe demo --set distill.epochs=5[/]
    """
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.operations import single_stage
    from tutelage.pipeline.recipe import load_recipe, with_options

    from . import output as terminal

    chosen = with_options(load_recipe(recipe, set_ or ()), {"distill.method": method})
    if follow(chosen, workspace, terminal.cores()):
        return
    with terminal.run_setting(workspace) as setting, leading():
        students = single_stage.teach_file(chosen, *setting, path=arch) if arch else pipeline.distill(chosen, *setting)
    if as_json:
        print(json.dumps([student.to_dict() for student in students]))
        return
    terminal.print_students(students, workspace, Console())


@app.command(cls=RegistryCommand)
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
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Quantize an ONNX model to int8, calibrated on the recipe's training images, and compare it on validation.

    Example: [bold]tutelage quantize student.onnx --out student.int8.onnx --max-drop 0.5 --device host-ort-64px[/]
    Quantization-aware training needs the student: [bold]tutelage run demo --set quantize.qat_epochs=3[/]
    """
    from tutelage.pipeline.operations import quantize as quantizing
    from tutelage.pipeline.recipe import load_recipe, with_options

    from . import output as terminal

    options: dict[str, object] = {"quantize.method": method, "quantize.calibration_images": images}
    chosen = with_options(load_recipe(recipe, set_ or ()), options | {"quantize.max_drop": max_drop})
    check_output(out, "--out", suffixes=(".onnx", ".xml"), apart_from={"the model that is read": model})
    if picture is not None:
        check_output(picture, "--picture", suffixes=(".png", ".svg"), apart_from={"the model": model, "--out": out})
    with terminal.run_setting(workspace) as setting:
        figures = quantizing.quantize_file(chosen, *setting, model=model, out=out, device=device, picture=picture)
    terminal.print_figures(figures, Console(), as_json)


@app.command()
def bench(
    model: Annotated[
        Path, typer.Argument(help="An .onnx (converted for the device if need be), .xml, .tflite, .pt2, .pte.")
    ],
    device: Annotated[str, typer.Option("--device", help="Device profile; see `tutelage device list`.")],
    side: Annotated[
        int | None, typer.Option(min=1, max=8192, help="Input size in pixels, where the file does not fix it.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Measure throughput over batch sizes too.")] = False,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, max=65536, help="Batch size of --offline; repeatable.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of image files: time their pre-processing too.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a device by the protocol in the README: p50, p90, p99, memory, load time.

    Example: [bold]tutelage bench student.int8.onnx --device host-ort[/]
    """
    from tutelage.bench.protocol.offline import BATCHES
    from tutelage.pipeline.operations import single_stage

    from . import output as terminal

    sizes = tuple(batch or BATCHES) if offline or batch else ()
    with terminal.run_setting(workspace) as (space, report, _):
        figures = single_stage.bench_file(
            space, report, model=model, device=device, side=side, offline=sizes, images=images
        )
    terminal.print_figures(figures, Console(), as_json)


@app.command()
def explain(
    method: Annotated[str, typer.Option(help="scorecam, gradcam, hirescam or eigencam.")] = "gradcam",
    images: Annotated[int, typer.Option(min=1, help="Validation images to explain.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("explanations"),
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Draw saliency maps of teachers and students side by side, and measure their faithfulness and agreement.

    Example: [bold]tutelage explain --recipe demo --method scorecam --images 4[/]
    """
    from tutelage.pipeline.operations.explain import explain_recipe
    from tutelage.pipeline.recipe import load_recipe

    from . import output as terminal

    chosen = load_recipe(recipe, set_ or ())
    check_folder(out, "--out")
    with terminal.run_setting(workspace) as setting:
        figures = explain_recipe(chosen, *setting, method=method, num_images=images, out=out)
    terminal.print_explanations(figures, out, Console(), as_json)


@app.command()
def reproduce(
    row: Annotated[str, typer.Argument(help="A row's id; `tutelage leaderboard show` prints them.")],
    into: Annotated[Path, typer.Option(help="Workspace of the new run.")] = Path("tutelage-reproduced"),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Run the recipe that made a row again, elsewhere, and say which figures are the same.

    Example: [bold]tutelage reproduce 8576a5ae[/]
    """
    from tutelage.pipeline.operations.reproduce import check_place
    from tutelage.pipeline.operations.reproduce import reproduce as run_again

    from . import output as terminal

    check_place(workspace, into)
    with terminal.run_setting(into) as (place, report, threads):
        agreement = run_again(row, workspace, place, report, threads)
    terminal.print_agreement(agreement, Console(), as_json)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has: cores, runtimes, versions, and what is missing with the command that adds it.

    Example: [bold]tutelage doctor[/]
    """
    from tutelage.cli import inventory

    inventory.print_doctor(Console(), as_json)


def main() -> None:
    """Run the command line; every failure that a user can mend is one line and an exit code."""
    _quiet_threads()
    _tidy_when_terminated()
    codes = {InputError: EXIT_BAD_INPUT, InfeasibleBudgetError: EXIT_INFEASIBLE, UnsteadyDeviceError: EXIT_UNSTEADY}
    stopped = {EXIT_INTERRUPTED: "interrupted", EXIT_TERMINATED: "terminated"}
    try:
        _refuse_bytes(sys.argv[1:])
        code = app(standalone_mode=False, prog_name="tutelage")
    except tuple(codes) as error:
        _told(str(error), codes[type(error)])
    except _USAGE_ERROR as error:
        _tell_usage(error)
    except OSError as error:  # a disk that is full, a file that may not be read or written
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _told(f"{error.filename or 'the disk'}: {error.strerror}", EXIT_BAD_INPUT)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else stop.code
        if code not in stopped:
            raise
    if code in stopped:  # typer turns Ctrl-C into its exit code
        command = "the same command without --fresh" if "--fresh" in sys.argv[1:] else "the same command"
        _told(f"{stopped[code]}; {command} goes on where it was", code)
    sys.exit(code if isinstance(code, int) else 0)


def _told(text: str, code: int) -> NoReturn:
    print("tutelage: " + " ".join(text.splitlines()), file=sys.stderr)
    sys.exit(code)


def _tell_usage(error: Exception) -> NoReturn:
    """Say in one line which option or argument is wrong; where nothing was given, the help was printed already."""
    context, message = getattr(error, "ctx", None), getattr(error, "format_message", lambda: str(error))()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        sys.exit(EXIT_BAD_INPUT)
    verb = context.command_path if context is not None else "tutelage"
    if isinstance(error.__cause__, ValidationError):  # typer leaves the value out
        message += f", got {error.__cause__.errors()[0]['input']!r}"
    _told(f"{' '.join(message.split()).removesuffix('.')}. See `{verb} --help`.", EXIT_BAD_INPUT)


def _refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse an argument that is not UTF-8: it could neither be hashed into a stage nor written into a file."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"{argument!r} is not UTF-8: rename the file, or write the text in UTF-8") from None


def _tidy_when_terminated() -> None:
    """Leave as after Ctrl-C when a scheduler or `kill` ends the run: workers stopped, temporary folders removed."""
    owner = os.getpid()

    def leave(signum: int, frame: object) -> None:
        if os.getpid() != owner:  # a forked worker dies as it would have
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        raise SystemExit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, leave)


def _quiet_threads() -> None:
    """Own the cores: a thread a core for this process, and threads that soon sleep while they wait.

    OpenMP threads spin while they wait, by default for so long that two processes on the same cores were measured 30
    times slower than one. After 1,000 spins they sleep: as fast as spinning on a quiet host, and fair on a busy one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
