"""Export a trained network to the runtimes and quantize it; what is filed here is what is measured and deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.quant.calibration import draw_calibration
from tutelage.quant.export import export_onnx
from tutelage.quant.openvino_ptq import quantize_openvino
from tutelage.quant.ptq import quantize_onnx
from tutelage.records import Artifact, Student

from . import networks
from .context import Context, file_hash


@dataclass(frozen=True)
class Variant:
    """One file of a trained network for one runtime: fp32, or int8 by a scheme that is that runtime's own."""

    student: Student
    scheme: str
    runtime: str
    file: Artifact

    @property
    def title(self) -> str:
        taught = f" from {self.student.teacher}" if self.student.teacher else ""
        return f"{self.student.model}{taught} {self.scheme} {self.runtime}"


def compress(ctx: Context, student: Student, runtimes: Sequence[str]) -> list[Variant]:
    """Make the fp32 ONNX file and one int8 file for each runtime of the recipe's devices."""
    section = ctx.recipe.quantize
    inputs = {
        "data": ctx.data_key,
        "weights": student.weights.sha256 if student.weights else "",
        "network": student.to_dict(),
        "quantize": section.model_dump(mode="json"),
        "runtimes": sorted(runtimes),
        "versions": {name: version(name) for name in ("onnxruntime", "openvino", "nncf")},
        "seed": ctx.recipe.seed,
    }

    taught = f" from {student.teacher}" if student.teacher else ""

    def work(folder: Path) -> dict[str, Any]:
        ctx.report(f"export and quantize {student.model}{taught}", 0, 1)
        result = _compress(ctx, student, sorted(runtimes), folder)
        ctx.report(f"export and quantize {student.model}{taught}", 1, 1)
        return result

    stage = ctx.workspace.stage(f"compress {student.model}{taught}", inputs, work)
    return [
        Variant(student, entry["scheme"], entry["runtime"], Artifact.from_dict(entry["file"]))
        for entry in stage.result["variants"]
    ]


def _compress(ctx: Context, student: Student, runtimes: Sequence[str], folder: Path) -> dict[str, Any]:
    side = ctx.side(student)
    fp32 = folder / "model.onnx"
    export = export_onnx(networks.load(ctx, student), fp32, (1, ctx.channels, side, side))
    labels = ctx.dataset.labels[ctx.dataset.indices("train")]
    rng = np.random.default_rng(ctx.seed("calibration"))
    drawn = draw_calibration(None, labels, ctx.recipe.quantize.calibration_images, rng)
    calibration = ctx.split("train", side, drawn)[0].numpy()
    variants = []
    for runtime in runtimes:
        if runtime == "openvino":
            int8 = folder / "model.int8.xml"
            quantize_openvino(fp32, int8, calibration)
        else:
            int8 = folder / "model.int8.onnx"
            quantize_onnx(fp32, int8, calibration, method=ctx.recipe.quantize.method)
        variants.append({"scheme": "fp32", "runtime": runtime, "file": _filed(ctx, fp32).to_dict()})
        variants.append({"scheme": "int8-ptq", "runtime": runtime, "file": _filed(ctx, int8).to_dict()})
    return {"variants": variants, "max_difference": export.max_difference}


def _filed(ctx: Context, path: Path) -> Artifact:
    """Record a model file; an OpenVINO model is two files, and both count."""
    size = path.stat().st_size
    if path.suffix == ".xml":
        size += path.with_suffix(".bin").stat().st_size
    return Artifact(kind="model", path=ctx.workspace.relative(path), sha256=file_hash(path), size_bytes=size)
