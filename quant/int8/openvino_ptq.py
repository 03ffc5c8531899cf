"""Quantize an ONNX network to int8 for OpenVINO by NNCF's static scheme: NAME.xml with NAME.bin beside it.

Activation ranges are calibrated, or learnt by QAT (`qat.py`) where training has seen the tensor.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tutelage.files import sha256_of
from tutelage.quant.export.compact_ir import save_ir
from tutelage.quant.files import is_quantized, onnx_bytes, read_graph
from tutelage.quant.run import first_line, require, run_openvino
from tutelage.records import InputError

from .calibration import Array, calibration_hash, checked_calibration
from .ranges import whole_batches
from .saturation import weight_bits
from .schemes.entry import QuantReport

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
    learnt: Mapping[str, tuple[float, float]] | None = None,
) -> QuantReport:
    """Write the int8 IR of `fp32_path` to `out_path` (.xml, with .bin beside it).

    calibration: normalised float32 images (n, c, h, w). transformer: whether NNCF treats the network as a ViT
    (default: whether it holds a softmax, as attention does). The full bias correction (`fast_bias_correction=False`) is
    slower and now and then better. control: return operators to float, the worst first, until a score on validation
    images holds (NNCF's accuracy-aware algorithm). learnt: ranges of tensors by their ONNX names, from QAT:
    they go into the file as they are, and NNCF corrects no bias. size_bytes counts both files.
    """
    require("nncf")
    require("openvino")
    _decline_telemetry()
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
    batch = model.input(0).partial_shape[0]
    fixed = None if batch.is_dynamic else batch.get_length()
    batches = list(whole_batches(images, fixed, _CALIBRATION_BATCH if method == "minmax" else 1))
    logging.getLogger("nncf").setLevel(logging.ERROR)
    options = {
        **_options(method, preset, transformer, learnt is not None),
        "fast_bias_correction": fast_bias_correction,
    }
    quantized = _quantized(model, batches, options, control, fixed)
    num_learnt = set_ranges(quantized, learnt) if learnt else 0
    save_ir(quantized, out_path)
    if control is not None:
        try:
            control.check(fp32_path, out_path)
        except InputError:
            for refused in (out_path, out_path.with_suffix(".bin")):
                refused.unlink(missing_ok=True)
            raise
    done = _report(fp32_path, out_path, images, method, mixed=control is not None and not _all_integer(quantized))
    if learnt:
        done = done.model_copy(update={"scheme": "int8-qat", "num_learnt": num_learnt})
    log.info("quantized %s: %d bytes, %.2f of fp32", out_path, done.size_bytes, done.size_ratio)
    return done


def _decline_telemetry() -> None:
    """Decline for this process what OpenVINO's converter and NNCF send to Google Analytics with each call, unasked.

    The consent is read when either is first used. Sending forks this process, and takes three seconds offline.
    """
    with contextlib.suppress(ImportError):  # without that package nothing is sent
        from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

        OptInChecker.check = lambda *_, **__: ConsentCheckResult.DECLINED


def _options(method: Method, preset: Preset, transformer: bool, is_learnt: bool) -> dict[str, Any]:
    """Say in NNCF's words how to quantize; its advanced parameters have another name where a control is given."""
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Estimators

    return {
        "preset": nncf.QuantizationPreset.MIXED if preset == "mixed" else nncf.QuantizationPreset.PERFORMANCE,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "advanced": nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=Estimators.MINMAX if method == "minmax" else Estimators.MEAN_MINMAX,
            overflow_fix=OverflowFix.ENABLE if weight_bits() == 7 else OverflowFix.FIRST_LAYER,
            disable_bias_correction=is_learnt,
        ),
    }


def _quantized(
    model: Any, batches: Sequence[Array], options: dict[str, Any], control: Control | None, fixed: int | None
) -> Any:
    """Run NNCF, with accuracy control where it is given; `fixed` is the batch that the model takes, if one alone."""
    import nncf

    advanced, dataset = options.pop("advanced"), nncf.Dataset(batches)
    options["subset_size"] = len(batches)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars are not ours to show
        if control is None:
            return nncf.quantize(model, dataset, advanced_parameters=advanced, **options)
        return nncf.quantize_with_accuracy_control(
            model,
            dataset,
            nncf.Dataset(control.batches(fixed)),
            control.validate,
            max_drop=control.max_drop / 100,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_quantization_parameters=advanced,
            **options,
        )


def set_ranges(model: Any, learnt: Mapping[str, tuple[float, float]]) -> int:
    """Put learnt ranges into the FakeQuantize operators that read those tensors, in place; count them."""
    from openvino.op import Constant

    number = 0
    for operator in model.get_ops():
        if operator.get_type_name() != "FakeQuantize":
            continue
        held = next((learnt[name] for name in operator.input_value(0).get_names() if name in learnt), None)
        if held is None:
            continue
        number += 1
        for place, value in zip((1, 2, 3, 4), (*held, *held), strict=True):
            shape = operator.input_value(place).get_node().get_output_shape(0)
            constant = Constant(np.full(tuple(shape), value, np.float32))
            operator.input(place).replace_source_output(constant.output(0))
    return number


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

    def batches(self, fixed: int | None = None) -> list[Array]:
        """Split the images into batches of one size (the model's where it is `fixed`), the last one filled up."""
        return list(whole_batches(self.validation, fixed or min(_BATCH, len(self.validation)), _BATCH))

    def validate(self, compiled: Any, batches: Iterable[Array]) -> tuple[float, list[list[Array]]]:
        """Score a compiled model, as NNCF calls for it, and give the logits of each batch, by which it ranks operators.

        NNCF would evaluate a plain score batch by batch, but `score` needs all images in order.
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
        weight_bits=weight_bits(),
        activation_type="uint8",
        num_calibration=len(images),
        calibration_sha256=calibration_hash(images),
        sha256=sha256_of(out_path.with_suffix(".bin")),
        size_bytes=ir_bytes(out_path),
        fp32_bytes=onnx_bytes(fp32_path),
        num_quantized=sum(operator.get_type_name() == "FakeQuantize" for operator in operators),
    )


def ir_bytes(path: Path) -> int:
    """Count the bytes of an IR on disk: the .xml and its .bin."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size
