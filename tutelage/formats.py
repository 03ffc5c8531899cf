"""Write a network in the format a runtime loads. Enters: an `nn.Module` and a runtime. Leaves: one model file.

ONNX is read as it is or converted (LiteRT, ncnn); PyTorch and ExecuTorch take a program exported from the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from tutelage.bench.conversion import Conversion
from tutelage.bench.convert import convert
from tutelage.bench.runtimes import find_runtime
from tutelage.quant.export import export_onnx
from tutelage.quant.export_program import export_pt2, export_pte

Shape = tuple[int, int, int, int]


def _onnx(network: nn.Module, path: Path, shape: Sequence[int]) -> object:
    return export_onnx(network, path, shape, check=False)


EXPORTERS: dict[str, Callable[[nn.Module, Path, Sequence[int]], object]] = {
    ".onnx": _onnx,
    ".pt2": export_pt2,
    ".pte": export_pte,
}
# Of an ONNX file the batch is free; programs take the one they were exported with.
FREE_BATCH = ".onnx"


def export_network(network: nn.Module, path: Path, shape: Shape) -> None:
    """Export `network` for inputs of `shape` (batch, channels, height, width) to what the suffix of `path` says."""
    EXPORTERS[path.suffix](network, path, shape)


def network_file(network: nn.Module, runtime: str, folder: Path, stem: str, shape: Shape, kept: Path) -> Path:
    """Write `network` into `folder` as the fp32 file that a runtime loads; conversions are kept in `kept`.

    `shape` is (batch, channels, height, width). Raises InputError where something that it takes is not installed.
    """
    found = find_runtime(runtime)
    exported = folder / f"{stem}{found.exported}"
    export_network(network, exported, shape)
    if found.exported in found.suffixes:
        return exported
    target = folder / f"{stem}{found.suffixes[0]}"
    convert(found, [Conversion(exported, target, shape)], kept)
    return target
