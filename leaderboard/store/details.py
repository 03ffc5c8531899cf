"""What rows of other people say in their details, checked where it comes in, so that no reader of rows must.

`check_details` raises InputError for a value that verdicts, bundles or the page could not read. Names that nothing
reads may hold any JSON.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from tutelage.records import STATES, InputError

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60


def _inside(path: str) -> str:
    """Keep a path below the workspace that the row is read in."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("give a path inside the workspace")
    return path


def _known_state(state: str) -> str:
    if state not in STATES:
        raise ValueError(f"give one of {', '.join(STATES)}")
    return state


_Path = Annotated[str, AfterValidator(_inside)]
_Number = Annotated[FiniteFloat, Field(strict=True)]


class _Lax(BaseModel):
    model_config = ConfigDict(extra="allow")


class _File(_Lax):
    predictions: _Path | None = None
    threshold: _Number | list[_Number | None] | None = None


class _Seeds(_Lax):
    files: list[_File] = []


class _Hashed(_Lax):
    sha256: str | None = None


class _Network(_Lax):
    weights: _Hashed | None = None


class _Recipe(_Lax):
    data: dict[str, Any] | None = None


class _How(_Lax):
    # Rows of older versions and of other programs say less; who runs one again says what it lacks.
    command: str | None = None
    recipe: _Recipe | None = None
    network: _Network | None = None
    file: _Hashed | None = None


class _Details(_File):
    """The names that this package reads out of `Row.details`, and what it takes each for."""

    state: Annotated[str, AfterValidator(_known_state)] | None = None
    how: _How | None = None
    seeds: _Seeds | None = None
    artifacts: dict[_Path, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] | None = None
    manifest: str | None = None
    data_reader: str | None = None
    versions: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    gain_over_control: dict[str, Any] | None = None
    gain_over_twin: dict[str, Any] | None = None  # its former name
    latency_p50_ms_lo: _Number | None = None
    latency_p50_ms_hi: _Number | None = None


def check_details(details: Mapping[str, Any], where: str) -> None:
    """Raise InputError that names the first value in a row's details that is not what the package reads it as."""
    try:
        _Details.model_validate(dict(details))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["details", *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {field} is {_brief.repr(first.get('input'))}: {message}") from error


def facts_said(details: Mapping[str, Any], measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a row of before its `identity` says of its data and device; what it does not say is empty.

    measurement: its raw samples' record, {} where there is none. The versions in the details are no fact about it: they
    are those of the day on which the row was filed.
    """
    data: Any = details
    for name in ("how", "recipe", "data"):
        data = data.get(name) if isinstance(data, Mapping) else None
    said = data if isinstance(data, Mapping) else {}
    return {
        "manifest": _text(details.get("manifest")),
        "fold": _whole(said.get("fold")),
        "image_size": _whole(said.get("size")),
        "processor": _text(measurement.get("processor")) or _text(details.get("cpu")),
        "runtime_version": _text(measurement.get("runtime_version")),
        "precision": _text(measurement.get("precision")),
        "power_state": _text(measurement.get("power_state")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
