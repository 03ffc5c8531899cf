"""Compare the files of a run's students with its memory limits: `held_to_memories`, `above`.

Finalists of a search were compared with inherited weights. What is deployed is the trained network: its file is the
row's or, for a target, the int8 file for TFLite Micro, which is made here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tutelage.accelerator import CPU
from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.convert import converter_version
from tutelage.bench.converters.litert import convert_to_litert, converter_ready
from tutelage.bench.micro.arena import arena_of
from tutelage.bench.micro.convert import for_micro
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.leaderboard.best import OVER_BUDGET
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Opened, Resources, run_stage
from tutelage.pipeline.keys.stage_inputs import ImagesInput, NetworkInput, StageInputs, versions_of
from tutelage.pipeline.objectives import deploys_int8
from tutelage.pipeline.operations.bundle import made_of
from tutelage.pipeline.recipe import Recipe, with_changes
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import InputError, NotAvailableError, Row, Student

from .budgets import MemoryBound, held_bounds, memory_bounds
from .compress import Variant
from .quantization import calibration_images, quantizers
from .training import network_input

# In a row's details: bytes and arena of the network's int8 file for the target of the run.
TARGET_FILE = "target_file"


class TargetFilesInputs(StageInputs):
    """The int8 files for a microcontroller of networks that were trained, whose bytes and arena are read."""

    STAGE: ClassVar[str] = "files for the target"

    images: ImagesInput
    networks: tuple[NetworkInput, ...]
    calibration_images: int
    seed: int

    @property
    def places(self) -> dict[str, str]:
        return {"calibration_images": "quantize.calibration_images"}

    def promise(self, key: str) -> dict[str, Any]:
        return {"files": []}


def held_to_memories(ctx: Context, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Give, by the file's hash, the details of rows of students: the target's file, and what is above the bounds.

    A file for the target that cannot be made now is noted: the run goes on without its figures, and a later one tries.
    """
    bounds = held_bounds(ctx.recipe, ctx.workspace.path)
    mine = [variant for variant in variants if variant.student.role == "student"]
    if bounds == (None, None) or not mine:
        return {}
    found: dict[str, dict[str, Any]] = {}
    made = _files_or_notes(ctx, mine) if ctx.recipe.search.target is not None else {}
    for variant in mine:
        about = made.get(_hash(variant.student))
        details: dict[str, Any] = {} if about is None else {TARGET_FILE: about}
        over = _over(ctx.recipe, bounds, variant.file.size_bytes, about)
        found[variant.file.sha256] = details | ({OVER_BUDGET: over} if over else {})
    return found


def over_in_bundle(
    row: Row, workspace: Path, sizes: tuple[int, int] | None = None, changes: Sequence[str] = ()
) -> list[str]:
    """Say what of the file that is bundled is above the memory limits of the run of its row, a sentence each.

    sizes: of a bundle for a microcontroller, the bytes of its file and its arena. Another bundle of a run for a target
    holds another file than the one that was compared: the sentences say so. changes: `section.key=value` of the recipe.
    """
    recipe = with_changes(made_of(row)[0], changes)
    if row.role != "student":
        return []
    try:
        bounds = memory_bounds(recipe, workspace)
    except InputError as error:  # a target that this workspace does not know
        return [f"it was not compared with the memory limits of its run: {error}"]
    if sizes is not None:
        return above(*sizes, bounds)
    about = row.details.get(TARGET_FILE)
    over = _over(recipe, bounds, row.size_bytes, about)
    if recipe.search.target is None or about is None or "refused" in about:
        return over
    return [f"the network's int8 file for {recipe.search.target}, not the file in this bundle: {line}" for line in over]


def over_lines(rows: Sequence[Row], recipe: Recipe) -> list[str]:
    """Say a line for each student whose deployed file is above a bound: of a target, or of the deployed precision."""
    int8, lines = deploys_int8(recipe), []
    for row in rows:
        over = row.details.get(OVER_BUDGET)
        if not over or (recipe.search.target is None and (row.scheme != "fp32") != int8):
            continue
        file = "" if recipe.search.target is not None else f" {row.scheme}, {row.runtime}"
        trained = f"from {row.teacher}" if row.teacher else "without a teacher"
        lines.append(f"{row.model}{file} ({trained}) does not fit: {'; '.join(over)}")
    return list(dict.fromkeys(lines))


def above(
    file_bytes: float | None, arena_bytes: float | None, bounds: tuple[MemoryBound | None, MemoryBound | None]
) -> list[str]:
    """Say which of a file's bytes and arena are above the bounds on flash and RAM; None is not known."""
    sizes = zip(("flash", "RAM"), (file_bytes, arena_bytes), bounds, strict=True)
    return [
        f"{what} {size:,.0f} bytes is above the budget of {bound.text} ({bound.source})"
        for what, size, bound in sizes
        if size is not None and bound is not None and size > bound.size
    ]


def micro_files(
    here: Opened, students: Sequence[Student], number: int, seed: int, folder: Path
) -> list[Path | InputError]:
    """Write the int8 file of each network for TFLite Micro, calibrated on the images of other int8 files.

    Gives the reason in the place of a file that cannot be made. Reasons name networks: what is filed of them may hold
    no path of `folder`. Raises NotAvailableError for what may be possible later.
    """
    jobs: list[Conversion] = []
    for place, student in enumerate(students):
        side = here.resolution(student)
        onnx, shape = folder / f"{place}.onnx", (1, here.channels, side, side)
        export_onnx(networks.load(here, student), onnx, shape, dynamic_batch=False)
        jobs.append(Conversion(onnx, folder / f"{place}-float.tflite", shape))
    try:
        convert_to_litert(jobs)  # together, since the converter takes seconds to start
    except NotAvailableError as error:
        raise NotAvailableError(_named(error, students, folder)) from error
    except InputError:  # one of them: each by itself says which
        pass
    made: list[Path | InputError] = []
    for place, (job, student) in enumerate(zip(jobs, students, strict=True)):
        images = calibration_images(here, job.shape[-1], number, seed, student.normalisation)
        try:
            if not job.target.is_file():
                convert_to_litert([job])
            made.append(for_micro(job.target, folder / f"{place}.tflite", images))
        except NotAvailableError as error:
            raise NotAvailableError(_named(error, students, folder)) from error
        except InputError as error:
            made.append(InputError(_named(error, students, folder)))
    return made


def _named(error: InputError, students: Sequence[Student], folder: Path) -> str:
    """Give an error's text with the networks' names in the place of their files in a folder."""
    text = str(error)
    for root in dict.fromkeys((str(folder), str(folder.resolve()))):
        files = re.compile(rf"{re.escape(root)}/(\d+)[\w.-]*")
        text = files.sub(lambda found: students[int(found[1])].model, text)
    return text


def _over(
    recipe: Recipe,
    bounds: tuple[MemoryBound | None, MemoryBound | None],
    size_bytes: int | None,
    about: dict[str, Any] | None,
) -> list[str]:
    """Compare the target's file, or without a target the row's own; its RAM was counted, and the search held that."""
    if recipe.search.target is None:
        return above(size_bytes, None, bounds)
    if about is None:
        return []
    if "refused" in about:
        return [f"no file for {recipe.search.target} can be made of it: {about['refused']}"]
    return above(about["file_bytes"], about["arena_bytes"], bounds)


def _hash(student: Student) -> str:
    return "" if student.weights is None else student.weights.sha256


def _files_or_notes(ctx: Context, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Give what `_target_files` gives, without the networks of which no file can be made now: they are noted."""
    try:
        return _target_files(ctx, variants)
    except NotAvailableError as error:
        each = {_hash(one.student): one for one in variants if one.student.weights is not None}
        if len(each) > 1 and converter_ready():  # one of them ended it: the others have their files
            return {key: about for one in each.values() for key, about in _files_or_notes(ctx, [one]).items()}
        names = ", ".join(dict.fromkeys(one.student.model for one in variants))
        ctx.note(
            f"{names}: not compared with the memory limits, as no file for {ctx.recipe.search.target} was made: "
            f"{error}; the same run tries it again"
        )
        return {}


def _target_files(ctx: Context, variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Make the files of all trained networks in one stage; gives what is known of each by the hash of its weights."""
    students = {_hash(variant.student): variant.student for variant in variants if variant.student.weights is not None}
    parts = tuple(network_input(student) for student in students.values())
    litert = find_runtime("litert")
    libraries = dict.fromkeys(name for part in parts for name in part.libraries)
    inputs = TargetFilesInputs(
        title=f"files for {ctx.recipe.search.target}",
        versions={**versions_of([*libraries, *quantizers("litert")]), **converter_version(litert)},
        images=ctx.images_input,
        networks=parts,
        calibration_images=ctx.recipe.quantize.calibration_images,
        seed=ctx.recipe.seed,
    )
    files = run_stage(ctx, inputs, _make).result["files"]
    named = zip(students, files, strict=False)  # none of a stage that is planned
    return {weights: {"target": ctx.recipe.search.target, **about} for weights, about in named}


def _make(inputs: TargetFilesInputs, here: Resources, folder: Path) -> dict[str, Any]:
    here.report(inputs.title, 0, 1)
    students = [part.student for part in inputs.networks]
    here_on_cpu = replace(here, accelerator=CPU)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # two numbers of each file are kept
        made = micro_files(here_on_cpu, students, inputs.calibration_images, inputs.seed, Path(scratch))
        files = [
            {"refused": str(one)}
            if isinstance(one, InputError)
            else {"file_bytes": one.stat().st_size, "arena_bytes": arena_of(one).total}
            for one in made
        ]
    here.report(inputs.title, 1, 1)
    return {"files": files}
