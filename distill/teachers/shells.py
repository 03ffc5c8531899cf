"""Read the tensors of files that hold a whole pickled network, without running what they name.

`without_pickle` writes them as a safetensors file. torch's restricted reader takes only names that it knows; here
every other name becomes a shell, an inert class that keeps what it is given, so that nothing of the file is executed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.files import whole_file
from tutelage.records import InputError

# A network names its modules' classes and its own: some twenty.
_MAX_NAMES = 200
_UNKNOWN = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")


# Files of torch before 1.6 are pickles in a row: a number, a version, the system, then the network.
_OLD_PICKLES, _OLD_NETWORK = 4, 3
_PICK = "tutelage.old_class"


class _Shell:
    """Stands for any class that a file names; it keeps arguments and state, and does nothing."""

    def __new__(cls, *given: Any) -> _Shell:
        return super().__new__(cls)

    def __init__(self, *given: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state


def without_pickle(path: Path) -> Path:
    """Write the tensors of a pickled network, or of a plain state dict, beside the file as safetensors.

    Tensors have the names of the network's state dict. Raises InputError for a file that holds no network.
    """
    from safetensors.torch import save_file

    out = path.with_name(f"{path.name}.safetensors")
    tensors = {name: value.contiguous() for name, value in pickled_tensors(path).items()}
    with whole_file(out) as aside:
        save_file(tensors, aside)
    return out


def pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Give the tensors of a pickled network by the names of its state dict; nothing that the file names is run."""
    held = _loaded(path)
    if isinstance(held, dict):
        held = held.get("state_dict", held)
        tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    else:
        tensors = dict(_tensors_below(held, ""))
    if not tensors:
        raise InputError(f"{path} holds no network: give a file of its state dict as `weights`")
    return {name: value.detach() for name, value in tensors.items()}


def _loaded(path: Path) -> Any:
    """Read a file, with a shell for each name that torch's restricted reader does not know."""
    source: Any = path if zipfile.is_zipfile(path) else io.BytesIO(_without_classes(path.read_bytes()))
    shells: dict[str, Any] = {_PICK: _second}
    while len(shells) < _MAX_NAMES:
        names: list[Any] = [(shell, name) for name, shell in shells.items()]
        try:
            with torch.serialization.safe_globals(names):
                return torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unknown = _UNKNOWN.search(str(error))
            if unknown is None or unknown[1] in shells:
                raise InputError(f"{path} is not a readable weights file: delete it and fetch it again") from error
            shells[unknown[1]] = type("Shell", (_Shell,), {})
            if source is not path:
                source.seek(0)
        except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise InputError(f"{path} is not a readable weights file: delete it and fetch it again") from error
    raise InputError(f"{path} names more than {_MAX_NAMES} classes: it holds no network")


def _second(*given: Any) -> Any:
    """Give the class of an old file's ('module', class, file, source)."""
    return given[1]


def _without_classes(content: bytes) -> bytes:
    """Rewrite an old file's references to classes, which torch's restricted reader refuses, as calls of `_second`.

    A reference is a tuple (MARK, 'module', class, file, source, TUPLE) that BINPERSID looks up; those of storages begin
    with 'storage' and stay. Content of another form is given back as it is.
    """
    stream = io.BytesIO(content)
    out, done = bytearray(), 0
    try:
        for number in range(_OLD_PICKLES):
            start = stream.tell()
            operations = list(pickletools.genops(stream))
            # genops gives places from the start of the stream, or of the pickle: the first one tells which.
            base = start if operations and operations[0][2] == 0 and start else 0
            if number != _OLD_NETWORK:
                continue
            for begin, look_up in _class_references(operations):
                out += content[done : base + begin] + b"c" + _PICK.replace(".", "\n").encode() + b"\n"
                out += content[base + begin : base + look_up] + b"R"
                done = base + look_up + 1
    except ValueError:
        return content
    return bytes(out) + content[done:]


def _class_references(operations: list[tuple[Any, Any, Any]]) -> list[tuple[int, int]]:
    """List the places of a class reference's MARK and of its BINPERSID in a pickle's operations."""
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    found, tuple_from = [], -1
    for number, (operation, argument, place) in enumerate(operations):
        name = operation.name
        if name == "MARK":
            marks.append(number)
        elif pickletools.markobject in operation.stack_before and marks:
            mark = marks.pop()
            tuple_from = mark if name == "TUPLE" else -1
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = operations[number - 1][1]
        elif name == "BINPERSID":
            first = operations[tuple_from + 1] if tuple_from >= 0 else None
            if first is not None and (memo.get(first[1]) if "GET" in first[0].name else first[1]) == "module":
                found.append((operations[tuple_from][2], place))
    return found


def _tensors_below(shell: Any, prefix: str) -> list[tuple[str, Tensor]]:
    """Walk the parameters, buffers and modules of a network's pickled state."""
    state = getattr(shell, "__dict__", {}).get("state", {})
    if not isinstance(state, dict):
        return []
    own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
    found = [(f"{prefix}{name}", value) for name, value in own.items() if isinstance(value, Tensor)]
    for name, below in (state.get("_modules") or {}).items():
        found += _tensors_below(below, f"{prefix}{name}.")
    return found
