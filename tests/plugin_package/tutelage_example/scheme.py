"""An int8 scheme: one step size for all channels of a layer's weights, as kernels without per-channel scales need."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.schemes.entry import QuantReport, Scheme


def quantize_per_tensor(fp32: Path, out: Path, calibration: npt.NDArray[np.float32]) -> QuantReport:
    """Write the int8 form of an ONNX file; `scheme` is what the leaderboard's rows say."""
    report = quantize_onnx(fp32, out, calibration, per_channel=False)
    return report.model_copy(update={"method": "per_tensor", "scheme": "int8-per-tensor"})


PER_TENSOR = Scheme(
    name="per_tensor",
    help="one step size a layer, for kernels without per-channel scales",
    formats=(".onnx",),
    quantize=quantize_per_tensor,
)
