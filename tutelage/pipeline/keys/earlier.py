"""Stages of the version before, whose keys were other ones: what a run takes over of them, and why not the rest.

`Earlier.take` files a finished training of that version as the stage of today's inputs where each of them is shown to
be equal: its checkpoint is named by a hash of the images, the schedule, the weights that it started from and those of
its teachers (the fingerprint), which is computed anew from the inputs of today; the versions of the libraries are those
of the first row that the same process filed. The computation of the stage then reads the checkpoint and trains nothing.
Other stages lack an input that nothing shows, `LACKS`; they are computed anew, in seconds or minutes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.decoded.stored import open_stored
from tutelage.distill.training.checkpoint import fingerprint_of
from tutelage.files import sha256_of
from tutelage.pipeline.operations.board import open_store
from tutelage.pipeline.processes import num_processes
from tutelage.pipeline.workspace import Workspace
from tutelage.records import InputError
from tutelage.search.supernet.train_state import filed_fingerprint

from .filed import FiledInputs, FiledResult
from .stage_inputs import StageInputs

# Names of stages on disk in the version before, by their first words, and the stages of today that do the same.
_FORMER = {
    "teacher ": ("train teacher", "take weights"),
    "student ": ("train on labels", "distil", "take weights"),
    "supernet ": ("train supernet",),
    "search ": ("search",),
    "measure finalists": ("measure finalists",),
    "prune ": ("prune",),
    "compress ": ("export", "convert", "quantize"),
    "teach rounding to ": ("train with QAT", "quantize"),
    "evaluate ": ("evaluate",),
    "measure on ": ("measure",),
    "explain ": ("explain",),
}
LACKS = "the record of the version before lacks"
_LACKS = {
    "take weights": "how the images were decoded, and the versions of torch and timm",
    "search": "the versions of pymoo and scikit-learn",
    "measure finalists": "measure.tolerance, and the versions of torch and onnx",
    "prune": "the version of torch",
    "export": "the versions of onnx and onnxscript",
    "convert": "the version of the converter",
    "quantize": "the version of onnx",
    "evaluate": "how the images were decoded, and the version of the runtime",
    "measure": "measure.tolerance, and in which power state the device was",
    "explain": "how the images were decoded, and the version of torch",
}
_TRAININGS = ("train teacher", "train on labels", "distil", "train supernet", "train with QAT")
# Of the stages of one process the next begins when the last is done and its row is filed. A longer pause may be
# the end of one process and the beginning of another, with other libraries.
_PAUSE = timedelta(minutes=1)
# Libraries that write a file when the training is done: that is done by today's.
_WRITERS = ("onnx", "onnxscript")

# The computation of a stage, given the finished trainings that it may read and its folder.
Compute = Callable[[Mapping[str, Path], Path], dict[str, Any]]


class NotTrainedBeforeError(LookupError):
    """No finished training of the version before is the one that is asked for; the argument is its fingerprint."""


class _Finished(dict[str, Path]):
    """Checkpoints of finished trainings by their fingerprints."""

    def __missing__(self, fingerprint: str) -> Path:
        raise NotTrainedBeforeError(fingerprint)


class Earlier:
    """The finished stages of a workspace that the version before filed.

    `taken` holds the old key by the key of each stage that was taken over, `reasons` why another was not.
    """

    def __init__(self, workspace: Workspace, stages: Mapping[Path, FiledInputs]) -> None:
        self.taken: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.files = True  # False: say only what may be taken over
        self._workspace = workspace
        self._stages = stages
        self._kinds = {kind for filed in stages.values() for kind in _today(filed.stage)}

    def take(
        self, inputs: StageInputs, compute: Compute, images: NDArray[np.uint8], recipe: dict[str, Any] | None
    ) -> bool:
        """File the stage of `inputs` from a training of the version before and say so; else `reasons` holds why not.

        images: all of the run's, decoded, uint8 `(n, h, w, c)`.
        """
        if inputs.stage not in self._kinds:
            return False
        key, done = self._workspace.find(inputs)
        folder = self._workspace.path / "artifacts" / key
        if done is not None or key in self.reasons or folder.is_dir():  # one that this version began goes on
            return False
        if inputs.stage not in _TRAININGS:
            self.reasons[key] = f"{LACKS} {_LACKS[inputs.stage]}"
            return False
        if not self.files:
            self.reasons[key] = "a run looks whether that of the version before is the same"
            return False
        if '"sha256":"of ' in inputs.model_dump_json():  # it begins from a stage that is not done yet
            return False
        with self._workspace.locked():
            folder.mkdir(parents=True)
            try:
                self._take(inputs, compute, images, recipe, folder)
            except (NotTrainedBeforeError, InputError) as error:
                self.reasons[key] = str(error)
            finally:
                if key not in self.taken:
                    shutil.rmtree(folder)
        return key in self.taken

    def _take(
        self,
        inputs: StageInputs,
        compute: Compute,
        images: NDArray[np.uint8],
        recipe: dict[str, Any] | None,
        folder: Path,
    ) -> None:
        self._check(inputs)
        candidates = {one: name for one, name in self._fingerprints(inputs) if name}
        try:
            result = compute(_Finished({name: one / "checkpoint" for one, name in candidates.items()}), folder)
        except NotTrainedBeforeError:
            raise NotTrainedBeforeError(
                "no training of the version before has the same images, schedule, seed, start and teachers"
            ) from None
        # QAT files no weights: its network begins from a student's, so that its checkpoint's hash is of no other.
        sha256 = result.get("weights", {}).get("sha256")
        same = [one for one in candidates if sha256 is None or _weights_of(one) == sha256]
        notes = [FiledResult.read(one).result.get("notes", []) for one in same]
        if not same or (sha256 is not None and "notes" in result and result["notes"] not in notes):
            raise NotTrainedBeforeError("the weights that the version before filed are not those of its checkpoint")
        if inputs.model_dump()["images"]["fit"] is not None and not self._pixels_are(images):
            raise NotTrainedBeforeError(f"{LACKS} the decoded images, or files are decoded in another way")
        versions = self._versions(same[0])
        for name, version in inputs.versions.items():
            if name not in _WRITERS and versions.get(name) != version:
                was = versions.get(name)
                said = f"{name} {was} -> {version or 'absent'}" if was else f"{LACKS} the version of {name}"
                raise NotTrainedBeforeError(said)
        made_by: dict[str, str] = {name: versions[name] for name in ("tutelage", "python") if name in versions}
        self._workspace.stage(
            inputs.stage, inputs.key_values(), lambda _: result, title=inputs.title, recipe=recipe, made_by=made_by
        )
        self.taken[folder.name] = same[0].name

    def _check(self, inputs: StageInputs) -> None:
        """Refuse what the checkpoints of no training show."""
        said = inputs.model_dump(mode="json")
        schedule, distillation = said.get("schedule", said), said.get("distillation") or {}
        if num_processes() > 1:
            raise NotTrainedBeforeError("several processes train, and its checkpoints are read by one")
        if inputs.stage != "train supernet" and schedule.get("ema_decay") is not None:
            raise NotTrainedBeforeError("this version of tutelage computes the moving average in another way")
        if "mean_teacher" in distillation.get("options", {}):
            raise NotTrainedBeforeError("this version of tutelage computes the mean teacher in another way")
        if any(_origins(said)):
            raise NotTrainedBeforeError(f"{LACKS} the versions of plug-ins that take part")

    def _fingerprints(self, inputs: StageInputs) -> Iterator[tuple[Path, str]]:
        """Give the trainings of the version before that may be this one, each with the name of its checkpoint."""
        said = inputs.model_dump(mode="json")
        for folder, filed in self._stages.items():
            checkpoint = folder / "checkpoint"
            if inputs.stage not in _today(filed.stage):
                continue
            if inputs.stage != "train supernet":
                yield folder, fingerprint_of(checkpoint)
                continue
            # The checkpoint of a supernet says neither its teachers nor the file that it started from; its record does.
            start = "" if said["weights"] is None else said["weights"]["sha256"]
            teachers = [one["weights"]["sha256"] for one in said["teachers"]]
            if [filed.inputs.get("weights"), filed.inputs.get("teachers")] == [start, teachers]:
                yield folder, filed_fingerprint(checkpoint)

    def _pixels_are(self, images: NDArray[np.uint8]) -> bool:
        """Say whether the version before decoded the same images from the files of this workspace's runs.

        A fingerprint holds the pixels of the validation images and of some others; here all are compared.
        """
        for meta in self._workspace.path.glob("cache/*/*/meta.json"):
            try:
                if json.loads(meta.read_text()).get("version") != 1:
                    continue
                before = open_stored(meta.with_name("images.npy"))
            except (OSError, ValueError):
                continue
            parts = range(0, len(images), 256)
            if before.shape == images.shape and all(
                np.array_equal(before[start : start + 256], images[start : start + 256]) for start in parts
            ):
                return True
        return False

    def _versions(self, folder: Path) -> dict[str, str]:
        """Give the versions that the process that did a stage stamped on the first row that it filed afterwards.

        Empty where the stage was interrupted and went on, where a stage between it and the row was, or where the
        process may have been another one, see `_PAUSE`.
        """
        events = [one for one in self._workspace.journal() if {"event", "key", "time"} <= set(one)]
        mine = [place for place, one in enumerate(events) if one["key"] == folder.name and one["event"] == "start"]
        if len(mine) != 1:
            return {}
        running, last = folder.name, _time(events[mine[0]]["time"])
        finished = ""
        for event in events[mine[0] + 1 :]:
            now = _time(event["time"])
            row = next((row for row in self._rows if finished and _time(finished) <= _time(row[0]) <= now), None)
            if row is not None and _time(row[0]) - last <= _PAUSE:
                return row[1]
            if event["event"] == "start":
                if running or now - last > _PAUSE:
                    return {}
                running = event["key"]
            else:
                if event["key"] != running:
                    return {}
                running, finished = "", finished or event["time"]
            last = now
        row = next((row for row in self._rows if finished and row[0] >= finished), None)
        return row[1] if row is not None and not running and _time(row[0]) - last <= _PAUSE else {}

    @cached_property
    def _rows(self) -> list[tuple[str, dict[str, str]]]:
        """List when rows of this workspace's runs were filed, and with which versions, oldest first."""
        keys, own = {folder.name for folder in self._stages}, self._workspace.path / "leaderboard.db"
        found = []
        places = [own, self._workspace.store]
        for place in dict.fromkeys(one for one in places if one != own or own.is_file()):
            for row in open_store(place).history():
                made = (row.details.get("how") or {}).get("file") or {}
                versions = row.details.get("versions")
                if isinstance(versions, dict) and Path(made.get("path", "")).parent.name in keys:
                    known = {**versions, "python": row.details.get("python", "")}
                    found.append((row.created, {name: str(value) for name, value in known.items()}))
        return sorted(found, key=lambda one: one[0])


def find_earlier(workspace: Workspace) -> Earlier | None:
    """Find what the version before filed in a workspace; None where that is nothing, or the recipe started over.

    Stages of that version have no title.
    """
    folders = [done.parent for done in workspace.path.glob(f"artifacts/*/{FiledResult.FILE}")]
    filed = {folder: FiledInputs.find(folder) for folder in sorted(folders)}
    stages = {folder: one for folder, one in filed.items() if one is not None and not one.title}
    return Earlier(workspace, stages) if stages and workspace.attempt == 0 else None


def _today(stage: str) -> tuple[str, ...]:
    """Name the stages of today that do what a stage of the version before did."""
    return next((kinds for words, kinds in _FORMER.items() if stage.startswith(words)), ())


def _weights_of(folder: Path) -> str:
    file = folder / "weights.safetensors"
    return sha256_of(file) if file.is_file() else ""


def _origins(value: Any) -> Iterator[str]:
    """Give the distributions of plug-ins that nested inputs name."""
    if isinstance(value, dict):
        yield from (str(one) for name, one in value.items() if name == "origin" and one)
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _origins(one)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
