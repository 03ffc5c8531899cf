"""What an int8 scheme is given and gives: the histogram of a tensor, the report of a file, and the registry's entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tutelage.records import Record

# Resolution of a histogram between a tensor's own lowest and highest value; TensorRT's calibrator uses as many.
NUM_BINS = 2048


@dataclass(frozen=True)
class Histogram:
    """What one tensor held: its extremes, and counts (NUM_BINS,) of equal bins between them."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]


class QuantReport(Record):
    """One quantized file: what was done, on which images, and what it weighs."""

    path: Path
    scheme: str  # as a leaderboard row names it: int8-ptq, int8-mixed, int8-qat
    runtime: str
    runtime_version: str
    method: str
    per_channel: bool
    weight_type: str
    weight_bits: int = 8  # 7 where this processor's kernels overflow with 8, see saturation.py
    activation_type: str
    num_calibration: int
    calibration_sha256: str
    sha256: str
    size_bytes: int
    fp32_bytes: int
    num_quantized: int  # operators that compute on integers
    float_operators: tuple[str, ...] = ()  # kinds of operators that were left in float
    excluded: tuple[str, ...] = ()  # operators kept in float on purpose, by name
    stem: tuple[str, ...] = ()  # the operators that read the image, where float is faster for them (placement.py)
    integer_macs: float | None = None  # fraction of the layers' MACs that run on integers (placement.py); None: unknown
    trials: dict[str, float] = Field(default_factory=dict)  # method -> its figure on validation, where one was chosen
    num_learnt: int = 0  # activations whose range in the file is the one that training saw

    @property
    def size_ratio(self) -> float:
        """Bytes on disk as a fraction of the fp32 file's."""
        return self.size_bytes / self.fp32_bytes


# Gives the range (low, high) in which a tensor's values are rounded; beyond it they are clipped.
Ranges = Callable[[Histogram], tuple[float, float]]
# (fp32 file, int8 file to write, calibration images (n, c, h, w) float32) -> its report
Quantize = Callable[[Path, Path, npt.NDArray[np.float32]], QuantReport]


@dataclass(frozen=True)
class Scheme:
    """One way to make a network int8 after training.

    `ranges` says how activations are clipped in .onnx files (ONNX Runtime), and the house's quantizer does the rest;
    such a scheme can be held to a loss by returning layers to float, and `auto` tries it where it is `automatic`.
    `quantize` writes the whole file instead; its report's `scheme` begins with int8 and is what rows say. `formats` are
    the suffixes of the int8 files that it makes: .onnx, .xml (OpenVINO), .tflite, .pte or another runtime's.
    """

    name: str
    help: str
    formats: tuple[str, ...]
    ranges: Ranges | None = None
    quantize: Quantize | None = None
    automatic: bool = False
    extremes: bool = False  # the ranges are the extremes, which the quantizers of other formats take too

    def __post_init__(self) -> None:
        if (self.ranges is None) == (self.quantize is None):
            raise ValueError(f"int8 scheme {self.name}: give either ranges or quantize")
        if self.ranges is not None and self.formats != (".onnx",) and not self.extremes:
            raise ValueError(
                f"int8 scheme {self.name}: ranges go into .onnx files alone, not {', '.join(self.formats)}"
            )
        if self.automatic and self.ranges is None:
            raise ValueError(f"int8 scheme {self.name}: only ranges can be automatic")
