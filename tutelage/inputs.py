"""Reading of user files: size limits, safe parsing of JSON and YAML, and errors that name what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """What a user gave cannot be used; the message is one line that names the value and the remedy (exit code 2).

    Values of damaged files stand in messages: what would break the line or steer a terminal is written as its escape.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_printable(str(message)))


_BREAKS = re.compile(r"\s*[\n\r\v\f\x85\u2028\u2029]+\s*")


def _printable(text: str) -> str:
    """Put a text on one line; characters that are not printed are escaped."""
    if text.isprintable():
        return text
    line = _BREAKS.sub(" ", text)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


class NotAvailableError(InputError):
    """What is needed is not there now and may be there later: a library, a network, memory, a device that is free.

    It is never filed as the result of a stage.
    """


class FaultsError(InputError):
    """Several things that a user gave cannot be used: `lines` has one for each, as `InputError` would say it."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(dict.fromkeys(_printable(line) for line in lines))
        ValueError.__init__(self, "\n".join(self.lines))


# What names an accelerator, and how a message lists it; here, because recipes are read without torch.
ACCELERATOR = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
ACCELERATORS = "auto, cpu, cuda, cuda:N or mps"

# Text that a user brings (measurements, a search, rows): a million lines fit, and nothing larger is read into memory.
MOST_NAME = 100  # characters
MAX_TEXT_BYTES = 256 * 1024 * 1024
# A YAML file of a kilobyte can name itself a billion times over; a recipe or a profile has some hundred values.
MAX_YAML_VALUES = 100_000
# Of a whole number: the largest float has 309, and one beyond it could be computed with nowhere.
MAX_DIGITS = 300


def bounded_text(path: Path | str, limit: int = MAX_TEXT_BYTES, encoding: str = "utf-8") -> str:
    """Read a text file of at most `limit` bytes; raise InputError for a larger one, OSError where there is none."""
    path = Path(path)
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than the {limit} that a file of this kind may have")
    return path.read_text(encoding=encoding)


def checked_name(text: str) -> str:
    """Give the name of a user or a project without blanks around it; ValueError where it is not one short line."""
    text = text.strip()
    if len(text) > MOST_NAME or not text.isprintable():
        raise ValueError(f"a name is one line of at most {MOST_NAME} printable characters")
    return text


def parsed_json(text: str) -> Any:
    """Parse JSON; nesting that would exhaust the stack and numbers past any float are JSONDecodeErrors, too."""
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise json.JSONDecodeError(f"a number of {len(text)} digits", text[:20], 0)
    return int(text)


def parsed_yaml(text: str, prepare: Callable[[Any], None] | None = None) -> Any:
    """Parse plain YAML; raise YAMLError too for nesting or aliases that unfold to more than MAX_YAML_VALUES values.

    prepare: may change the tags of the document's node before values are made of it.
    """
    import yaml

    loader: Any = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        left, waiting = MAX_YAML_VALUES, [node]
        while waiting:
            one = waiting.pop()
            left -= 1
            if left < 0:
                raise yaml.YAMLError(f"it unfolds to more than {MAX_YAML_VALUES} values")
            if isinstance(one, yaml.ScalarNode) and one.tag == "tag:yaml.org,2002:int" and len(one.value) > MAX_DIGITS:
                raise yaml.YAMLError(f"a number of {len(one.value)} digits (line {one.start_mark.line + 1})")
            if isinstance(one, yaml.MappingNode):
                waiting.extend(value for _, value in one.value)
            elif isinstance(one, yaml.SequenceNode):
                waiting.extend(one.value)
        if prepare is not None:
            prepare(node)
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:  # a date of month 13, a number of 5,000 digits
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None
    finally:
        loader.dispose()


def npz_arrays(path: Path, limit: int, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read arrays of an npz (all, or those of `names` that it has) without unpickling, `limit` bytes of each at most.

    Raises InputError, whatever of the archive is damaged, and FileNotFoundError where there is none.
    """
    import numpy as np

    try:
        archive: Any = np.load(path, allow_pickle=False)
        if not hasattr(archive, "zip"):
            raise InputError(f"{path} is one array and no npz archive: save it with numpy.savez")
        with archive:
            wanted = [name for name in archive if names is None or name in names]
            for entry in archive.zip.infolist():
                if entry.filename.removesuffix(".npy") in wanted and entry.file_size > limit:
                    raise InputError(f"{path}: {entry.filename} has {entry.file_size} bytes, more than {limit}")
            return {name: archive[name] for name in wanted}
    except (InputError, FileNotFoundError):
        raise
    # numpy, zipfile and the parser of an array's head raise whatever damaged bytes lead to.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"{path} is damaged or not an npz archive of numbers: {reason}") from None


class InfeasibleBudgetError(ValueError):
    """No architecture meets the budget; the message names the bound and the nearest feasible one (exit code 3)."""


class UnsteadyDeviceError(RuntimeError):
    """The device could not be measured steadily; the message says how unsteady it was (exit code 4)."""
