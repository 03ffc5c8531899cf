"""The command line: its verbs, put together, and `main`, which turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

import typer
import typer.main
from pydantic import ValidationError

from tutelage.records import FaultsError, InfeasibleBudgetError, InputError, UnsteadyDeviceError

from .registry_help import RegistryCommand
from .verbs import bench, bundle, data, device, distill, doctor, explain, init, quantize, run, search
from .verbs import leaderboard as board
from .verbs import workspace as stages

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.add_typer(device.app, name="device")
app.add_typer(board.app, name="leaderboard")
app.add_typer(data.app, name="data")
app.add_typer(bundle.app, name="bundle")
app.add_typer(stages.app, name="workspace")
app.command(cls=RegistryCommand)(init.init)
app.command()(run.run)
app.command(cls=RegistryCommand)(search.search)
app.command(cls=RegistryCommand)(distill.distill)
app.command(cls=RegistryCommand)(quantize.quantize)
app.command()(bench.bench)
app.command()(explain.explain)
app.command()(run.reproduce)
app.command()(doctor.doctor)

EXIT_BAD_INPUT, EXIT_INFEASIBLE, EXIT_UNSTEADY, EXIT_INTERRUPTED = 2, 3, 4, 130
# What typer raises for a wrong option; it carries a click of its own, or uses the one that is installed.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
EXIT_TERMINATED = 128 + signal.SIGTERM
# Verbs that leave finished stages, and go on after them; the others begin anew.
STAGED = frozenset({"run", "search", "distill", "quantize", "explain", "reproduce"})


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Find small image classifiers that fit a device, distil them, compress them, and show where they stand."""
    if version:
        import tutelage

        print(f"tutelage {tutelage.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every failure that a user can mend is one line and an exit code."""
    _quiet_threads()
    _tidy_when_terminated()
    codes: dict[type[Exception], int] = {
        InputError: EXIT_BAD_INPUT,
        InfeasibleBudgetError: EXIT_INFEASIBLE,
        UnsteadyDeviceError: EXIT_UNSTEADY,
    }
    stopped = {EXIT_INTERRUPTED: "interrupted", EXIT_TERMINATED: "terminated"}
    try:
        _refuse_bytes(sys.argv[1:])
        code = _carry_out(sys.argv[1:])
    except tuple(codes) as error:
        # One line a fault; a subclass (a library that is not there, a plug-in) has the code of its kind.
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        *others, last = error.lines if isinstance(error, FaultsError) else (str(error),)
        for line in others:
            _say(line)
        _exit_with(last, code)
    except _USAGE_ERROR as error:
        _tell_usage(error)
    except OSError as error:  # a disk that is full, a file that may not be read or written
        if error.filename is None and "temporary directory" in str(error.strerror):  # what tempfile raises
            _exit_with(
                f"{error.strerror}: make room there, or set TMPDIR to a folder that can be written", EXIT_BAD_INPUT
            )
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _exit_with(f"{error.filename or 'the disk'}: {error.strerror}", EXIT_BAD_INPUT)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else stop.code
        if code not in stopped:
            raise
    if code in stopped:  # typer turns Ctrl-C into its exit code
        _exit_with(stopped[code] + _what_goes_on(sys.argv[1:]), code)
    sys.exit(code if isinstance(code, int) else 0)


def _carry_out(words: Sequence[str]) -> object:
    """Run the verb that the words name; give its exit code, None where it has none."""
    verbs = typer.main.get_command(_named(app, words))
    _refuse_empty_paths(verbs)
    return verbs(args=list(words), standalone_mode=False, prog_name="tutelage")


def _what_goes_on(words: Sequence[str]) -> str:
    """Say that the command goes on after its finished stages at the next start, where it is one that has stages."""
    if not words or words[0] not in STAGED:
        return ""
    return f"; the same command{' without --fresh' if '--fresh' in words else ''} goes on where it was"


def _exit_with(text: str, code: int) -> NoReturn:
    _say(text)
    sys.exit(code)


def _say(text: str) -> None:
    print("tutelage: " + " ".join(text.splitlines()), file=sys.stderr)


def _tell_usage(error: Exception) -> NoReturn:
    """Say in one line which option or argument is wrong; where nothing was given, the help was printed already."""
    context, message = getattr(error, "ctx", None), getattr(error, "format_message", lambda: str(error))()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        sys.exit(EXIT_BAD_INPUT)
    verb = context.command_path if context is not None else "tutelage"
    if isinstance(error.__cause__, ValidationError):  # typer leaves the value out
        message += f", got {error.__cause__.errors()[0]['input']!r}"
    _exit_with(f"{' '.join(message.split()).removesuffix('.')}. See `{verb} --help`.", EXIT_BAD_INPUT)


def _refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse an argument that is not UTF-8: it could neither be hashed into a stage nor written into a file."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"{argument!r} is not UTF-8: rename the file, or write the text in UTF-8") from None


def _named(whole: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Give an application with the one verb that the first word names, which is made sooner; else the whole one.

    What is not named exactly, and help, needs all of them.
    """
    groups = [one for one in whole.registered_groups if words and one.name == words[0]]
    commands = [one for one in whole.registered_commands if words and words[0] == _name_of(one)]
    if not groups and not commands:
        return whole
    one = copy(whole)
    one.registered_groups, one.registered_commands = [copy(group) for group in groups], commands
    for group in one.registered_groups:
        group.typer_instance = _named(group.typer_instance or typer.Typer(), words[1:])
    return one


def _name_of(command: Any) -> str:
    return str(command.name or typer.main.get_command_name(command.callback.__name__))


def _refuse_empty_paths(command: Any) -> None:
    """Let the options and arguments of a command, and of those below it, refuse an empty text as a path.

    It would name the current folder: `data check "$FOLDER"` of a variable that is not set. Which of them are paths the
    command's function says: what is read of a text is a Path in some versions of typer and a text in others.
    """
    for below in getattr(command, "commands", {}).values():
        _refuse_empty_paths(below)
    if command.callback is None:
        return
    hints = get_type_hints(inspect.unwrap(command.callback))
    for parameter in command.params:
        if Path in (kind := hints.get(parameter.name), *get_args(kind)):
            parameter.process_value = partial(_no_empty_path, parameter, parameter.process_value)


def _no_empty_path(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        name = max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else parameter.name.upper()
        raise InputError(f"{name}: {value!r} is no path: give one; . is the current folder")
    return process(context, value)


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
    from tutelage.bench.protocol.cgroup import cpu_quota

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(min(cores, max(1, int(cpu_quota() or cores)))))
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
