"""The details of rows as the page holds them: `bodies_of` gives those that fit, `halts_of` why a figure is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tutelage.leaderboard.comparisons.matrix import halted
from tutelage.leaderboard.export import finite

if TYPE_CHECKING:
    import pandas as pd

Details = Callable[[list[str]], Mapping[str, str]]

# What only `leaderboard show ROW --how` and the paired tests read; recipes hold paths of the machine they ran on.
_UNSHOWN = ("how", "predictions", "artifacts")
# Details stop at whichever comes first, rows on fronts before others: a phone opens the page, too.
_MOST_DETAILED = 2_000
_MOST_DETAIL_BYTES = 24_000_000
_CHUNK = 200


def bodies_of(found: pd.DataFrame, details: Details | None) -> dict[int, str]:
    """Give the details of rows by place, fronts first and then by quality, until one of the two limits is met."""
    if details is None and "details" not in found:
        return {}
    quality = found["auc"].fillna(found["accuracy"]).to_numpy(dtype=np.float64, na_value=-np.inf)
    order = np.lexsort((-quality, ~found["on_front"].to_numpy(dtype=bool)))[:_MOST_DETAILED]
    bodies: dict[int, str] = {}
    room = _MOST_DETAIL_BYTES
    for start in range(0, len(order), _CHUNK):
        places = order[start : start + _CHUNK].tolist()
        if details is None:
            texts = found["details"].iloc[places].tolist()
        else:
            ids = found["row_id"].iloc[places].tolist()
            by_id = details(ids)
            texts = [by_id.get(row_id, "") for row_id in ids]
        for place, text in zip(places, texts, strict=True):
            body = shown(text)
            room -= len(body)
            if room < 0:
                return bodies
            if body != "{}":
                bodies[place] = body
    return bodies


def halts_of(found: pd.DataFrame, bodies: Mapping[int, str], details: Details | None) -> dict[int, list[str]]:
    """Say of rows without a quality or a latency why they lack it, where their details do: state and reason."""
    lacks = found["latency_p50_ms"].isna() | (found["auc"].isna() & found["accuracy"].isna())
    places = np.flatnonzero(lacks.to_numpy() & (found["source"] == "measured").to_numpy()).tolist()
    unread = [place for place in places if place not in bodies]
    texts = dict(bodies)
    if details is None and "details" in found:
        texts |= {place: found["details"].iloc[place] for place in unread}
    elif details is not None:
        for start in range(0, len(unread), _CHUNK):
            ids = {found["row_id"].iloc[place]: place for place in unread[start : start + _CHUNK]}
            texts |= {ids[row_id]: text for row_id, text in details(list(ids)).items()}
    said = {place: halted(json.loads(texts.get(place) or "{}")) for place in places}
    return {place: [state, reason] for place, (state, reason) in said.items() if state != "absent"}


def shown(text: str) -> str:
    """Leave out what the page does not show and what JSON cannot say (NaN); list the classes in their order."""
    body = json.loads(text) if text else {}
    kept = {name: value for name, value in body.items() if name not in _UNSHOWN}
    if isinstance(classes := kept.get("per_class"), dict):  # JavaScript puts keys that are whole numbers first
        kept["per_class"] = [
            {"name": name} | (one if isinstance(one, dict) else {}) | {"name": name} for name, one in classes.items()
        ]
    if any(word in text for word in ("NaN", "Infinity")):
        kept = finite(kept)
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
