"""Reading of user files: size limits, safe parsing of JSON and YAML, and errors that name what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """What a user gave cannot be used; the message is one line that names the value and the remedy (exit code 2)."""


class NotAvailableError(InputError):
    """What is needed is not there now and may be there later: a library, a network, memory, a device that is free.

    It is never filed as the result of a stage.
    """


class FaultsError(InputError):
    """Several things that a user gave cannot be used: `lines` has one for each, as `InputError` would say it."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(dict.fromkeys(lines))
        super().__init__("\n".join(self.lines))


# Text that a user brings (measurements, a search, rows): a million lines fit, and nothing larger is read into memory.
MAX_TEXT_BYTES = 256 * 1024 * 1024
# A YAML file of a kilobyte can name itself a billion times over; a recipe or a profile has some hundred values.
MAX_YAML_VALUES = 100_000


def bounded_text(path: Path | str, limit: int = MAX_TEXT_BYTES, encoding: str = "utf-8") -> str:
    """Read a text file of at most `limit` bytes; raise InputError for a larger one, OSError where there is none."""
    path = Path(path)
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than the {limit} that a file of this kind may have")
    return path.read_text(encoding=encoding)


def parsed_json(text: str) -> Any:
    """Parse JSON; nesting that would exhaust the stack is a JSONDecodeError like any other fault."""
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


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


class InfeasibleBudgetError(ValueError):
    """No architecture meets the budget; the message names the bound and the nearest feasible one (exit code 3)."""


class UnsteadyDeviceError(RuntimeError):
    """The device could not be measured steadily; the message says how unsteady it was (exit code 4)."""
