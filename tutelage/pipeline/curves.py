"""What a row's page draws besides its details: learning curves, ROC, calibration, trials, paths, times of layers.

`with_curves` wraps what gives details by row id (`Store.details`). Curves are read of a workspace that holds the row's
artifacts, or fetched them; elsewhere the details stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tutelage.leaderboard.plots.search import objective_words
from tutelage.records import InputError, Row, bounded_text, parsed_json

from .sharing.fetched import RowFiles, hashes_of
from .workspace import CHECKPOINT

Details = Callable[[list[str]], Mapping[str, str]]
Floats = NDArray[np.float64]

# Of a training, beside its weights: one record an epoch (`TrainResult.history`).
HISTORY = "history.json"
# Of a workspace: what `bench --layers` found of rows' files, a file a row.
LAYERS = "layers"
# A page holds the details of up to 2,000 rows: curves are thinned to what a drawing of 400 pixels shows.
_POINTS, _EPOCHS, _CLASSES, _BINS, _TRIALS = 48, 120, 15, 10, 300
_LEARNT = ("loss", "val_loss", "val_accuracy", "val_auc")
# What `distill.training.checkpoint` writes after each epoch; read without importing torch.
_OF_EPOCHS = "epoch-*[0-9]/state.json"
_STAGE = re.compile(r"[0-9a-f]{16}(?:-\d+)?")
_ROW_ID = re.compile(r"[0-9A-Za-z-]{1,80}")
_ARTIFACT = re.compile(r"artifacts/[\w./+@=-]{1,400}", re.ASCII)
# Folders of the machine that a run was started on are not for a page that is passed on.
_FOLDERS = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?(?:[/\\][^\s'\"/\\]+)+(?=[/\\])")


def with_curves(details: Details, workspace: Path) -> Details:
    """Give details with `curves`, `made` and `layers` added; what was read of an artifact is kept for the next page."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    files = RowFiles(workspace)

    def read(ids: list[str]) -> Mapping[str, str]:
        found = {row_id: _extended(text, files, known) for row_id, text in details(ids).items()}
        return {row_id: _with_layers(text, layers_file(workspace, row_id)) for row_id, text in found.items()}

    return read


def with_learning(state: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """Give what a run does (`live.state_of`) with the learning curves of the trainings that go on.

    They are read of the checkpoint that a training leaves after each epoch.
    """
    found = []
    for title, folder in state.get("folders", {}).items():
        if not _STAGE.fullmatch(folder):
            continue
        files = sorted(workspace.glob(f"artifacts/{folder}/{CHECKPOINT}/{_OF_EPOCHS}"))
        if learning := _learning(files[-1] if files else None, "history"):
            found.append({"title": title, **learning})
    rest = {name: value for name, value in state.items() if name != "folders"}
    return {**rest, "learning": found} if found else rest


def details_of_rows(rows: Sequence[Row]) -> Details:
    """Give the details of rows that are at hand, as a store does."""
    texts = {row.key: json.dumps(row.details, ensure_ascii=False, default=str) for row in rows}
    return lambda ids: {row_id: texts[row_id] for row_id in ids if row_id in texts}


def _extended(text: str, files: RowFiles, known: dict[tuple[str, ...], dict[str, Any]]) -> str:
    body: dict[str, Any] = json.loads(text) if text else {}
    how = body.get("how") or {}
    weights = str(((how.get("network") or {}).get("weights") or {}).get("path") or "")
    predictions = str(body.get("predictions") or "")
    hashes = hashes_of(body)
    searched = str((body.get("search") or {}).get("file") or "")
    key = (weights, predictions, hashes.get(weights, ""), hashes.get(predictions, ""), searched)
    if key not in known:
        names = list(body["per_class"]) if isinstance(body.get("per_class"), dict) else []
        found = {
            "learning": _learning(_history(files, body, weights)),
            **_of_predictions(_inside(files, body, predictions), names),
            "trials": _trials(_inside(files, body, searched)),
        }
        known[key] = {name: value for name, value in found.items() if value}
    made = {
        "command": _FOLDERS.sub("…", str(how.get("command") or "")),
        "file": relative_path((how.get("file") or {}).get("path")),
    }
    more = {"curves": known[key], "made": {name: value for name, value in made.items() if value}}
    said = {name: value for name, value in body.items() if name != "made"}  # this workspace says it, and no row
    return json.dumps(said | {name: value for name, value in more.items() if value}, ensure_ascii=False)


def _trials(file: Path | None) -> dict[str, Any]:
    """Read the trials of a search in their order, thinned: what was scored, and each cost, in words with its unit."""
    if file is None:
        return {}
    try:
        found = parsed_json(bounded_text(file))
        scored = next(name for name, cheap in found["cheap"].items() if not cheap)
        rows = [found["evaluated"][place] for place in _thin(len(found["evaluated"]), _TRIALS)]
        figures = {name: [_rounded(_value_of(row, name)) for row in rows] for name in found["cheap"]}
        is_max = found["objectives"][scored] == "max"
        kept = [int(bool(row.get("feasible", True))) for row in rows]
    except (OSError, InputError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return {}
    costs = []
    for name in (name for name in figures if name != scored):
        words, scale = objective_words(name)
        costs.append({"name": words, "values": [None if value is None else value / scale for value in figures[name]]})
    return {
        **{"scored": objective_words(scored)[0], "better": 1 if is_max else -1, "of": len(found["evaluated"])},
        **{"scores": figures[scored], "costs": costs, "kept": kept},
    }


def _value_of(row: Mapping[str, Any], name: str) -> Any:
    """Give a figure of a trial: measured if it was, else counted, else predicted (`SearchResult`)."""
    return next((row[kind][name] for kind in ("measured", "counted", "predicted") if name in row.get(kind, {})), None)


def layers_file(workspace: Path, row_id: str) -> Path | None:
    """Name the file of a row's times by layer; None for an id that is no name of a file."""
    return workspace / LAYERS / f"{row_id}.json" if _ROW_ID.fullmatch(row_id) else None


def _with_layers(text: str, file: Path | None) -> str:
    """Add the layers that a file holds; one that is not there or damaged adds nothing."""
    if file is None or not file.is_file():
        return text
    try:
        found = [
            {
                **{"name": str(one["name"]), "operator": str(one["operator"]), "ms": float(one["ms"])},
                **({"note": str(one["note"])} if one.get("note") else {}),
            }
            for one in json.loads(file.read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return text
    return json.dumps({**json.loads(text), "layers": found}, ensure_ascii=False)


def relative_path(path: Any) -> str:
    """Give a path of an artifact as it stands; one of somebody's machine, or that a shell would read, is not shown."""
    is_one = isinstance(path, str) and _ARTIFACT.fullmatch(path) and ".." not in PurePath(path).parts
    return str(path) if is_one else ""


def _inside(files: RowFiles, body: Mapping[str, Any], path: str) -> Path | None:
    return files.find(body, path) if relative_path(path) else None


def _history(files: RowFiles, body: Mapping[str, Any], weights: str) -> Path | None:
    """Find the learning curve of the training that made some weights."""
    return _inside(files, body, str(PurePosixPath(weights).parent / HISTORY)) if weights else None


def _learning(file: Path | None, inside: str = "") -> dict[str, list[Any]]:
    """Read the epochs of a training, of a field of a file where one is named; many are thinned, the last kept."""
    if file is None:
        return {}
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        records = records[inside] if inside else records
        kept = [records[place] for place in _thin(len(records), _EPOCHS)]
        curves = {name: [_rounded(record.get(name)) for record in kept] for name in _LEARNT}
        epochs = [int(record["epoch"]) + 1 for record in kept]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return {}  # a damaged file, or one that the next epoch has just replaced, takes no page down
    shown = {name: values for name, values in curves.items() if any(value is not None for value in values)}
    return {"epoch": epochs, **shown} if shown else {}


def _of_predictions(file: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """Compute ROC and calibration of the test predictions that a run filed; empty where they are not here."""
    if file is None or not file.is_file():
        return {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            probs, labels = arrays["test_probs"].astype(np.float64), arrays["test_labels"].astype(np.float64)
    except (ValueError, KeyError, EOFError, OSError, BadZipFile):
        return {}
    if probs.ndim != 2 or len(probs) != len(labels) or not len(probs):
        return {}
    return {"roc": roc_points(probs, labels, names), "calibration": calibration_bins(probs, labels)}


def roc_points(probs: Floats, labels: Floats, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Give the ROC curve of each class against the rest: false and true positive rates, thinned.

    probs: (images, classes). labels: (images,) of classes, or (images, classes) of 0, 1 and NaN for unknown. Of two
    classes only the second is drawn; a class that no image or every image has, has none.
    """
    from sklearn.metrics import roc_curve

    curves = {}
    classes = range(1, 2) if probs.shape[1] == 2 and labels.ndim == 1 else range(min(probs.shape[1], _CLASSES))
    for place in classes:
        truth = labels[:, place] if labels.ndim == 2 else (labels == place).astype(np.float64)
        known = np.isfinite(truth)
        if len(np.unique(truth[known])) < 2:
            continue
        false, true, _ = roc_curve(truth[known] > 0.5, probs[known, place])
        kept = _thin(len(false), _POINTS)
        name = names[place] if place < len(names) else f"class {place}"
        curves[name] = [[round(float(value), 4) for value in rates[kept]] for rates in (false, true)]
    return curves


def calibration_bins(probs: Floats, labels: Floats) -> list[list[float]]:
    """Give [mean confidence, fraction right, images] of each bin of confidence that holds any.

    The bins are those of the expected calibration error: ten of equal width, of the predicted class; of multi-label
    data of every output. Sources: Guo et al. 2017 (arXiv:1706.04599), section 2.
    """
    if labels.ndim == 2:
        known = np.isfinite(labels)
        confidence, right = np.maximum(probs, 1 - probs)[known], ((probs >= 0.5) == (labels > 0.5))[known]
    else:
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        [
            round(float(confidence[bins == one].mean()), 4),
            round(float(right[bins == one].mean()), 4),
            int((bins == one).sum()),
        ]
        for one in np.unique(bins)
    ]


def _thin(size: int, most: int) -> NDArray[np.int64]:
    """Choose at most so many of some places, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))


def _rounded(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(f"{value:.4g}") if is_number else None
