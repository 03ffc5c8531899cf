"""Quantize an ONNX network to int8 after training, for OpenVINO: NNCF's static scheme, IR out.

Enters a float .onnx file and calibration images; leaves NAME.xml with NAME.bin beside it and a QuantReport.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from tutelage.records import InputError

from .calibration import calibration_hash, checked_calibration
from .files import is_quantized, read_graph, sha256_of
from .ptq import QuantReport
from .run import first_line, require

log = logging.getLogger(__name__)

# Activations of hard-swish networks are not symmetric: "mixed" gives them a zero point and keeps weights symmetric.
Preset = Literal["mixed", "performance"]
# NNCF's own default averages each image's extremes ("mean_minmax"), which clips: on a small student the mean error of
# the logits was .77, against .25 with the extremes over all images.
Method = Literal["minmax", "mean_minmax"]


def quantize_openvino(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    *,
    method: Method = "minmax",
    preset: Preset = "mixed",
    transformer: bool = False,
    fast_bias_correction: bool = True,
) -> QuantReport:
    """Write the int8 IR of `fp32_path` to `out_path` (.xml, with .bin beside it).

    calibration: normalised float32 images (n, c, h, w). transformer: tell NNCF that the network is a ViT. The full bias
    correction (`fast_bias_correction=False`) is slower and now and then better. size_bytes counts both files.
    """
    require("nncf")
    require("openvino")
    import nncf
    import openvino
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Estimators

    fp32_path, out_path = Path(fp32_path), Path(out_path)
    if out_path.suffix != ".xml":
        raise InputError(f"an OpenVINO model is written to a .xml path, got {out_path}")
    images = checked_calibration(calibration)
    if is_quantized(read_graph(fp32_path)):
        raise InputError(f"{fp32_path} is quantized already; give its fp32 model")
    try:
        # convert_model, unlike read_model, also simplifies the graph: a third less XML.
        model = openvino.convert_model(str(fp32_path))
    except Exception as error:  # its front end's failures are no RuntimeErrors
        raise InputError(f"openvino cannot read {fp32_path}: {first_line(error)}") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars are not ours to show
        quantized = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in images]),
            preset=nncf.QuantizationPreset.MIXED if preset == "mixed" else nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=len(images),
            fast_bias_correction=fast_bias_correction,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=Estimators.MINMAX if method == "minmax" else Estimators.MEAN_MINMAX
            ),
        )
    save_ir(quantized, out_path)
    integer = sum(1 for node in quantized.get_ops() if node.get_type_name() == "FakeQuantize")
    done = QuantReport(
        path=out_path,
        scheme="int8-ptq",
        runtime="openvino",
        runtime_version=openvino.__version__,
        method=method,
        per_channel=True,
        weight_type="int8",
        activation_type="uint8",
        num_calibration=len(images),
        calibration_sha256=calibration_hash(images),
        sha256=sha256_of(out_path.with_suffix(".bin")),
        size_bytes=ir_bytes(out_path),
        fp32_bytes=fp32_path.stat().st_size,
        num_quantized=integer,
    )
    log.info("quantized %s: %d bytes, %.2f of fp32", out_path, done.size_bytes, done.size_ratio)
    return done


def save_ir(model: Any, path: Path) -> None:
    """Write an IR pair with the weights' own types; the .xml is renamed last: who finds it finds the whole model."""
    import openvino

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        aside = Path(folder) / path.name
        openvino.save_model(model, str(aside), compress_to_fp16=False)
        os.replace(aside.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(aside, path)


def ir_bytes(path: Path) -> int:
    """Count the bytes of an IR on disk: the .xml and its .bin."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size
