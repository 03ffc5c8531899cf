"""The catalogue: device profiles that come with the package, and what is known of how each was made.

An entry is one folder of `catalogue/`, named as its profile: `NAME.yaml`, its latency model, the table that the model
was fitted on, and `provenance.yaml`. `list_entries` and `find_entry` read them; `contribution.py` checks one.
"""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from tutelage.bench.latency.model import LatencyModel
from tutelage.files import write_text
from tutelage.records import DeviceProfile, InputError, Record

from .profiles import known_profile, load_latency_model, read_fields, read_profile

PROVENANCE = "provenance.yaml"
MAX_PROVENANCE_BYTES = 20_000
# What each kind of entry is, as `tutelage device catalogue` says it.
KINDS = {
    "measured": "measured by its contributor",
    "public-table": "from a public table",
    "memory-only": "memory only",
}

_COMMENTS = {
    "kind": "measured, public-table, or memory-only: no latency is known",
    "description": "the device in one line: processor, runtime, setting",
    "made": "how: the command, and what else another person needs to make it again",
    "source": "where the figures come from: a paper, a table, a datasheet; empty for your own measurements",
    "licence": "of the measurements, by its SPDX name: CC0-1.0, MIT, CC-BY-4.0, ...",
    "copyright": "the line that the licence asks for, empty where it asks for none",
    "date": "when it was measured or published, e.g. 2026-11-27",
    "left_out_error": "mean relative error of the model on nets left out of its fit, a fraction; recomputed by a check",
    "left_out_nets": "how many nets that is, each left out once",
}


class Provenance(Record):
    """How an entry was made and how good its model is on networks left out of the fit."""

    kind: Literal["measured", "public-table", "memory-only"]
    description: str
    made: str
    source: str = ""
    licence: str
    copyright: str = ""
    date: str
    left_out_error: float | None = Field(None, ge=0)
    left_out_nets: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Entry:
    """An entry of the catalogue, in its folder."""

    profile: DeviceProfile
    provenance: Provenance
    folder: Path

    @property
    def name(self) -> str:
        return self.profile.name

    def to_dict(self) -> dict[str, Any]:
        """Give what `tutelage device catalogue --json` prints."""
        facts = self.provenance.to_dict()
        return {"name": self.name, **facts, "profile": self.profile.to_dict(), "folder": str(self.folder)}


def catalogue_folder() -> Path:
    """Give the folder of the package that holds the entries."""
    return Path(str(importlib.resources.files("tutelage.bench.devices"))) / "catalogue"


def entry_names() -> list[str]:
    """List the names of the catalogue's entries."""
    return sorted(path.parent.name for path in catalogue_folder().glob(f"*/{PROVENANCE}"))


def list_entries() -> list[Entry]:
    """Read the whole catalogue, by name."""
    return [read_entry(catalogue_folder() / name) for name in entry_names()]


def find_entry(name: str) -> Entry:
    """Look an entry up by name. Raises InputError that names the nearest one and lists all."""
    known = entry_names()
    if name in known:
        return read_entry(catalogue_folder() / name)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"the catalogue has no device {name!r}{hint} (it has {', '.join(known)}): `tutelage device catalogue` lists it"
    )


def transfer_sources(names: Sequence[str], workspace: Path | None) -> dict[str, LatencyModel]:
    """Load the latency models that another device's may be transferred from; without names the whole catalogue's.

    A name is a profile of the workspace or the user, or an entry of the catalogue.
    """
    found: dict[str, tuple[DeviceProfile, Path]] = {}
    for name in names:
        known = known_profile(name, workspace)
        if known is None:
            entry = find_entry(name)
            known = entry.profile, entry.folder
        found[name] = known
    if not names:
        found = {entry.name: (entry.profile, entry.folder) for entry in list_entries() if entry.profile.latency_model}
    return {name: load_latency_model(*known) for name, known in found.items()}


def read_entry(folder: Path) -> Entry:
    """Read an entry's profile and provenance. Raises InputError naming the file, the field and what is allowed."""
    folder = Path(folder)
    profile = folder / f"{folder.name}.yaml"
    if not profile.is_file():
        raise InputError(f"{folder} has no {profile.name}: an entry is a folder that is named as its profile")
    return Entry(read_profile(profile), read_provenance(folder / PROVENANCE), folder)


def read_provenance(path: Path) -> Provenance:
    """Read and check how an entry was made."""
    without = f"{path} says nothing of how the profile was made: give {', '.join(Provenance.model_fields)}"
    data = read_fields(path, MAX_PROVENANCE_BYTES, "provenance", without)
    # What is empty was left for the contributor, whom the check tells; YAML reads a date as one.
    texts = {"description": "", "made": "", "licence": "", "date": ""}
    given = texts | {
        str(key): str(value) if key == "date" else value for key, value in data.items() if value is not None
    }
    try:
        return Provenance.from_dict(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise InputError(f"{path}: {field} is missing: {_COMMENTS.get(field, '')}") from error
        known = f"; known: {', '.join(Provenance.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise InputError(f"{path}: {field} is {first['input']!r}: {first['msg']}{known}") from error


def write_provenance(path: Path, provenance: Provenance) -> None:
    """Write how an entry was made as YAML, each field with what it is."""
    lines = ["# How this profile was made. `tutelage device check FOLDER --publish` checks the folder."]
    for field, value in provenance.to_dict().items():
        text = (
            "" if value in (None, "") else " " + yaml.safe_dump(value, width=10**6).strip().removesuffix("...").strip()
        )
        lines += [f"# {_COMMENTS[field]}", f"{field}:{text}"]
    write_text(path, "\n".join(lines) + "\n")
