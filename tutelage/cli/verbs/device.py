"""`tutelage device`: add, list and show the devices that budgets are held on."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from tutelage.cli.registry_help import RegistryCommand
from tutelage.records import InputError

DEFAULT_MINUTES = 3.0
# With 64 px, one channel and four classes what the demo searches, so that a search without a recipe fits the device.
MEASURED_SPACE = "mbconv_small_w1.0"
IMPORTED_SPACE = "ofa_mbv3_w1.0"  # published times are mostly of its networks

NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Export all networks anew, and keep none in ~/.cache/tutelage/exports."),
]

app = typer.Typer(no_args_is_help=True, help="Add, list and check the devices that budgets are held on.")


@app.command("add", cls=RegistryCommand)
def device_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new profile.")],
    runtime: Annotated[
        str, typer.Option(help="One of: {runtimes}; `tutelage doctor` says which are installed.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="Threads the runtime may use.")] = 1,
    batch: Annotated[int, typer.Option(help="Images a call.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8, as the runtime has it.")] = "fp32",
    space: Annotated[
        str | None,
        typer.Option(
            help=f"Space whose blocks are measured; default {MEASURED_SPACE}, the demo's, and with --from-measurements "
            f"{IMPORTED_SPACE}. One of: {{spaces}}."
        ),
    ] = None,
    resolution: Annotated[
        list[int] | None,
        typer.Option("--resolution", "--side", help="Input size in pixels; repeatable; default 64."),
    ] = None,
    channels: Annotated[int, typer.Option(help="Input channels.")] = 1,
    classes: Annotated[int, typer.Option(help="Classes of the head.")] = 4,
    minutes: Annotated[
        float | None, typer.Option(help="How long it may take, default 3; more measures again until it is sure.")
    ] = None,
    nets: Annotated[
        int | None,
        typer.Option(
            help="Measure so many whole networks and no blocks; default 8 beside a table of blocks, 12 where a runtime "
            "loads too slowly for one."
        ),
    ] = None,
    from_measurements: Annotated[
        Path | None,
        typer.Option(
            help="CSV, JSON or npz (arch, ms), or OFA's latency table: measured elsewhere, predicted, never run here."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of times in --from-measurements, where there are several.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=VALUE: which measurements, of a file of several devices; repeatable."),
    ] = None,
    ssh: Annotated[str | None, typer.Option(help="USER@HOST of a device reached by ssh.")] = None,
    adb: Annotated[
        str | None,
        typer.Option(help="Serial of a phone or board behind adb, which needs no Python; auto: the only one."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Boards of a Ray cluster that offer the resource device:NAME; RAY_ADDRESS says which."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="Launcher with {runner} and {folder}, or a program that speaks the device protocol."),
    ] = None,
    benchmark_program: Annotated[
        str | None, typer.Option(help="With --adb: the runtime's own benchmark program, built for that device.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option(help="Cores to pin to, e.g. 4-7; with --adb by default the fastest.")
    ] = None,
    here: Annotated[
        bool,
        typer.Option(
            "--here",
            help="The times of --from-measurements are this machine's: it can be measured; with --like: measure it.",
        ),
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            help="An entry of `tutelage device catalogue`: its profile is copied, or gives the defaults of one that is "
            "measured (--ssh, --adb, --pool, --command, --here, --from-measurements)."
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="Fit the model from those of the catalogue's devices and --nets networks of this one (default 10, of "
            "a file all), unless that predicts networks left out worse than fitting afresh.",
        ),
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="With --transfer: a profile or an entry to transfer from; repeatable; default: the catalogue."
        ),
    ] = None,
    no_cache: NoCacheOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Measure this host, or one behind ssh, with a runtime and fit a latency model, so that budgets can be held on it.

    Example: [bold]tutelage device add my-laptop --runtime openvino --threads 2 --resolution 64[/]
    Behind ssh: [bold]tutelage device add board --ssh me@board --resolution 64 --minutes 5[/]
    A phone: [bold]tutelage device add pixel --adb auto --runtime litert --benchmark-program benchmark_model[/]
    From a file: [bold]tutelage device add phone --runtime litert --from-measurements times.csv[/]
    From the catalogue: [bold]tutelage device add my-gpu --like titan-rtx[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.pipeline.operations.catalogue import copy_entry, start_from
    from tutelage.pipeline.operations.devices import (
        DeviceRequest,
        add_device,
        checked_cores,
        checked_reach,
        checked_space,
    )

    given = {"--resolution": resolution, "--minutes": minutes, "--nets": None if transfer else nets}
    given["--no-cache"] = no_cache or None
    unused = [option for option, value in given.items() if value is not None]
    if from_measurements is not None and unused:
        raise InputError(f"{unused[0]} has no effect on times that were measured before: leave it out")
    request = DeviceRequest(
        name,
        runtime,
        checked_space(space or (IMPORTED_SPACE if from_measurements else MEASURED_SPACE), resolution or (64,)),
        classes,
        channels,
        threads,
        batch,
        precision,
        minutes=DEFAULT_MINUTES if minutes is None else minutes,
        nets=nets,
        ssh=checked_reach("--ssh", ssh),
        adb=checked_reach("--adb", adb),
        pool=checked_reach("--pool", pool),
        command=checked_reach("--command", command),
        program=checked_reach("--benchmark-program", benchmark_program),
        cores=checked_cores(cores),
        here=here,
        column=column or "",
        where=tuple(where or ()),
        sources=tuple(source or ()) if transfer else None,
        keep_exports=not no_cache,
    )
    if source and not transfer:
        raise InputError("--source says what --transfer transfers from: add --transfer, or leave it out")
    settings = _given(context)
    ways = (request.ssh, request.adb, request.pool, request.command)
    reached = any(ways) or here or from_measurements is not None
    if transfer and like is not None and not reached:
        raise InputError(
            "--transfer has no effect on a copy: say how the device is reached, or give measurements of it"
        )
    if like is not None and no_cache and not reached:
        raise InputError("--no-cache has no effect on a copy, for which nothing is exported: leave it out")
    if like is not None and reached:
        request = start_from(request, like, settings, imported=from_measurements is not None)
    begun = time.monotonic()
    with terminal.run_setting(workspace) as (place, report, _):
        if like is not None and not reached:
            found = copy_entry(place, name, like, settings)
        else:
            found = add_device(place, report, request, from_measurements)
    terminal.print_added(found, place.path / "devices", time.monotonic() - begun, Console(markup=False), as_json)


def _given(context: typer.Context) -> set[str]:
    """Name the options of `device add` on the command line that say what is measured and how."""
    options = [
        *("runtime", "threads", "batch", "precision", "space", "resolution", "channels", "classes", "minutes"),
        *("nets", "column", "where", "cores", "benchmark_program"),
    ]
    sources = {option.replace("_", "-"): context.get_parameter_source(option) for option in options}
    return {option for option, source in sources.items() if source is not None and source.name != "DEFAULT"}


@app.command("check")
def device_check(
    name: Annotated[str, typer.Argument(help="A profile; with --publish also the folder of one.")],
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            help="Write the profile as a folder for the catalogue, or check such a folder; nothing is measured.",
        ),
    ] = False,
    reanchor: Annotated[
        bool,
        typer.Option(
            "--reanchor", help="Measure three subnets and file the model's scale and the device's versions of now."
        ),
    ] = False,
    no_cache: NoCacheOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Measure other subnets on a known device and say whether its profile still holds, and what changed there.

    Example: [bold]tutelage device check host-ort-64px[/]
    After an update, or where all times drifted alike: [bold]tutelage device check host-ort-64px --reanchor[/]
    To contribute it: [bold]tutelage device check host-ort-64px --publish[/]
    """
    from tutelage.cli import inventory
    from tutelage.cli import output as terminal
    from tutelage.cli.catalogue import print_contribution
    from tutelage.pipeline.operations.catalogue import publish_device
    from tutelage.pipeline.operations.devices import check_device

    if publish:
        for option, given in {"--no-cache": no_cache, "--reanchor": reanchor}.items():
            if given:
                raise InputError(f"{option} has no effect with --publish, which measures nothing: leave it out")
        print_contribution(publish_device(workspace, name), Console(markup=False), as_json)
        return
    with terminal.run_setting(workspace) as (place, report, _):
        found = check_device(place, report, name, keep_exports=not no_cache, anew=reanchor)
    facts = {
        "device": name,
        "holds": found.holds,
        "drift": found.drift,
        "mean_error_of_predictions": found.error,
        "fraction_inside_interval": found.covered,
        "common_factor": found.correction.to_dict() if as_json else found.correction.summary(),
        "changes": list(found.changes) if as_json else "; ".join(found.changes) or "none",
        "reanchored": found.reanchored,
    }
    terminal.print_figures(facts, Console(markup=False), as_json)
    if not as_json:
        inventory.print_drift(found, Console(markup=False))


@app.command("remove")
def device_remove(name: str, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Remove a profile and its latency model from the workspace or the user's folder.

    Example: [bold]tutelage device remove my-laptop[/]
    """
    from tutelage.bench.devices.profiles import remove_profile
    from tutelage.pipeline.workspace import Workspace

    # A profile of the user's own folder can be removed where there is no workspace, and none is made for it.
    with Workspace(workspace).locked() if workspace.is_dir() else nullcontext():
        removed = remove_profile(name, workspace)
    for path in removed:
        print(f"removed {path}")


@app.command("list")
def device_list(workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """List the profiles of the workspace, the user's folder and the package, and pools of boards: who is up and waits.

    Example: [bold]tutelage device list[/]
    """
    from tutelage.bench.devices.profiles import list_profiles
    from tutelage.cli import inventory
    from tutelage.pipeline.operations.pools import pools_of

    if not workspace.is_dir() and workspace != DEFAULT_WORKSPACE:
        print(f"note: there is no workspace {workspace}: the profiles of others are listed", file=sys.stderr)
    profiles = list_profiles(workspace)
    inventory.print_devices(profiles, Console(markup=False), as_json, pools_of([one for one, _ in profiles], workspace))


@app.command("catalogue")
def device_catalogue(as_json: JsonOption = False) -> None:
    """List the profiles that come with the package: how each was made, when, and its error on networks left out.

    Example: [bold]tutelage device catalogue[/]
    """
    from tutelage.bench.devices.entries import list_entries
    from tutelage.cli.catalogue import print_catalogue

    print_catalogue(list_entries(), Console(markup=False), as_json)


@app.command("show")
def device_show(name: str, workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """Show one profile: what it is, how steady, and the error of its latency model.

    Example: [bold]tutelage device show host-ort[/]
    """
    from tutelage.bench.devices.profiles import find_profile
    from tutelage.cli import output as terminal

    terminal.print_device(find_profile(name, workspace)[0], Console(markup=False), as_json)
