"""Bundles of a run's students: which rows are bundled (`bundled_rows`), and the stage that writes one (`bundle_rows`).

A bundle is made in the folder of its stage and copied to `bundles/RECIPE/STUDENT` of the workspace.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tutelage.accelerator import CPU
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.distill.data.images import Fit
from tutelage.files import sync, sync_tree
from tutelage.leaderboard.best import PairTest, best_student, best_students, fitting, is_deployable
from tutelage.leaderboard.pareto import on_front
from tutelage.pipeline.context import Context, Resources, run_stage
from tutelage.pipeline.keys.stage_inputs import FileInput, ImagesInput, NetworkInput, StageInputs, versions_of
from tutelage.pipeline.operations.bundle import made_of, origin_of, write_row_bundle
from tutelage.pipeline.operations.paired import RowFigures
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.sharing.fetched import FIELD
from tutelage.quant.bundle.manifest import RUNTIMES
from tutelage.quant.bundle.write import load_bundle
from tutelage.records import InputError, Row

from .training import network_input

log = logging.getLogger(__name__)

BUNDLED = tuple(sorted({runtime for runtimes in RUNTIMES.values() for runtime in runtimes}))
_FOLDER = "bundle"
_UNSAFE = re.compile(r"[^\w.-]+")  # what a name of a network may hold and a folder should not


@dataclass(frozen=True)
class MadeBundle:
    """A bundle of a run: the row that it is of, and where it lies."""

    row: Row
    folder: Path


class BundleInputs(StageInputs):
    """The bundle of one row: its file, the network it was made of, and the figures that its model card holds."""

    STAGE: ClassVar[str] = "bundle"
    VERSION: ClassVar[int] = 2  # the manifest names the runtime's version, predict.py prints thresholds

    images: ImagesInput
    network: NetworkInput
    file: FileInput
    runtime: str
    card: dict[str, Any]  # the row as far as its card reads it: without when and by which recipe it was made
    origin: str
    row: Row = Field(exclude=True)

    @property
    def fit(self) -> Fit:
        """Give how pictures become square."""
        fits: dict[str | None, Fit] = {"crop": "crop", "pad": "pad"}
        return fits.get(self.images.fit, "squash")


def check_bundled(devices: Sequence[DeviceSection], rows: str) -> None:
    """Refuse bundles where no device runs what a bundle can hold."""
    if rows != "none" and devices and not any(section.runtime in BUNDLED for section in devices):
        runtimes = ", ".join(section.runtime for section in devices)
        raise InputError(
            f"bundle.rows is {rows}, and the devices run {runtimes}: bundles are made for {' and '.join(BUNDLED)}; add "
            "such a device, or set bundle.rows to none"
        )


def bundled_rows(rows: Sequence[Row], which: str, test: PairTest | None = None) -> list[Row]:
    """Choose the rows of a run that are bundled: `none`, `best` (one a device), or those of the `front`'s students.

    A student of the front is a network with a row that the leaderboard marks. Of its rows on that device the best by
    validation is taken, by the one rule for the best (`leaderboard/best.py`): an int8 file that lost too much is marked
    where it is the smallest, and is nothing to deploy. Where baselines or teachers dominate every student, the best one
    is bundled, as a run must end with something to deploy. Files that are above a memory limit are left out on each
    device where another one fits.
    """
    files = [row for row in rows if is_deployable(row) and row.runtime in BUNDLED]
    if which == "none" or not files:
        return []
    if which == "best":
        return best_students(files, test)
    devices = dict.fromkeys(row.device for row in files)
    fit = [row for device in devices for row in fitting([one for one in files if one.device == device])]
    marked = {(row.device, row.model) for row, flag in zip(rows, on_front(rows), strict=True) if flag}
    networks: dict[tuple[str, str], list[Row]] = {}
    for row in fit:
        if (row.device, row.model) in marked:
            networks.setdefault((row.device, row.model), []).append(row)
    chosen = [best for some in networks.values() if (best := best_student(some, test)) is not None]
    if not chosen:
        log.warning("no student is on the front: the best by validation is bundled")
        return best_students(files, test)
    return sorted(chosen, key=lambda row: (row.device, row.latency_p50_ms or 0.0, row.model))


def bundle_rows(ctx: Context, rows: Sequence[Row]) -> list[MadeBundle]:
    """Make the bundles that the recipe asks for of a run's rows; one whose inputs are as they were is not made again.

    Each is checked as `tutelage bundle` does: its file gives the predictions of its row.
    """
    test = RowFigures(ctx.workspace.path, "val").compare
    chosen = bundled_rows(rows, ctx.recipe.bundle.rows, test)
    place = ctx.workspace.path / "bundles" / ctx.recipe.name
    names = folder_names(chosen)
    return [MadeBundle(row, _published(ctx, row, place / name)) for row, name in zip(chosen, names, strict=True)]


def folder_names(rows: Sequence[Row]) -> list[str]:
    """Name a folder for each row: its model, and its device where there are several; each name once, none hidden.

    A title may hold what a folder's name cannot, or be one that means another folder (`..`).
    """
    several = len({row.device for row in rows}) > 1
    names: list[str] = []
    for row in rows:
        name = _UNSAFE.sub("-", f"{row.model}-{row.device}" if several else row.model).strip(".-")
        is_free = name and name.lower() not in {other.lower() for other in names}
        names.append(name if is_free else f"{name}-{row.key[:8]}".strip("-"))
    return names


def _published(ctx: Context, row: Row, place: Path) -> Path:
    """Make the bundle of a row and copy it to its place, unless the very same lies there."""
    _, network, file = made_of(row)
    values = row.to_dict()
    details = {name: value for name, value in row.details.items() if name not in ("how", FIELD)}
    part = network_input(network)
    inputs = BundleInputs(
        title=f"bundle {row.model} {row.scheme} {row.runtime}",
        versions=versions_of([*part.libraries, find_runtime(row.runtime).distribution]),
        images=ctx.images_input,
        network=part,
        file=FileInput.of(file),
        runtime=row.runtime,
        card={**{name: value for name, value in values.items() if name != "created"}, "details": details},
        origin=origin_of(ctx.recipe),
        row=row,
    )
    stage = run_stage(ctx, inputs, _make)
    if _id_of(place) != stage.result["manifest_id"]:
        _copy(stage.folder / _FOLDER, place)
    return place


def _make(inputs: BundleInputs, here: Resources, folder: Path) -> dict[str, Any]:
    out = folder / _FOLDER
    shutil.rmtree(out, ignore_errors=True)  # of an attempt that was stopped
    made = write_row_bundle(
        replace(here, accelerator=CPU),
        inputs.row,
        inputs.network.student,
        here.workspace.path / inputs.file.path,
        out=out,
        fit=inputs.fit,
        origin=inputs.origin,
    )
    return {"manifest_id": made.manifest_id, "parity": made.parity.to_dict()}


def _id_of(place: Path) -> str:
    """Give the id of the bundle that lies there; empty where there is none, or one that was changed."""
    with suppress(InputError):
        return load_bundle(place).manifest_id
    return ""


def _copy(made: Path, place: Path) -> None:
    """Put a copy in its place, whole or not at all; what lay there before is replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    aside, before = (place.parent / f".{kind}-{os.getpid()}-{place.name}" for kind in ("new", "old"))
    for folder in (aside, before):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, aside)
    sync_tree(aside)
    if place.exists():
        place.rename(before)
    aside.rename(place)
    sync(place.parent)
    shutil.rmtree(before, ignore_errors=True)
