"""Quantize an ONNX network to int8 after training, for OpenVINO: NNCF's static scheme, IR out.

Enters a float .onnx file and calibration images; leaves NAME.xml with NAME.bin beside it and a QuantReport.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tutelage.records import InputError

from .calibration import Array, calibration_hash, checked_calibration
from .compact_ir import save_ir
from .files import is_quantized, read_graph, sha256_of
from .ptq import QuantReport
from .run import first_line, require, run_openvino

log = logging.getLogger(__name__)

# Activations of hard-swish networks are not symmetric: "mixed" gives them a zero point and keeps weights symmetric.
Preset = Literal["mixed", "performance"]
# NNCF's own default averages each image's extremes ("mean_minmax"), which clips: on a small student the mean error of
# the logits was .77, against .25 with the extremes over all images.
Method = Literal["minmax", "mean_minmax"]
_BATCH = 64
# Calibration images a call where a call may take several: NNCF's bookkeeping costs more than the network. The extremes
# over all images are the same bits.
_CALIBRATION_BATCH = 16


def quantize_openvino(
    fp32_path: Path | str,
    out_path: Path | str,
    calibration: npt.ArrayLike,
    *,
    method: Method = "minmax",
    preset: Preset = "mixed",
    transformer: bool | None = None,
    fast_bias_correction: bool = True,
    control: Control | None = None,
) -> QuantReport:
    """Write the int8 IR of `fp32_path` to `out_path` (.xml, with .bin beside it).

    calibration: normalised float32 images (n, c, h, w). transformer: tell NNCF that the network is a ViT
    (default: whether it holds a softmax, as attention does). The full bias correction (`fast_bias_correction=False`) is
    slower and now and then better. control: return operators to float, the worst first, until a score on validation
    images holds (NNCF's accuracy-aware algorithm). size_bytes counts both files.
    """
    require("nncf")
    require("openvino")
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Estimators

    fp32_path, out_path = Path(fp32_path), Path(out_path)
    if out_path.suffix != ".xml":
        raise InputError(f"an OpenVINO model is written to a .xml path, got {out_path}")
    images = checked_calibration(calibration)
    graph = read_graph(fp32_path)
    if is_quantized(graph):
        raise InputError(f"{fp32_path} is quantized already; give its fp32 model")
    if transformer is None:
        transformer = any(node.op_type == "Softmax" for node in graph.graph.node)
    model = _convert(fp32_path)
    several = method == "minmax" and model.input(0).partial_shape[0].is_dynamic
    step = _CALIBRATION_BATCH if several else 1
    batches = [images[start : start + step] for start in range(0, len(images), step)]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED if preset == "mixed" else nncf.QuantizationPreset.PERFORMANCE,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "subset_size": len(batches),
        "fast_bias_correction": fast_bias_correction,
        "advanced_quantization_parameters" if control else "advanced_parameters": nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=Estimators.MINMAX if method == "minmax" else Estimators.MEAN_MINMAX
        ),
    }
    dataset = nncf.Dataset(batches)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars are not ours to show
        if control is None:
            quantized = nncf.quantize(model, dataset, **options)
        else:
            quantized = nncf.quantize_with_accuracy_control(
                model,
                dataset,
                nncf.Dataset(control.batches()),
                control.validate,
                max_drop=control.max_drop / 100,
                drop_type=nncf.DropType.ABSOLUTE,
                **options,
            )
    save_ir(quantized, out_path)
    if control is not None:
        control.check(fp32_path, out_path)
    done = _report(fp32_path, out_path, images, method, mixed=control is not None and not _all_integer(quantized))
    log.info("quantized %s: %d bytes, %.2f of fp32", out_path, done.size_bytes, done.size_ratio)
    return done


def _convert(path: Path) -> Any:
    import openvino

    level = logging.root.level
    try:
        # convert_model, unlike read_model, also simplifies the graph: a third less XML.
        return openvino.convert_model(str(path))
    except Exception as error:  # its front end's failures are no RuntimeErrors
        raise InputError(f"openvino cannot read {path}: {first_line(error)}") from error
    finally:
        logging.root.setLevel(level)  # a failed conversion leaves it at ERROR, and every later warning would be lost


@dataclass(frozen=True)
class Control:
    """What must hold: `score` of logits (n, classes) on `validation` images falls by at most `max_drop` points."""

    validation: Array
    score: Callable[[Array], float]
    max_drop: float

    def batches(self) -> list[Array]:
        """Cut the images into batches of one size; the last one is filled with the first images again."""
        num = len(self.validation)
        size = min(_BATCH, num)
        return [self.validation[np.arange(start, start + size) % num] for start in range(0, num, size)]

    def validate(self, compiled: Any, batches: Iterable[Array]) -> tuple[float, list[list[Array]]]:
        """Score a compiled model, as NNCF calls for it, and give the logits of each batch, by which it ranks operators.

        A score alone would be asked for batch by batch, and `score` knows the labels of all images in order.
        """
        logits = [np.array(compiled(batch)[compiled.output(0)]) for batch in batches]
        return self.score(np.concatenate(logits)[: len(self.validation)]), [[values] for values in logits]

    def check(self, fp32: Path, int8: Path) -> None:
        """Raise InputError where the written file loses more: NNCF's trials run in bf16 where the CPU has it."""
        before, after = (self.score(run_openvino(path, self.validation)) for path in (fp32, int8))
        if 100 * (before - after) > self.max_drop + 1e-6:
            raise InputError(
                f"{int8} loses {100 * (before - after):.2f} points on validation, more than the {self.max_drop} "
                "allowed: allow more, or quantize for onnxruntime"
            )


def _all_integer(model: Any) -> bool:
    """Tell whether every layer with weights reads a quantized input."""
    layers = ("Convolution", "GroupConvolution", "MatMul")
    operators = [operator for operator in model.get_ops() if operator.get_type_name() in layers]
    return all(
        operator.input_value(0).get_node().get_type_name() in ("FakeQuantize", "Reshape", "Transpose")
        for operator in operators
    )


def _report(fp32_path: Path, out_path: Path, images: Array, method: str, *, mixed: bool) -> QuantReport:
    import openvino

    operators = openvino.Core().read_model(str(out_path)).get_ops()
    return QuantReport(
        path=out_path,
        scheme="int8-mixed" if mixed else "int8-ptq",
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
        num_quantized=sum(operator.get_type_name() == "FakeQuantize" for operator in operators),
    )


def ir_bytes(path: Path) -> int:
    """Count the bytes of an IR on disk: the .xml and its .bin."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size
