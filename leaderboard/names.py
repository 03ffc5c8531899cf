"""What a row is called and drawn as (`title`, `kind_of`, `family_of`), and its data and device.

Rows that are not comparable never have the same `data_names` and `device_names`: what tells equal names apart is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tutelage.records import DATA_KEY, DEVICE_KEY

# What a network is, and the words for it in a legend.
KINDS = {
    "teacher": "teacher",
    "baseline": "baseline",
    "distilled": "distilled student",
    "control": "control (no teacher)",
    "imported": "imported",
}


_MANIFEST_DIGITS = 8
# A name in a picture: at 6.5 points a third of a panel.
MOST_LETTERS = 32
_Key = tuple[Any, ...]


def kind_of(role: str, teacher: str, source: str) -> str:
    """Say which of `KINDS` a row is."""
    if source == "imported":
        return "imported"
    if role != "student":
        return role
    return "distilled" if teacher else "control"


@lru_cache(maxsize=4096)
def family_of(model: str, space: str = "") -> str:
    """Name the architecture family: of a searched network its space without the width, else the name without its size.

    `ofa_mbv3_w1.0_stem1` is ofa_mbv3; resnet18 and resnet50.tv_in1k are resnet, tf_efficientnet_b0 is efficientnet.
    """
    if space:
        return re.sub(r"_w[0-9.]+.*$", "", space)
    name = re.sub(r"^(tf|legacy)_", "", re.sub(r"\s.*$", "", model.strip()))
    first = re.split(r"[_.]", name)[0]
    if first.isalpha() or re.fullmatch(r"[A-Za-z]+v[0-9]", first):
        return first
    kept = re.sub(r"-[A-Za-z]*[0-9][A-Za-z0-9]*$", "", first)  # EEEA-Net-C1
    return re.sub(r"(?<=[A-Za-z])[0-9]+[a-z]*$", "", kept) or model


def title(model: str, teacher: str, scheme: str) -> str:
    """Name a row by model, teacher and scheme."""
    return "".join(_title_parts(model, brief_teacher(teacher) if teacher not in model else "", scheme))


def short_title(model: str, teacher: str, scheme: str) -> str:
    """Name a row in at most `MOST_LETTERS` for a picture: teachers by their number, long names without their middle."""
    named = "" if teacher in model else brief_teacher(teacher)
    if " + " in named:
        named = f"{named.count(' + ') + 1} teachers"
    model, distilled, precision = _title_parts(model, named, scheme)
    left = MOST_LETTERS - len(precision)
    if len(model) + len(distilled) > left:
        room = max(left - len(distilled), left // 2)
        model = _without_middle(model, room)
        distilled = distilled[:3] + _without_middle(distilled[3:], left - len(model) - 3) if distilled else ""
    return f"{model}{distilled}{precision}"


def _title_parts(model: str, teacher: str, scheme: str) -> tuple[str, str, str]:
    precision = " int8" if "int8" in scheme and "int8" not in model else ""
    return model, f" ← {teacher}" if teacher else "", precision


def _without_middle(name: str, most: int) -> str:
    """Leave out the middle of a longer name; its last word stays whole where that is no longer than half."""
    if len(name) <= most:
        return name
    tail = re.split(r"[_\-. ]", name)[-1]
    if not 0 < len(tail) <= most // 2:
        tail = name[1 - most // 2 :]
    return f"{name[: most - len(tail) - 1].rstrip('_-. ')}…{tail}"


@lru_cache(maxsize=1024)
def brief_teacher(teacher: str) -> str:
    """Name teachers without patch size and resolution."""
    return " + ".join(re.sub(r"_patch\d+.*$", "", name) for name in re.split(r"\s*[+,&]\s*", teacher))


def data_names(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name the data of each row: set, split and fold; image size and manifest where only these differ."""
    keys = list(zip(*(columns[name] for name in DATA_KEY), strict=True))
    return _named(keys, [""] * len(keys), _data, _data_parts)


def device_names(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name the device of each row with batch and threads, where they are not one; "" for a row without a device.

    Processor, runtime, precision and power state are added where devices of the same data differ only in these.
    """
    keys = list(zip(*(columns[name] for name in DEVICE_KEY), strict=True))
    return _named(keys, data_names(columns), _device, _device_parts)


def key_parts(values: Mapping[str, Any]) -> dict[str, str]:
    """Say in words each part of the key that a row is compared by; what is not known is said to be so."""
    data = _data_parts(tuple(values[name] for name in DATA_KEY))
    device = _device_parts(tuple(values[name] for name in DEVICE_KEY))
    return {**data, **device}


def _named(
    keys: Sequence[_Key], within: Sequence[str], name: Callable[[_Key], str], parts: Callable[[_Key], dict[str, str]]
) -> list[str]:
    """Name keys, each apart from the others within the same; a key that has no name stays without one."""
    alike: dict[tuple[str, str], list[_Key]] = {}
    for where, key in dict.fromkeys(zip(within, keys, strict=True)):
        alike.setdefault((where, name(key)), []).append(key)
    names = {}
    for (where, brief), same in alike.items():
        said = [parts(key) for key in same]
        telling = [part for part in said[0] if brief and len({one[part] for one in said}) > 1]
        for key, one in zip(same, said, strict=True):
            names[where, key] = " · ".join([brief, *(one[part] for part in telling)])
    return [names[where, key] for where, key in zip(within, keys, strict=True)]


def _data(key: _Key) -> str:
    dataset, _, split, fold, _ = key
    parts = [dataset, split if split not in (None, "", "test") else "", "" if fold is None else f"fold {fold:g}"]
    return " · ".join(part for part in parts if part)


def _data_parts(key: _Key) -> dict[str, str]:
    _, manifest, split, fold, size = key
    return {
        "split": split or "split not known",
        "fold": "no fold" if fold is None else f"fold {fold:g}",
        "image size": "image size not known" if size is None else f"images of {size:g} px",
        "manifest": f"manifest {manifest[:_MANIFEST_DIGITS]}" if manifest else "manifest not known",
    }


def _device(key: _Key) -> str:
    device, *_, threads, batch, _, _ = key
    if not device:
        return ""
    more = [f"batch {batch:g}" if (batch or 1) > 1 else "", f"{threads:g} threads" if (threads or 1) > 1 else ""]
    return " · ".join(part for part in (device, *more) if part)


def _device_parts(key: _Key) -> dict[str, str]:
    _, processor, runtime, version, threads, batch, precision, power = key
    return {
        "processor": processor or "processor not known",
        "runtime": f"{runtime} {version}" if version else f"{runtime or 'runtime'}, version not known",
        "threads": "threads not known" if threads is None else f"{threads:g} thread{'s' * (threads != 1)}",
        "batch": "batch not known" if batch is None else f"batch {batch:g}",
        "precision": precision or "precision not known",
        "power state": power or "power state not known",
    }
