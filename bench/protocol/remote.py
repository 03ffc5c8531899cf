"""Reach a device, and refuse one that is not here: `launcher_of` is the only way to a runner of a device.

Another host is reached by ssh, or by a command template for what ssh does not reach (docker, a queue); one without
Python by adb, or by a command that starts a program of its own (`boards/`).

The runner and the model files are copied into a fresh folder there, and the runner exchanges JSON over the
connection's standard input and output. When the connection ends, the runner's input ends and so does the runner; a
watchdog ends one that hangs. Host keys are checked; passwords and keys are left to ssh and its agent.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import Formatter

from tutelage.bench.boards.adb import PREFIX
from tutelage.bench.boards.phone import Phone
from tutelage.bench.boards.pool import POOL, open_board
from tutelage.bench.boards.program import ProgramBoard
from tutelage.bench.boards.ssh import SSH_OPTIONS, Ssh, connect
from tutelage.bench.converters.conversion import parts
from tutelage.bench.devices.turns import exclusively
from tutelage.bench.runtimes.anchor import ANCHOR
from tutelage.bench.runtimes.registry import adapter_files, find_runtime
from tutelage.bench.runtimes.runner import processor
from tutelage.files import model_digest
from tutelage.records import DeviceProfile, InputError, NotAvailableError

from .host import available_cores
from .lines import WorkerError
from .worker import RUNNER, Board, Launcher, ModelFile, Reached, Worker, launch_local

log = logging.getLogger(__name__)

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%-]*")


def check_reachable(device: DeviceProfile) -> None:
    """Refuse a device whose models cannot be run from here, and one that is said to be here but is another machine."""
    if not device.reachable:
        raise InputError(
            f"device {device.name} cannot be reached from here (host: {device.host}), and nothing is measured in its "
            "place: it has predictions only; to measure it, write `host: USER@HOST` into its profile, or `host: local` "
            "and this machine's cpu_model if it is this machine"
        )
    if device.command:
        check_template(device.command)
    if device.local:
        check_processor(device, processor(), "this machine")
        if device.threads > available_cores():
            log.warning(
                "device %s asks for %d threads, this process may use %d cores: its times are not those of %d threads",
                device.name, device.threads, available_cores(), device.threads,
            )  # fmt: skip


def check_processor(device: DeviceProfile, found: str, where: str) -> None:
    """Refuse figures of another processor than the profile's: they would be filed under the wrong device."""
    if device.cpu_model and found != device.cpu_model:
        raise InputError(
            f"device {device.name} is a {device.cpu_model!r}, {where} has a {found!r}: measure it there, add this "
            f"one under another name, or write `host: unreachable` into the profile, so that {device.name} is predicted"
        )


@contextlib.contextmanager
def launcher_of(device: DeviceProfile, workdir: Path | None = None) -> Iterator[Reached]:
    """Give what starts runners on a device, here or elsewhere, when nobody else on this host times there any more.

    Raises InputError for one that cannot be reached.
    """
    check_reachable(device)  # before a lock is taken by the words of a command
    if device.host.startswith(POOL):  # whose boards take turns themselves
        with open_launcher(device, workdir) as launcher:
            yield launcher
        return
    with exclusively(device):
        if device.local:
            yield launch_local
            return
        with open_launcher(device, workdir) as launcher:
            yield launcher


@contextlib.contextmanager
def open_launcher(
    device: DeviceProfile, workdir: Path | None = None, ssh: Sequence[str] = ("ssh",)
) -> Iterator[Reached]:
    """Give what starts runners on a device that is not local, and clean up there afterwards.

    `ssh` may name another client or add options (a port, a configuration file).
    """
    if device.command and not check_template(device.command):
        yield ProgramBoard(shlex.split(device.command), device)
    elif device.command:
        with _open_command(device.command, device.runtime, workdir) as launcher:
            yield launcher
    elif device.host.startswith(POOL):
        with _open_pool(device) as launcher:
            yield launcher
    elif device.host.startswith(PREFIX):
        try:
            phone = Phone(device)
        except WorkerError as error:
            raise NotAvailableError(str(error)) from error
        yield phone
    else:
        with _open_ssh(device.host, [*ssh, *SSH_OPTIONS], device.runtime) as launcher:
            yield launcher


def missing_meter(device: DeviceProfile) -> str:
    """Ask a device that is not local what it lacks of an energy counter; empty where it has one, or a pool's board may.

    Raises InputError for one that cannot be reached.
    """
    if device.host.startswith(POOL):  # each board is another machine, and all may be busy now
        return ""
    with open_launcher(device) as launcher:
        if isinstance(launcher, Board):
            return _missing_on(launcher, device.name)
        argv, _ = launcher([])
        worker = Worker(device.runtime, [], threads=1, precision=device.precision, argv=argv, only_meter=True)
        try:
            with worker:
                return worker.missing_meter()
        except WorkerError as error:
            raise InputError(f"cannot start the runner on {device.name}: {error}") from error


def _missing_on(board: Board, name: str) -> str:
    """Ask a device without Python what it lacks of an energy counter."""
    try:
        runner = board.start([])
        try:
            runner.greet()
            return str(runner.ask({"do": "meter"}).get("missing", ""))
        finally:
            runner.stop()
    except WorkerError as error:
        raise InputError(f"cannot start the program on {name}: {error}") from error


@contextlib.contextmanager
def one_way_to(device: DeviceProfile) -> Iterator[Reached | None]:
    """Keep one way to a device open for several sessions; None for a pool, whose sessions may be of several boards."""
    if device.host.startswith(POOL):
        yield None
        return
    with launcher_of(device) as launcher:
        yield launcher


class _Copies:
    """Files that were brought to a folder there, each content once, whatever it is called here."""

    def __init__(self, folder: str, put: Callable[[Path, str], object]) -> None:
        self._folder, self._put = folder, put
        self._there: dict[str, str] = {}

    def of(self, models: Sequence[ModelFile]) -> list[ModelFile]:
        """Bring the files of models there; gives the models as that side sees them."""
        return [ModelFile(self._place(model.path), model.shape) for model in models]

    def _place(self, path: str) -> str:
        file = Path(path)
        if not file.is_file():  # a numpy anchor is named, not stored
            return path
        content = model_digest(file)  # the anchors of each session are files of their own, and the same
        if content not in self._there:
            number = len(self._there)
            for part in parts(file):
                self._put(part, f"{number}{part.suffix}")
            self._there[content] = f"{self._folder}/{number}{file.suffix}"
        return self._there[content]


@contextlib.contextmanager
def _open_pool(device: DeviceProfile) -> Iterator[Reached]:
    """Start runners on a board of a pool, when one is free."""
    with open_board(device) as board:
        if board.command and not check_template(board.command):
            yield ProgramBoard(board.start(shlex.split(board.command)), device)
            return
        for file in _runner_files(device.runtime):
            board.put(file.name, file.read_bytes())
        runner = f"{board.folder}/{RUNNER.name}"
        words = ["", "-I", runner]  # the Python there
        if board.command:
            words = shlex.split(board.command.format(runner=shlex.quote(runner), folder=shlex.quote(board.folder)))
        argv = board.start(words)
        copies = _Copies(board.folder, lambda path, name: board.put(name, path.read_bytes()))
        yield lambda models: (argv, copies.of(models))


@contextlib.contextmanager
def _open_ssh(host: str, client: list[str], runtime: str) -> Iterator[Launcher]:
    if not _HOST.fullmatch(host):
        raise InputError(f"host {host!r}: give USER@HOST or a host of your ssh configuration")
    with connect(client, host) as there:
        folder = there.run("umask 077; mktemp -d", what="make a folder").decode().strip()
        if not folder.startswith("/"):
            raise InputError(f"{host} gave no temporary folder but {folder[:80]!r}: its login shell must print nothing")
        try:
            python = _find_python(there, find_runtime(runtime).module)
            for file in _runner_files(runtime):
                there.copy(file, f"{folder}/{file.name}")
            copies = _Copies(folder, lambda path, name: there.copy(path, f"{folder}/{name}"))
            # exec: no shell stays between ssh and the runner, so that both end together.
            argv = there.argv(f"exec {python} -I {shlex.quote(folder)}/runner.py")
            yield lambda models: (argv, copies.of(models))
        finally:
            # Cleaning up must not hide what went wrong before; a folder in the other's /tmp is the most that can stay.
            with contextlib.suppress(InputError):
                there.run(f"rm -rf {shlex.quote(folder)}", what="clean up")


@contextlib.contextmanager
def _open_command(template: str, runtime: str, workdir: Path | None) -> Iterator[Launcher]:
    """Start runners by a template such as `docker run -i --rm -v {folder}:{folder} IMAGE python3 {runner}`."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix="tutelage-remote-") as scratch:
        folder = Path(scratch)
        runner = folder / RUNNER.name
        for file in _runner_files(runtime):
            (folder / file.name).write_bytes(file.read_bytes())
        argv = shlex.split(template.format(runner=shlex.quote(str(runner)), folder=shlex.quote(scratch)))
        copies = _Copies(scratch, lambda path, name: shutil.copyfile(path, folder / name))
        yield lambda models: (argv, copies.of(models))


def _runner_files(runtime: str) -> set[Path]:
    """List what a device of this runtime needs: the runner, with the runtime's own file and its anchors'."""
    names = (runtime, find_runtime(runtime).anchors, ANCHOR.name)
    return {file for name in names for file in adapter_files(name)}


def check_template(template: str) -> bool:
    """Say whether a command starts the Python runner, by `{runner}`; without, it is a program that needs no Python.

    Raises InputError for one that names what there is not, or cannot be read.
    """
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        words = shlex.split(template)
    except ValueError as error:
        raise InputError(f"command {template!r} cannot be read ({error}): quote it as for a shell") from error
    unknown = fields - {"runner", "folder"}
    if unknown or not words or ("folder" in fields and "runner" not in fields):
        raise InputError(
            f"command {template!r}: it may hold {{runner}}, and {{folder}} with it"
            + (f", not {', '.join(sorted(f'{{{field}}}' for field in unknown))}" if unknown else "")
            + "; without them it must be a program that speaks the device protocol"
        )
    return "runner" in fields


def _find_python(there: Ssh, module: str) -> str:
    """Find a Python with numpy and the runtime there: `TUTELAGE_PYTHON` of that host's environment, then its PATH."""
    words = f"'import sys, numpy, {module}; print(sys.version_info[:2] >= (3, 8))'"
    failure = ""
    for python in ('"$TUTELAGE_PYTHON"', "python3", "python"):
        # -I as the runner has it: a PYTHONPATH of that host counts in neither.
        probe = f"test -z {python} || {python} -I -c {words} 2>&1 || true"
        printed = there.run(probe, what="look for Python").decode(errors="replace").strip().splitlines()
        if printed[-1:] == ["True"]:
            return python
        named = "TUTELAGE_PYTHON" in python and bool(printed)
        if named or (printed and printed[-1] != "False" and "not found" not in printed[-1]):
            failure = failure or f" ({python.strip(chr(34))} there says: {printed[-1].strip()[:200]})"
        if named:  # the choice of that host's user is not silently ignored
            break
    machine = there.run("uname -m", what="read the architecture").decode(errors="replace").strip()
    raise InputError(
        f"{there.host} has no Python 3.8 or newer that runs numpy and {module}{failure}: install them there for "
        f"{machine}, or set TUTELAGE_PYTHON there to the Python that has them"
    )
