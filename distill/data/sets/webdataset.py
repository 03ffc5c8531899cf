"""WebDataset tars, read in place: the members of one sample share a name, `0001.jpg`, `0001.cls`, `0001.json`.

Splits are in the names of shards and folders: `train-{000..146}.tar`, `val/000.tar`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.distill.data.containers.hub import locate
from tutelage.distill.data.containers.naming import own_name
from tutelage.distill.data.containers.packed import Members, is_archive, members_of
from tutelage.distill.data.containers.shards import (
    Shard,
    assign_splits,
    expand_braces,
    find_shards,
    is_pattern,
    listing_of,
)
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.distill.data.reading.folders import is_system
from tutelage.distill.data.reading.labels import UNKNOWN_HELP, read_listed, unknown_policy
from tutelage.distill.data.reading.suffixes import DICOM_SUFFIXES, SUFFIXES
from tutelage.records import InputError

from .folders import NEAR_HELP

_IMAGES = {suffix.removeprefix(".") for suffix in (*SUFFIXES, *DICOM_SUFFIXES)}
_LABELS = ("cls", "json", "txt")  # in this order, where the option `label` names none
_MOST_LABEL_BYTES = 2**20


@dataclass
class _Samples:
    """What the shards hold: a picture's path, its shard's split and its fields by extension; what was left out."""

    paths: list[Path] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    fields: list[dict[str, tuple[Members, str]]] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_webdataset(request: Request) -> Listing:
    """List the samples of tars at `path`: a tar, a folder, names with `{000..146}`, or `hf:owner/name`."""
    root, files, origin = _files(request)
    shards, notes = assign_splits(files, root)
    samples = _samples(shards, str(request.option("image", "")))
    label = str(request.option("label", "")) or _usual_label(samples)
    names = request.options.get("class_names")
    class_names = None if names is None else [str(name) for name in names]
    values = [_value(found, label) for found in samples.fields]
    unknown = unknown_policy(request.option("unknown", "refuse"))
    labels = read_listed(values, class_names, lambda row: str(samples.paths[row]), f"{root}: field {label}", unknown)
    group = str(request.option("group", ""))
    if samples.without:
        samples.notes.append(f"{len(samples.without)} samples without a picture are left out, e.g. "
                             f"{samples.without[0]}")  # fmt: skip
    return listing_of(
        request,
        root,
        samples.paths,
        samples.splits,
        labels,
        [_value(found, group) for found in samples.fields] if group else None,
        notes=[*notes, *samples.notes],
        facts={"tar files": len(shards)},
        origin=origin,
    )


def _files(request: Request) -> tuple[Path, list[Path], str]:
    """Find the tars: the folder that names are relative to, the files, and where the hub's are from."""
    if request.path is not None and is_pattern(request.path):
        files = [request.path.parent / name for name in expand_braces(request.path.name)]
        absent = [file for file in files if not file.is_file()]
        if absent:
            raise InputError(f"{absent[0]} is not there ({len(absent)} of {len(files)} shards of {request.path})")
        return request.path.parent, files, ""
    path, config, origin = locate(request) if request.path is None or not request.path.is_file() else (
        request.path, "", "")  # fmt: skip
    if path.is_file():
        return path.parent, [path], ""
    place = path / config if config else path
    files = find_shards(place, ".tar")
    if not files:
        raise InputError(f"no .tar file in {place}")
    return place, files, origin


def _samples(shards: Sequence[Shard], image: str) -> _Samples:
    found = _Samples()
    for shard in shards:
        members = members_of(shard.file)
        found.notes += members.notes()
        for key, fields in _grouped(members):
            pictures = [
                extension for extension in fields if extension == image or (not image and _is_picture(extension))
            ]
            if not pictures:
                found.without.append(f"{shard.file.name}/{key}")
                continue
            if len(pictures) > 1:
                raise InputError(f"sample {key} of {shard.file} has {len(pictures)} pictures "
                                 f"({', '.join(pictures)}): name one, data.options.image")  # fmt: skip
            found.paths.append(shard.file / fields[pictures[0]])
            found.splits.append(shard.split)
            found.fields.append({extension: (members, name) for extension, name in fields.items()})
    if not found.paths:
        example = next(iter(members_of(shards[0].file).sizes), "nothing")
        raise InputError(f"{shards[0].file} holds no sample with a picture{f' .{image}' if image else ''} "
                         f"(it holds {example})")  # fmt: skip
    return found


def _grouped(members: Members) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each sample's key (folder and name up to the first dot) and its members by extension, in file order."""
    samples: dict[str, dict[str, str]] = {}
    for name in members.sizes:
        folder, _, last = name.rpartition("/")
        stem, _, extension = last.partition(".")
        if stem and extension and not any(is_system(part) for part in folder.split("/") if part):
            samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[extension.lower()] = name
    yield from samples.items()


def _is_picture(extension: str) -> bool:
    return extension in _IMAGES


def _usual_label(samples: _Samples) -> str:
    """Choose where labels stand: `cls`, else the key `label` of `json`, else `txt`."""
    kind = next((kind for kind in _LABELS if any(kind in fields for fields in samples.fields)), None)
    if kind is None:
        others = sorted({extension for fields in samples.fields for extension in fields if not _is_picture(extension)})
        raise InputError(f"the samples have no .cls, .json or .txt; they have {', '.join(others) or 'pictures only'}: "
                         "name where labels stand, data.options.label")  # fmt: skip
    return "label" if kind == "json" else kind


def _value(fields: Mapping[str, tuple[Members, str]], name: str) -> Any:
    """Read one field of a sample: the text of a member of that extension, else that key of its JSON; None without."""
    if name in fields:
        text = _text(*fields[name])
        return json.loads(text) if text.startswith("[") and _is_json(text) else text
    if "json" not in fields:
        return None
    members, member = fields["json"]
    text = _text(members, member)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{members.file}/{member} is not JSON") from None
    if not isinstance(content, dict):
        raise InputError(f"{members.file}/{member} is no JSON object, so it has no key {name!r}")
    if name not in content:
        raise InputError(f"{members.file}/{member} has no key {name!r}; it has {', '.join(map(str, content)) or 'none'}"
                         ": name one, data.options.label")  # fmt: skip
    return content[name]


def _text(members: Members, name: str) -> str:
    return members.read(name, _MOST_LABEL_BYTES).decode(errors="replace").strip()


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _recognise(path: Path) -> Mapping[str, Any] | None:
    """Tell a tar whose pictures have a label beside them, or a folder of such tars."""
    if is_pattern(path):
        return {}
    files = [path] if path.is_file() else find_shards(path, ".tar", most_folders=1)
    if not files or files[0].suffix.lower() != ".tar" or not is_archive(files[0]):
        return None
    try:
        samples = [fields for _, fields in _grouped(members_of(files[0]))]
    except InputError:  # the listing says it
        return {}
    labelled = [fields for fields in samples if any(kind in fields for kind in _LABELS)]
    return {} if any(_is_picture(one) for fields in labelled for one in fields) else None


WEBDATASET = DatasetEntry(
    "webdataset",
    "WebDataset tars: pictures with .cls, .json or .txt beside them, in shards named by split; hf:owner/name too.",
    list_webdataset,
    options={
        "label": "where labels stand: cls, txt or a key of json (default: cls, else the key label, else txt)",
        "image": "extension of the pictures, where a sample has several (e.g. input.png)",
        "group": "key of json that names the patient or series (default: each image is a group of its own)",
        "class_names": "a list of names, of the codes 0, 1, ... in order",
        "config": "the folder of a configuration, where the set has several",
        "unknown": UNKNOWN_HELP,
        "near": NEAR_HELP,
    },
    recognise=_recognise,
    called=lambda request: own_name(request.path),
)
