"""What the card of a hub data set says: configurations, the files of their splits, and the features of the columns.

The card is the YAML head of `README.md`; older sets have `dataset_infos.json`. Both lie beside the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.records import InputError

from .shards import expand_braces

CARDS = ("README.md", "dataset_infos.json")
_MOST_BYTES = 10_000_000

Feature = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """By configuration: `files` maps each split to patterns of its files, `features` each column to what it holds.

    Patterns are those of `fnmatch`, whose `*` also stands for `/`; whoever downloads by them knows no others.
    """

    files: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Feature]] = field(default_factory=dict)


def read_card(folder: Path) -> Card:
    """Read the card of a folder; what is not there or not written as cards are says nothing."""
    files: dict[str, dict[str, list[str]]] = {}
    features: dict[str, Mapping[str, Feature]] = {}
    head = _yaml_head(folder / CARDS[0])
    for config in _dicts(head.get("configs")):
        splits = _splits(config.get("data_files"))
        if splits:
            files[str(config.get("config_name", "default"))] = splits
    infos = _json(folder / CARDS[1])
    features.update({str(name): _features(info) for name, info in infos.items() if isinstance(info, dict)})
    for info in _dicts(head.get("dataset_info")):
        features[str(info.get("config_name", "default"))] = _features(info)
    return Card(files, features)


def schema_features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Feature]:
    """Read the features that a parquet file carries in its schema's metadata."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info")
    except (ValueError, AttributeError, RecursionError):
        return {}
    return _features(info) if isinstance(info, dict) else {}


def label_names(feature: Feature | None) -> tuple[str, ...] | None:
    """Give the class names of a ClassLabel, or of a list of them; None for other features."""
    if feature is None:
        return None
    inner = feature.get("feature")
    if isinstance(inner, Mapping):
        return label_names(inner)
    if feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    number = feature.get("num_classes")
    return tuple(map(str, range(number))) if isinstance(number, int) and 0 < number <= 100_000 else None


def _yaml_head(file: Path) -> Mapping[str, Any]:
    import yaml

    text = _text(file)
    if not text.startswith("---"):
        return {}
    try:
        head = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---"))
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_text(file) or "{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace") if file.stat().st_size <= _MOST_BYTES else ""
    except OSError:
        return ""


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _splits(value: Any) -> dict[str, list[str]]:
    """Read `data_files`: a pattern, a list of patterns, or a list of splits with their patterns."""
    splits: dict[str, list[str]] = {}
    for one in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        entry = one if isinstance(one, dict) else {"path": one}
        paths = entry.get("path")
        for pattern in paths if isinstance(paths, list) else [paths]:
            if isinstance(pattern, str):
                splits.setdefault(str(entry.get("split", "train")), []).extend(_of_fnmatch(pattern))
    return splits


def _of_fnmatch(pattern: str) -> list[str]:
    """Write out what fnmatch does not know: `data/` is all below it, `**/` may be no folder, `{train,dev}` are two."""
    whole = f"{pattern}*" if pattern.endswith("/") else pattern
    try:
        return [each for one in expand_braces(whole) for each in expand_braces(one.replace("**/", "{**/,}"))]
    except InputError:  # too many
        return [whole]


def _features(info: Mapping[str, Any]) -> Mapping[str, Feature]:
    """Read features as JSON has them (a mapping by column) or as a card has them (a list of `name` and `dtype`)."""
    features = info.get("features")
    if isinstance(features, dict):
        return {str(name): feature for name, one in features.items() if (feature := _from_json(one))}
    return {str(one.get("name")): _from_card(one) for one in _dicts(features)}


def _from_json(one: Any) -> Feature:
    if isinstance(one, list):  # how older versions write a list of one kind
        return {"_type": "List", "feature": _from_json(one[0]) if one else {}}
    return one if isinstance(one, dict) else {}


def _from_card(one: Mapping[str, Any]) -> Feature:
    for key in ("sequence", "list"):
        if key in one:
            inner = one[key]
            return {"_type": "List", "feature": _from_card(inner if isinstance(inner, dict) else {"dtype": inner})}
    kind = one.get("dtype")
    label = kind.get("class_label") if isinstance(kind, dict) else one.get("class_label")
    if isinstance(label, dict):
        names = label.get("names")
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=lambda key: (len(str(key)), str(key)))]
        return {"_type": "ClassLabel", "names": names}
    return {"_type": "Image"} if kind == "image" else {"_type": "Value", "dtype": str(kind)}
