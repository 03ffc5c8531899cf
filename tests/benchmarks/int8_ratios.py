"""Print what int8 is worth here: `python tests/benchmarks/int8_ratios.py` (or `make bench-int8`), some four minutes.

int8 p50 / fp32 p50 and bytes / bytes at 224 px, batch 1, one thread, in ONNX Runtime and in OpenVINO pinned to f32. All
files of a runtime take turns in one process, in shuffled rounds: a ratio is the median over rounds of one round's
ratio, its spread the 5th to 95th percentile of that median over bootstrap resamples of the rounds. Weights are random:
time does not depend on them, agreement would and is not shown.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tutelage.distill.teachers.zoo import build_teacher
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import ir_bytes, quantize_openvino
from tutelage.quant.run import onnx_session, openvino_model
from tutelage.records import Arch
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch

SIDE, CLASSES, CHANNELS = 224, 3, 3
CALIBRATION = 4
RUNS = 3  # a round's figure is the least of so many: one interruption does not count
TARGETS = {"onnxruntime": 0.65, "openvino": 0.75, "bytes": 0.30}
SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((SIDE,))
STUDENT = Arch.from_dict(
    {
        "space": "ofa_mbv3_w1.0", "d": [2] * 5, "r": SIDE,
        "ks": [3, 5, 3, 5, 3, 3, 5, 3, 5, 3], "e": [3, 4, 3, 4, 4, 3, 4, 3, 4, 3],
    }
)  # fmt: skip
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "OFA subnet, 2.3 M": lambda: build_arch(STUDENT, CLASSES, CHANNELS, seed=0),
    "EEEA-Net-C2": lambda: build_arch(place(PRESETS["EEEA-Net-C2"], SPACE, SIDE), CLASSES, CHANNELS, seed=0),
    "MobileNetV2": lambda: build_teacher("mobilenetv2_100", CLASSES, CHANNELS, resolution=SIDE, seed=0),
    "DenseNet-121": lambda: build_teacher("densenet121", CLASSES, CHANNELS, resolution=SIDE, seed=0),
}


def make_files(name: str, folder: Path) -> dict[str, Path]:
    """Export one network and quantize it for both runtimes."""
    model = NETWORKS[name]()
    model.train()
    with torch.no_grad():  # BN statistics that fit, so that ranges are of ordinary size
        for _ in range(2):
            model(torch.randn(4, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    stem = folder / name.split(",")[0].replace(" ", "-")
    fp32, ort, ir = stem.with_suffix(".onnx"), stem.with_suffix(".int8.onnx"), stem.with_suffix(".int8.xml")
    export_onnx(model.eval(), fp32, (1, CHANNELS, SIDE, SIDE))
    images = np.random.default_rng(0).standard_normal((CALIBRATION, CHANNELS, SIDE, SIDE)).astype(np.float32)
    quantize_onnx(fp32, ort, images)
    quantize_openvino(fp32, ir, images)
    return {"fp32": fp32, "onnxruntime": ort, "openvino": ir}


def opened(runtime: str, path: Path) -> Callable[[], object]:
    """Open a file and give a function that answers one image."""
    image = np.random.default_rng(1).standard_normal((1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    if runtime == "onnxruntime":
        session = onnx_session(path)
        return lambda: session.run(None, {"input": image})
    request = openvino_model(path).create_infer_request()
    return lambda: request.infer({0: image})


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Time all calls in shuffled rounds: name -> milliseconds (rounds,)."""
    rng = np.random.default_rng(0)
    for call in calls.values():
        for _ in range(5):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            runs = []
            for _ in range(RUNS):
                start = time.perf_counter()
                calls[name]()
                runs.append(time.perf_counter() - start)
            times[name].append(1e3 * min(runs))
    return {name: np.array(values) for name, values in times.items()}


def ratio(int8: np.ndarray, fp32: np.ndarray) -> tuple[float, float, float]:
    """Give the median of the rounds' ratios with its bootstrap interval."""
    ratios, rng = int8 / fp32, np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (1000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.05, 0.95])
    return float(np.median(ratios)), float(low), float(high)


def size(path: Path) -> int:
    return ir_bytes(path) if path.suffix == ".xml" else path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--files", type=Path, help="folder where the files are kept and found again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name in NETWORKS:
            stem = folder / name.split(",")[0].replace(" ", "-")
            kept = {"fp32": stem.with_suffix(".onnx"), "onnxruntime": stem.with_suffix(".int8.onnx")}
            kept["openvino"] = stem.with_suffix(".int8.xml")
            files[name] = kept if all(path.is_file() for path in kept.values()) else make_files(name, folder)
        for runtime in ("onnxruntime", "openvino"):
            calls = {
                (name, kind): opened(runtime, files[name][kind]) for name in NETWORKS for kind in ("fp32", runtime)
            }
            found = interleaved({f"{name}|{kind}": call for (name, kind), call in calls.items()}, options.rounds)
            for name in NETWORKS:
                fp32, int8 = found[f"{name}|fp32"], found[f"{name}|{runtime}"]
                middle, low, high = ratio(int8, fp32)
                share = size(files[name][runtime]) / size(files[name]["fp32"])
                print(
                    f"{runtime:12} {name:18} fp32 {np.median(fp32):6.2f} ms  int8 {np.median(int8):6.2f} ms  "
                    f"ratio {middle:.3f} [{low:.3f}, {high:.3f}] (target {TARGETS[runtime]})  "
                    f"bytes {share:.3f} (target {TARGETS['bytes']:.2f})"
                )


if __name__ == "__main__":
    main()
