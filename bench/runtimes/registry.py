"""The runtimes that a device may use: one file each in this folder, and what other packages add.

A built-in runtime is a constant of a module here.
"""

from __future__ import annotations

from pathlib import Path

from tutelage.plugins import Registry, modules_of
from tutelage.records import InputError

from .anchor import ANCHOR
from .entry import Runtime, Session

__all__ = ["RUNTIMES", "Runtime", "Session", "adapter_files", "find_runtime", "read_shape"]

HERE = Path(__file__).parent


def _devices_run() -> list[Runtime]:
    """List the built-in runtimes, those that are always installed first; the anchors' numpy is none of a device."""
    found = [runtime for runtime in modules_of(__package__, Runtime)() if runtime is not ANCHOR]
    return sorted(found, key=lambda runtime: (bool(runtime.extra or runtime.ambiguous_module), runtime.name))


RUNTIMES: Registry[Runtime] = Registry("runtimes", "runtime", Runtime, _devices_run)


def find_runtime(name: str) -> Runtime:
    """Look a runtime up by name. Raises InputError that lists the known ones."""
    return RUNTIMES.find(name)


def adapter_files(name: str) -> tuple[Path, ...]:
    """List what must lie in one folder for the runner to load a runtime: the adapter's own file first."""
    runtime = ANCHOR if name == ANCHOR.name else find_runtime(name)
    return (
        Path(runtime.file),
        HERE / "runner.py",
        HERE / "entry.py",
        HERE / "graph.py",
        HERE / "state.py",
        HERE / "energy.py",
    )


def read_shape(path: Path) -> list[int | None]:
    """Read (batch, channels, height, width) of a model file's input, None for a size it leaves open, by its runtime.

    Raises InputError for a format that does not say, a broken file, and a runtime that is not installed.
    """
    able = [runtime for runtime in RUNTIMES.values() if runtime.read_shape]
    reader = next((runtime for runtime in able if path.suffix in runtime.suffixes), None)
    if reader is None or reader.read_shape is None:
        formats = dict.fromkeys(suffix for runtime in able for suffix in runtime.suffixes)
        raise InputError(f"{path}: give an {', '.join(formats)} file, which say what they take")
    try:
        return list(reader.read_shape(str(path)))
    except ImportError as error:
        raise InputError(f"{path} needs {reader.name}: {reader.remedy()}") from error
    except Exception as error:  # the readers raise types of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is not a {path.suffix} file of {reader.name}: {reason}") from error
