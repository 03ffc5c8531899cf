"""One network on every installed runtime: EEEA-Net-C2 in fp32 and int8, one and two threads, as a table.

    python tests/benchmarks/runtime_table.py [--resolution 64 --resolution 224] [--threads 1 --threads 2]
        [--only litert]

Weights are random, so the int8 files are for their speed and size alone; peak memory is above the runtime's own. TFLite
Micro runs on boards and is not timed: its rows have the bytes of the file, and the arena that is counted of it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tutelage.bench.converters.conversion import Conversion, size_bytes
from tutelage.bench.converters.convert import convert
from tutelage.bench.converters.litert import quantize_litert
from tutelage.bench.micro.arena import arena_of
from tutelage.bench.micro.convert import for_micro
from tutelage.bench.protocol.measure import measure
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.export.programs import export_pt2, export_pte
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import quantize_openvino
from tutelage.records import DeviceProfile, InputError, UnsteadyDeviceError
from tutelage.search.spaces.presets import PRESETS
from tutelage.search.supernet import build_arch

MICRO = "tflm"
PRECISIONS = ("fp32", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", dest="side", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--only", action="append", choices=(*RUNTIMES, MICRO))
    options = parser.parse_args()
    print("| side | runtime | asked / computed in | threads | p50 ms | p90 ms | bytes | peak memory above runtime |")
    print("|---|---|---|---|---|---|---|---|")
    for side in options.side or (64, 224):
        torch.manual_seed(0)
        net = build_arch(PRESETS["EEEA-Net-C2"].replace(r=side), 14).eval()
        with tempfile.TemporaryDirectory() as folder:
            for runtime in options.only or (*RUNTIMES, MICRO):
                if runtime == MICRO:
                    _micro_lines(net, side, Path(folder))
                    continue
                if not RUNTIMES[runtime].installed():
                    print(f"| {side} | {runtime} | not installed: {RUNTIMES[runtime].remedy()} | | | | | |", flush=True)
                    continue
                for precision in PRECISIONS:
                    _lines(net, runtime, precision, side, options.threads or (1, 2), Path(folder))


def _lines(net: nn.Module, runtime: str, precision: str, side: int, threads: tuple[int, ...], folder: Path) -> None:
    if precision not in RUNTIMES[runtime].precisions:
        return
    shape = (1, 3, side, side)
    try:
        path = _file(net, runtime, precision, shape, folder)
    except InputError as error:
        print(f"| {side} | {runtime} | {precision}: {error} | | | | | |", flush=True)
        return
    for number in threads:
        device = DeviceProfile(name="here", runtime=runtime, threads=number, precision=precision)
        try:
            found = measure({"net": path}, device, shape[1:], tolerance=0.1)["net"]
        except (InputError, UnsteadyDeviceError) as error:
            print(f"| {side} | {runtime} | {precision} | {number} | {error} | | | |", flush=True)
            continue
        assert found.peak_rss_bytes is not None
        assert found.runtime_rss_bytes is not None
        above = (found.peak_rss_bytes - found.runtime_rss_bytes) / 1e6
        print(
            f"| {side} | {runtime} | {precision} / {found.effective_precision} | {number} | {found.p50_ms:.3f} | "
            f"{found.p90_ms:.3f} | {size_bytes(path):,} | {above:.0f} MB |",
            flush=True,
        )


def _micro_lines(net: nn.Module, side: int, folder: Path) -> None:
    """Print what the files for TFLite Micro take: bytes, and the arena."""
    shape = (1, 3, side, side)
    for precision in PRECISIONS:
        path = folder / f"micro-{precision}-{side}.tflite"
        try:
            plain = _file(net, "litert", "fp32", shape, folder)
            for_micro(plain, path, _images(shape) if precision == "int8" else None)
            arena = f"arena {arena_of(path).total / 1e6:.1f} MB"
        except InputError as error:
            print(f"| {side} | {MICRO} | {precision}: {error} | | | | | |", flush=True)
            continue
        print(f"| {side} | {MICRO} | {precision} / {precision} | 1 | | | {size_bytes(path):,} | {arena} |", flush=True)


def _images(shape: tuple[int, int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((16, *shape[1:]), dtype=np.float32)


def _file(net: nn.Module, runtime: str, precision: str, shape: tuple[int, int, int, int], folder: Path) -> Path:
    """Make the model file of a runtime and precision, once."""
    images = _images(shape)
    suffix = find_runtime(runtime).suffixes[0]
    if precision == "int8" and runtime == "openvino":
        suffix = ".xml"
    path = folder / f"{'onnx-' if suffix == '.onnx' else ''}{precision}-{shape[2]}{suffix}"
    if path.is_file():
        return path
    onnx = folder / f"onnx-fp32-{shape[2]}.onnx"
    if not onnx.is_file():
        export_onnx(net, onnx, shape, check=False)
    makers: dict[str, Callable[[], object]] = {
        ".onnx": lambda: quantize_onnx(onnx, path, images) if precision == "int8" else None,
        ".xml": lambda: quantize_openvino(onnx, path, images),
        ".tflite": lambda: _litert(onnx, path, precision, shape, images),
        ".param": lambda: convert(find_runtime("ncnn"), [Conversion(onnx, path, shape)]),
        ".pt2": lambda: export_pt2(net, path, shape),
        ".pte": lambda: export_pte(net, path, shape, torch.from_numpy(images) if precision == "int8" else None),
    }
    makers[suffix]()
    return path


def _litert(onnx: Path, path: Path, precision: str, shape: tuple[int, int, int, int], images: np.ndarray) -> None:
    plain = path.with_name(f"fp32-{shape[2]}.tflite")
    if not plain.is_file():
        convert(find_runtime("litert"), [Conversion(onnx, plain, shape)])
    if precision == "int8":
        quantize_litert(plain, path, images)


if __name__ == "__main__":
    main()
