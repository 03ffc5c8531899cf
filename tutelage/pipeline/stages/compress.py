"""Export a trained network to the runtimes and quantize it; what is filed here is what is measured and deployed.

A stage makes one file: the ONNX file of a network, what a runtime loads that does not load ONNX, and a runtime's int8
file. A runtime that cannot load or quantize a network (an operator that it lacks) is left out, which is a result; one
that is not installed is left out and tried again by the next run.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tutelage.bench.converters.convert import converter_version
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.files import files_of_a_model
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, Refused, Resources, run_stage
from tutelage.pipeline.keys.model_files import filed_model
from tutelage.pipeline.keys.stage_inputs import (
    FileInput,
    ImagesInput,
    NetworkInput,
    OwnNormalisation,
    StageInputs,
    promised,
    versions_of,
)
from tutelage.pipeline.runtime_files import runtime_file
from tutelage.pipeline.workspace import Stage
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.records import Artifact, InputError, NotAvailableError, Student

from .quantization import Quantization, Ranges, calibration_images, quantized_file, quantizers, validation
from .training import network_input

log = logging.getLogger(__name__)

_ONNX = "model.onnx"
# What an ONNX file's metadata calls the mean and standard deviation of a network that has its own.
NORMALISATION_KEY = "tutelage.normalisation"


@dataclass(frozen=True)
class Variant:
    """One file of a trained network for one runtime: fp32, or int8 by a scheme that is that runtime's own."""

    student: Student
    scheme: str
    runtime: str
    file: Artifact
    quantization: dict[str, Any] = field(default_factory=dict)  # how it was made: method, images, their hash, trials
    stages: tuple[str, ...] = ()  # keys of those that made the file, the latest last

    @property
    def title(self) -> str:
        origin = f" from {self.student.teacher}" if self.student.teacher else ""
        return f"{self.student.model}{origin} {self.scheme} {self.runtime}"


class ExportInputs(StageInputs):
    """The ONNX file of a trained network, for images of the data's channels."""

    STAGE: ClassVar[str] = "export"

    network: NetworkInput
    channels: int
    side: int
    num_classes: int

    def promise(self, key: str) -> dict[str, Any]:
        return {"file": promised(key, _ONNX)}


class ConvertInputs(StageInputs):
    """The file of a runtime that does not load ONNX, made from the ONNX file or from the network."""

    STAGE: ClassVar[str] = "convert"

    runtime: str
    origin: str  # distribution and version of the plug-in that declares the runtime; empty: built in
    onnx: FileInput
    network: NetworkInput
    channels: int
    side: int

    def promise(self, key: str) -> dict[str, Any]:
        return {"file": promised(key, f"model{find_runtime(self.runtime).suffixes[0]}")}


class QuantizeInputs(StageInputs):
    """The int8 file of a runtime, made from its fp32 file."""

    STAGE: ClassVar[str] = "quantize"

    runtime: str
    origin: str  # distribution and version of the plug-in that declares the runtime; empty: built in
    images: ImagesInput
    fp32: FileInput
    network: NetworkInput | None  # for formats that are quantized before they are exported
    how: Quantization
    learnt: dict[str, tuple[float, float]] | None  # activation ranges of QAT
    side: int
    seed: int
    normalisation: OwnNormalisation

    @property
    def places(self) -> dict[str, str]:
        return {"how": "quantize"}

    def promise(self, key: str) -> dict[str, Any]:
        scheme = "int8-qat" if self.learnt is not None else "int8"
        return {"scheme": scheme, "file": promised(key, Path(self.fp32.path).name), "quantization": {}}


def compress(ctx: Context, student: Student, runtimes: Sequence[str]) -> list[Variant]:
    """Make the fp32 file and the int8 file of each runtime of the recipe's devices, from one ONNX file where it can."""
    name = named(student)
    exported = _attempted(
        ctx,
        f"no row of {student.model}",
        ExportInputs(
            title=f"export {name}",
            versions=versions_of((*network_input(student).libraries, "onnx", "onnxscript")),
            network=network_input(student),
            channels=ctx.channels,
            side=ctx.resolution(student),
            num_classes=ctx.num_classes,
        ),
        _export,
        [(student, "fp32", runtime) for runtime in runtimes],
    )
    if exported is None:
        return []
    found = {runtime: _float_file(ctx, student, exported, runtime) for runtime in runtimes}
    files = {runtime: stages for runtime, stages in found.items() if stages is not None}
    variants = [
        Variant(
            student, "fp32", runtime, Artifact.from_dict(stages[-1].result["file"]), {},
            tuple(stage.key for stage in stages),
        )
        for runtime, stages in files.items()
    ]  # fmt: skip
    return variants + quantized(ctx, student, files)


def named(student: Student) -> str:
    """Name a network in messages, with its teachers."""
    return f"{student.model} from {student.teacher}" if student.teacher else student.model


def quantized(
    ctx: Context,
    student: Student,
    files: Mapping[str, Sequence[Stage]],
    learnt: Ranges | None = None,
    made: Mapping[str, Any] | None = None,
) -> list[Variant]:
    """Quantize each runtime's fp32 file, the last of its stages.

    learnt: the activation ranges of QAT, if any. made: what else a row says of how the file was made.
    """
    variants = []
    for runtime, stages in files.items():
        file = Artifact.from_dict(stages[-1].result["file"])
        inputs = QuantizeInputs(
            title=f"quantize {named(student)} for {runtime}"
            + (" with the ranges of QAT" if learnt is not None else ""),
            versions=versions_of(quantizers(runtime)),
            runtime=runtime,
            origin=_origin(runtime),
            images=ctx.images_input,
            fp32=FileInput.of(file),
            network=network_input(student) if file.path.endswith(".pte") else None,
            how=Quantization.of(ctx.recipe.quantize),
            learnt=None if learnt is None else dict(learnt),
            side=ctx.resolution(student),
            seed=ctx.recipe.seed,
            normalisation=student.normalisation,
        )
        missing = f"no int8 row of {student.model} for {runtime}"
        scheme = "int8-ptq" if learnt is None else "int8-qat"
        # That a runtime has no int8 at all is nothing that it says of a network.
        known = [(student, scheme, runtime)] if "int8" in find_runtime(runtime).precisions else []
        stage = _attempted(ctx, missing, inputs, _quantize, known)
        if stage is None:
            continue
        result = stage.result
        variants.append(
            Variant(
                student,
                result["scheme"],
                runtime,
                Artifact.from_dict(result["file"]),
                {**result["quantization"], **(made or {})},
                (*(one.key for one in stages), stage.key),
            )
        )
    return variants


def _origin(runtime: str) -> str:
    return RUNTIMES.origin_name(runtime)


def _float_file(ctx: Context, student: Student, exported: Stage, runtime: str) -> list[Stage] | None:
    """Give the stages that made a runtime's fp32 file; None, and the reason logged, where there is none."""
    known = find_runtime(runtime)
    if ".onnx" in known.suffixes:
        return [exported]
    network = network_input(student)
    onnx = Artifact.from_dict(exported.result["file"])
    inputs = ConvertInputs(
        title=f"convert {named(student)} for {runtime}",
        versions=versions_of((*network.libraries, known.distribution)) | converter_version(known),
        runtime=runtime,
        origin=_origin(runtime),
        onnx=FileInput.of(onnx),
        network=network,
        channels=ctx.channels,
        side=ctx.resolution(student),
    )
    missing = f"no row of {student.model} for {runtime}"
    stage = _attempted(ctx, missing, inputs, _convert, [(student, "fp32", runtime)])
    return None if stage is None else [exported, stage]


def _attempted(
    ctx: Context, missing: str, inputs: Any, compute: Any, files: Sequence[tuple[Student, str, str]]
) -> Stage | None:
    """Give a stage whose result may be that there is no file, which is reported; None stands for it.

    What may pass (`NotAvailableError`) is reported likewise, and nothing is filed. files: network, scheme and runtime
    of what is then refused.
    """
    try:
        stage = run_stage(ctx, inputs, compute)
    except NotAvailableError as error:
        left_out(ctx, f"{missing}: {error}")
        return None
    if "left_out" in stage.result:
        reason = str(stage.result["left_out"])
        left_out(ctx, f"{missing}: {reason}")
        for student, scheme, runtime in files:
            ctx.refused(Refused(student, scheme, runtime, reason))
        return None
    return stage


def _export(inputs: ExportInputs, here: Resources, folder: Path) -> dict[str, Any]:
    here.report(inputs.title, 0, 1)
    path, network = folder / _ONNX, networks.load(here, inputs.network.student)
    own = inputs.network.normalisation
    metadata = None if own is None else {NORMALISATION_KEY: own.model_dump_json()}
    try:
        export = export_onnx(network, path, (1, inputs.channels, inputs.side, inputs.side), metadata=metadata)
    except NotAvailableError:
        raise
    except InputError as error:
        return {"left_out": str(error)}
    here.report(inputs.title, 1, 1)
    return {"file": filed_model(here.workspace, path).to_dict(), "max_difference": export.max_difference}


def _convert(inputs: ConvertInputs, here: Resources, folder: Path) -> dict[str, Any]:
    network = networks.load(here, inputs.network.student)
    onnx = beside(here, inputs.onnx, folder)
    try:
        path = runtime_file(here, inputs.runtime, network, onnx, inputs.side)
    except NotAvailableError:
        raise
    except InputError as error:
        return {"left_out": str(error)}
    return {"file": filed_model(here.workspace, path).to_dict()}


def _quantize(inputs: QuantizeInputs, here: Resources, folder: Path) -> dict[str, Any]:
    here.report(inputs.title, 0, 1)
    network = None if inputs.network is None else networks.load(here, inputs.network.student)
    own = inputs.normalisation
    calibration = calibration_images(here, inputs.side, inputs.how.calibration_images, inputs.seed, own)
    try:
        scheme, path, made = quantized_file(
            here, inputs.how, inputs.runtime, network, beside(here, inputs.fp32, folder), inputs.side,
            calibration, validation(here, inputs.side, inputs.seed, own), inputs.learnt,
        )  # fmt: skip
    except NotAvailableError:
        raise
    except InputError as error:
        return {"left_out": str(error)}
    here.report(inputs.title, 1, 1)
    return {"scheme": scheme, "file": filed_model(here.workspace, path).to_dict(), "quantization": made}


def beside(here: Resources, file: FileInput, folder: Path) -> Path:
    """Put a model that another stage made into this one's folder, as links: what is made of it is written beside it."""
    source = here.workspace.path / file.path
    for part in files_of_a_model(source):
        target = folder / part.resolve().relative_to(source.parent.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(part, target)
        except OSError:  # a file system without links
            shutil.copyfile(part, target)
    return folder / source.name


def left_out(ctx: Context, reason: str) -> None:
    """Log why a row is missing, and report it as progress."""
    log.warning("%s", reason)
    ctx.report(reason, 1, 1)
