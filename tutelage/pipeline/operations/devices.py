"""Device profiles outside a run: add one (`add_device`), and measure a known one again (`check_device`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tutelage.bench.boards.adb import PREFIX, Adb
from tutelage.bench.boards.android import core_list
from tutelage.bench.boards.pool import POOL
from tutelage.bench.converters.exports import ExportCache, export_cache
from tutelage.bench.devices.check import DeviceCheck, check_profile, reanchor
from tutelage.bench.devices.device import make_profile
from tutelage.bench.devices.entries import transfer_sources
from tutelage.bench.devices.imported import import_profile
from tutelage.bench.devices.profiles import check_name, find_profile, load_latency_model, profile_names
from tutelage.bench.latency.labels import MIN_NETS
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.transfer import MIN_TRANSFER_NETS
from tutelage.bench.programs.entry import program_of
from tutelage.bench.protocol.host import check_threads
from tutelage.bench.protocol.remote import check_reachable
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.pipeline.runtime_files import FREE_BATCH, Shape, export_network
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.records import UNREACHABLE, Arch, DeviceProfile, InputError
from tutelage.search.costs.counts import BlockSpec
from tutelage.search.spaces.space import Space, find_space
from tutelage.search.supernet import build_arch, build_block

NETS, NETS_WITHOUT_TABLE = 8, 12
MOST_NETS = 100
# What is exported for a profile must fit into memory: a recipe's images are 16 to 1,024 pixels wide and high, too.
MIN_SIDE, MAX_SIDE = 16, 1024
MAX_CLASSES, MAX_CHANNELS, MAX_BATCH = 100_000, 64, 4096
CALIBRATION_IMAGES = 4  # of noise: what is quantized here is timed, not evaluated


@dataclass(frozen=True)
class DeviceRequest:
    """A device to be measured: how models run there, and the networks its latency model covers."""

    name: str
    runtime: str
    space: Space
    num_classes: int
    channels: int
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    minutes: float = 3.0
    nets: int | None = None  # whole networks that are measured first, and then no blocks; None: as the runtime needs
    tolerance: float = 0.05
    ssh: str = ""
    adb: str = ""  # the serial of a device that runs its runtime's benchmark program; auto: the only one
    pool: str = ""  # of boards in a Ray cluster
    command: str = ""
    program: str = ""  # the file of that benchmark program
    cores: tuple[int, ...] = ()  # that inferences are pinned to
    here: bool = False  # measurements that are imported were made on this machine
    column: str = ""  # of an imported file: which column of times
    where: tuple[str, ...] = ()  # of an imported file: COLUMN=VALUE, which measurements
    sources: tuple[str, ...] | None = None  # devices that the model is transferred from; None: it is fitted afresh
    keep_exports: bool = True  # exported networks are kept for the user's other devices and workspaces


def checked_resolutions(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Give the input sizes that a device is to be measured at, in pixels; refuse ones that no network is built for."""
    if any(not MIN_SIDE <= one <= MAX_SIDE for one in resolutions):
        raise InputError(f"--resolution is {', '.join(map(str, resolutions))}: give {MIN_SIDE} to {MAX_SIDE} pixels")
    return tuple(resolutions)


def checked_space(name: str, resolutions: Sequence[int]) -> Space:
    """Give the space whose blocks are measured, at these input sizes in pixels; an unknown name is an error."""
    return find_space(name).with_resolutions(checked_resolutions(resolutions))


def checked_reach(option: str, value: str | None) -> str:
    """Give how a device is reached, empty where the option is not given.

    `--ssh "$BOARD"` with an unset variable must not measure this machine in the board's place.
    """
    if value is not None and not value.strip():
        raise InputError(
            f"{option} is empty: say how the device is reached, or leave the option out to measure this machine"
        )
    return value or ""


def checked_name(workspace: Workspace, name: str) -> str:
    """Give the name of a new profile. Raises InputError for one that exists, or that is no name."""
    check_name(name)
    if name in profile_names(workspace.path):
        raise InputError(f"device {name!r} exists: take another name, or `tutelage device remove {name}`")
    return name


def add_device(
    workspace: Workspace, report: Report, request: DeviceRequest, from_measurements: Path | None = None
) -> DeviceProfile:
    """Measure a new device, or fit one to a file of measurements made elsewhere.

    An existing name is refused, so that no profile changes under a run.
    """
    if not 0 < request.minutes < 24 * 60:
        raise InputError(
            f"--minutes is {request.minutes:g}: give the minutes that measuring may take, 3 or more are good"
        )
    if not (1 <= request.num_classes <= MAX_CLASSES and 1 <= request.channels <= MAX_CHANNELS):
        raise InputError(
            f"{request.num_classes} classes and {request.channels} channels: give 1 to {MAX_CLASSES} classes and 1 to "
            f"{MAX_CHANNELS} channels"
        )
    checked_resolutions(request.space.resolutions)
    if request.sources is not None and request.nets is not None and request.nets < MIN_TRANSFER_NETS:
        raise InputError(f"--nets is {request.nets}: --transfer takes {MIN_TRANSFER_NETS} networks or more")
    if request.nets is not None and not MIN_NETS <= request.nets <= MOST_NETS:
        raise InputError(f"--nets is {request.nets}: give {MIN_NETS} to {MOST_NETS} networks, or leave it out")
    if not 1 <= request.batch <= MAX_BATCH:
        raise InputError(f"batch is {request.batch}: give the images of one call, 1 to {MAX_BATCH}")
    checked_name(workspace, request.name)
    if request.here and from_measurements is None:
        raise InputError(
            "--here says where the times of --from-measurements were taken: give the file, or leave it out"
        )
    check_reach(request)
    if request.here:
        check_threads(request.threads, device=request.name)
    if request.adb:
        program = str(Path(request.program).expanduser().resolve()) if request.program else ""
        request = replace(request, ssh=f"{PREFIX}{Adb(request.adb).serial}", adb="", program=program)
    if request.pool:
        request = replace(request, ssh=f"{POOL}{request.pool}", pool="")
    if from_measurements is None and (request.column or request.where):
        raise InputError("--column and --where choose among the times of --from-measurements: give the file")
    sources = None
    if request.sources is not None:
        sources = transfer_sources(request.sources, workspace.path)
        if from_measurements is None:  # of a file without --nets, all networks are used
            request = replace(request, nets=request.nets or MIN_TRANSFER_NETS)
    elif from_measurements is not None and request.nets is not None:
        raise InputError("--nets has no effect on times that were measured before: leave it out, or add --transfer")
    if from_measurements is None:
        return measure_device(workspace, report, request, sources)
    return import_profile(
        request.name,
        from_measurements,
        runtime=request.runtime,
        folder=workspace.path / "devices",
        threads=request.threads,
        batch=request.batch,
        precision=request.precision,
        num_classes=request.num_classes,
        in_channels=request.channels,
        space=request.space.name,
        host="local" if request.here else request.ssh or UNREACHABLE,
        command=request.command,
        program=request.program,
        cores=request.cores,
        column=request.column,
        where=request.where,
        nets=request.nets,
        sources=sources,
    )


def check_reach(request: DeviceRequest) -> None:
    """Refuse several ways to one device, and what belongs to another way."""
    ways = {"--ssh": request.ssh, "--adb": request.adb, "--pool": request.pool, "--command": request.command}
    given = [option for option, value in ways.items() if value] + (["--here"] if request.here else [])
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: the device is reached in one way, or is this machine")
    if request.program and not request.adb:
        raise InputError("--benchmark-program is what a device of --adb runs: give its serial, or leave it out")
    if request.adb:
        program_of(find_runtime(request.runtime))


def checked_cores(text: str | None) -> tuple[int, ...]:
    """Read cores, e.g. `4-7` or `6,7`; none where the option is not given."""
    if text is None:
        return ()
    try:
        cores = tuple(core_list(text))
    except ValueError:
        cores = ()
    if not cores:
        raise InputError(f"--cores is {text!r}: give the numbers of cores, e.g. 4-7 or 6,7")
    return cores


def int8_block_runtimes() -> tuple[str, ...]:
    """Name the runtimes whose blocks and subnets are quantized while they are measured."""
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.int8_blocks)


def measure_device(
    workspace: Workspace, report: Report, request: DeviceRequest, sources: Mapping[str, LatencyModel] | None = None
) -> DeviceProfile:
    """Measure blocks and a few whole subnets, fit the latency model and write both into the workspace.

    Where the request says how many `nets`, the model is fitted on these alone. sources: models to transfer from.
    """
    with export_cache(workspace.path, kept=request.keep_exports) as exports:
        return _measured(workspace, report, request, exports, sources)


def _measured(
    workspace: Workspace,
    report: Report,
    request: DeviceRequest,
    exports: ExportCache,
    sources: Mapping[str, LatencyModel] | None,
) -> DeviceProfile:
    quantized = request.precision == "int8"
    if quantized and not find_runtime(request.runtime).int8_blocks:
        raise InputError(
            f"int8 blocks are made for {', '.join(int8_block_runtimes())} only, not {request.runtime}: measure whole "
            "int8 networks there and give them with --from-measurements FILE"
        )
    batch = 1 if find_runtime(request.runtime).exported == FREE_BATCH else request.batch
    # Each turn on a phone starts a program, which takes longer than a block.
    quick = find_runtime(request.runtime).block_table and not request.ssh.startswith(PREFIX)
    table = quick and request.nets is None

    def export_block(spec: BlockSpec, path: Path) -> None:
        shape = (batch, spec.in_channels, spec.in_hw, spec.in_hw)
        _once(exports, spec.key, path, shape, lambda aside: export_network(build_block(spec), aside, shape))
        if quantized:
            _quantize(exports, spec.key, path, shape)

    return make_profile(
        request.name,
        request.runtime,
        threads=request.threads,
        batch=request.batch,
        precision=request.precision,
        space=request.space,
        resolutions=request.space.resolutions,
        num_classes=request.num_classes,
        in_channels=request.channels,
        export=_exporter(request.num_classes, request.channels, batch, exports, quantized),
        export_block=export_block if table else None,
        num_nets=request.nets or (NETS if table else NETS_WITHOUT_TABLE),
        folder=workspace.path / "devices",
        kept=exports.folder,
        minutes=request.minutes,
        tolerance=request.tolerance,
        ssh=request.ssh,
        command=request.command,
        program=request.program,
        cores=request.cores,
        progress=lambda text, done, total: report(f"device {request.name}: {text}", done, total),
        sources=sources,
    )


def check_device(
    workspace: Workspace, report: Report, name: str, *, keep_exports: bool = True, anew: bool = False
) -> DeviceCheck:
    """Measure some other subnets on a known device and say whether its predictions still hold; `anew`: re-anchor it."""
    profile, folder = find_profile(name, workspace.path)
    check_reachable(profile)
    model = load_latency_model(profile, folder)
    batch = 1 if find_runtime(profile.runtime).exported == FREE_BATCH else profile.batch
    with export_cache(workspace.path, kept=keep_exports) as exports:
        check = reanchor if anew else check_profile
        return check(
            profile,
            folder,
            space=find_space(profile.spaces[0]).with_resolutions(profile.resolutions),
            export=_exporter(model.num_classes, model.in_channels, batch, exports, profile.precision == "int8"),
            kept=exports.folder,
            progress=lambda text, done, total: report(f"device {name}: {text}", done, total),
        )


def _exporter(
    num_classes: int, channels: int, batch: int, exports: ExportCache, quantized: bool
) -> Callable[[Arch, Path], None]:
    def export(arch: Arch, path: Path) -> None:
        shape = (batch, channels, arch.r, arch.r)
        key = f"{arch.id}-{num_classes}-{channels}"
        _once(exports, key, path, shape, lambda a: export_network(build_arch(arch, num_classes, channels), a, shape))
        if quantized:
            _quantize(exports, key, path, shape)

    return export


def _quantize(exports: ExportCache, key: str, path: Path, shape: Shape) -> None:
    """Put the int8 form in the place of an fp32 file whose weights are drawn: time does not hang on the values."""
    images = np.random.default_rng(0).standard_normal((CALIBRATION_IMAGES, *shape[1:]), dtype=np.float32)
    _once(exports, f"{key}-int8", path, shape, lambda aside: quantize_onnx(path, aside, images))


def _once(exports: ExportCache, key: str, path: Path, shape: Shape, make: Callable[[Path], object]) -> None:
    """Export a network once for all devices of a user: every runtime of a format reads the same file."""
    fixed = "" if path.suffix == FREE_BATCH else f"-{shape[0]}"
    exports.fetch(f"{key}{fixed}", path, make)
