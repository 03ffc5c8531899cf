"""What one row is of: its data, its device, what made it, and whether a later row or a person took it back.

`provenance` gives it as one mapping; `lines` says it for people. What a row of an older version or of another program
does not say is named as unknown: such a row is comparable with those that lack the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tutelage.leaderboard.columns import column
from tutelage.leaderboard.names import key_parts
from tutelage.records import DATA_KEY, DEVICE_KEY, Row

if TYPE_CHECKING:
    from tutelage.leaderboard.store import Store


def provenance(store: Store, row: Row) -> dict[str, Any]:
    """Give what is known of where a row comes from; names are those of columns where there is one."""
    made = row.details.get("how") or {}
    folds = ((made.get("recipe") or {}).get("data") or {}).get("folds") if row.fold is not None else None
    weights = ((made.get("network") or {}).get("weights") or {}).get("sha256")
    return {
        "row_id": row.key,
        **store.former(row.key),
        "data": {
            **{name: getattr(row, name) for name in DATA_KEY},
            "folds": folds,
            "test_images": row.details.get("test_images"),
            "resolution": row.details.get("side_px"),
        },
        "device": {name: getattr(row, name) for name in DEVICE_KEY},
        "unknown": [name for name in (*DATA_KEY, *DEVICE_KEY) if _is_unknown(row, name)],
        "num_comparable": len(store.peers(row, ("row_id",))["row_id"]),
        "source": row.source,
        "imported_from": row.details.get("imported_from"),
        "command": made.get("command"),
        "recipe": row.recipe,
        "settings": made.get("settings"),
        "seed": row.seed,
        "notes": list(row.details.get("notes") or (made.get("network") or {}).get("notes") or ()),
        "weights_sha256": weights,
        "file_sha256": (made.get("file") or {}).get("sha256"),
        "python": row.details.get("python"),
        "versions": row.details.get("versions") or {},
    }


def lines(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say it line by line: a name, and its words."""
    data, device = said["data"], said["device"]
    parts = key_parts({**data, **device})
    fold = parts["fold"] + (f" of {data['folds']}" if data["folds"] else "")
    yield "row", said["row_id"]
    yield "status", status(said)
    if said["settings"] is None and said["command"] is not None:
        yield (
            "superseded",
            (
                "by no later run: it was filed without the settings that a later run of the same is known by; run its "
                f'command again, then `tutelage leaderboard retract {said["row_id"][:8]} --reason "run again"`'
            ),
        )
    images = "" if data["test_images"] is None else f"{data['test_images']} test images"
    split = f"split {data['split']}" if data["split"] else parts["split"]
    yield "data", _joined(data["dataset"], parts["manifest"], split, fold, parts["image size"], images)
    if data["resolution"] is not None:
        yield "network takes", f"images of {data['resolution']} px"
    if device["device"]:
        words = ("processor", "runtime", "threads", "batch")
        precision = f"precision {device['precision']}" if device["precision"] else parts["precision"]
        yield "device", _joined(device["device"], *(parts[word] for word in words), precision, parts["power state"])
    else:
        yield "device", "none: it was not measured on a device"
    yield "comparable", _comparable(said)
    yield "source", f"imported from {said['imported_from']}" if said["imported_from"] else said["source"]
    if said["command"] is None:
        yield "made by", "not known: the row does not say how it was made"
    else:
        yield "command", str(said["command"])
        yield "recipe", f"{said['recipe']}, seed {said['seed']}"
        if said["settings"] is not None:
            yield "settings", ", ".join(_flat(said["settings"])) or "all at their defaults"
    for note in said["notes"]:
        yield "note", str(note)
    for name, label in (("weights_sha256", "weights"), ("file_sha256", "file")):
        if said[name]:
            yield label, f"sha256 {said[name][:16]}"
    for name, version in said["versions"].items():
        yield f"version {name}", str(version)
    if said["python"]:
        yield "python", str(said["python"])


def _is_unknown(row: Row, name: str) -> bool:
    """Say whether a part of the key is not known; without a fold or a device there is nothing to know."""
    if name == "fold" or (name in DEVICE_KEY and not row.device):
        return False
    return getattr(row, name) in ("", None)


def status(said: Mapping[str, Any]) -> str:
    """Say in words whether a row is current, and if not, why; it takes `Store.former` or what holds the same."""
    if said["retracted"]:
        return f"retracted: {said['retracted']}"
    if said["superseded_by"]:
        return f"superseded by {said['superseded_by']}, a later run of the same"
    return "current"


def _comparable(said: Mapping[str, Any]) -> str:
    is_current = not said["retracted"] and not said["superseded_by"]
    others = said["num_comparable"] - is_current
    words = f"with {others} other row{'s' * (others != 1)} of the same data and device"
    if not is_current:
        words = f"with none, since it is not current; {others} row{'s' * (others != 1)} of the same data and device"
    if said["unknown"]:
        names = ", ".join(column(name).name_for_people for name in said["unknown"])
        words += f"; not known, so only with rows that lack it too: {names}"
    return words


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            for place, one in enumerate(value):
                yield from _flat(one, f"{path}.{place}.")
        else:
            yield f"{path}={value}"
