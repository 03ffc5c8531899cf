"""The profilers of ONNX Runtime, OpenVINO and PyTorch, each as `profile.Profiler` takes it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tutelage.bench.runtimes.graph import holds_int8
from tutelage.bench.runtimes.ort import Onnxruntime
from tutelage.bench.runtimes.ov import OPENVINO_HINTS

from .profile import RUNS, SETTLE, Layer, images_of

Profile = list[tuple[Layer, Sequence[float]]]

# Operators that compute products: in an int8 model they should be integers.
_ORT_FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_OPENVINO_PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
_NOT_QUANTIZED = "not quantized"


def onnxruntime(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Read the kernels' times that ONNX Runtime's profiler writes, of the graph that it optimised."""
    int8 = holds_int8(path)
    with TemporaryDirectory(prefix="tutelage-layers-") as folder:
        session = Onnxruntime().session(path, threads, profile=str(Path(folder, "ort")))
        name, images = session.get_inputs()[0].name, images_of(shape)
        for _ in range(SETTLE + RUNS):
            session.run(None, {name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = {}
    layers: dict[str, Layer] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        node, said = event["name"].removesuffix("_kernel_time"), event["args"]
        provider = said.get("provider", "").removesuffix("ExecutionProvider")
        operator = said.get("op_name", "")
        note = _NOT_QUANTIZED if int8 and operator in _ORT_FLOAT else ""
        layers.setdefault(node, Layer(node, operator, 0.0, provider, note))
        times.setdefault(node, []).append(event["dur"] / 1000)
    return [(layer, times[node][-RUNS:]) for node, layer in layers.items()]


def openvino(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Read OpenVINO's performance counters after each inference; what it fused away or folded has none."""
    import openvino as runtime

    core = runtime.Core()
    model = core.read_model(path)
    model.reshape({model.inputs[0].any_name: list(shape)})
    settings = {
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERF_COUNT": True,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    int8, images = holds_int8(path), images_of(shape)
    times: dict[str, list[float]] = {}
    layers: dict[str, Layer] = {}
    for run in range(SETTLE + RUNS):
        request.infer([images])
        for one in request.get_profiling_info() if run >= SETTLE else ():
            if "EXECUTED" not in str(one.status) or one.node_type in ("Parameter", "Result", "Input", "Output"):
                continue
            kernel = one.exec_type
            whole = not kernel.upper().endswith(("_I8", "_U8")) and one.node_type in _OPENVINO_PRODUCTS
            note = _NOT_QUANTIZED if int8 and whole else ""
            layers.setdefault(one.node_name, Layer(one.node_name, one.node_type, 0.0, kernel, note))
            times.setdefault(one.node_name, []).append(one.real_time.total_seconds() * 1000)
    return [(layer, times[name]) for name, layer in layers.items()]


def torch(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Run an exported program node by node, each timed, on the CPU; nodes of no call take no time."""
    import contextlib

    import torch as runtime

    from tutelage.bench.runtimes.pytorch import load_program

    runtime.set_num_threads(threads)
    module: Any = load_program(path).module()
    times: dict[str, list[float]] = {}
    layers: dict[str, Layer] = {}

    class Timed(runtime.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            if node.op != "call_function":
                return super().run_node(node)
            start = time.perf_counter_ns()
            value = super().run_node(node)
            took = (time.perf_counter_ns() - start) / 1e6
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            inside = str(stack[-1][0]) if stack else ""
            layers.setdefault(node.name, Layer(inside or node.name, _operator(node.target), 0.0, "eager"))
            times.setdefault(node.name, []).append(took)
            return value

    cast: Any = runtime.autocast("cpu", runtime.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    images = runtime.from_numpy(images_of(shape))
    interpreter = Timed(module)
    with runtime.inference_mode(), cast:
        for _ in range(SETTLE + RUNS):
            interpreter.run(images)
    return [(layer, times[name][-RUNS:]) for name, layer in layers.items()]


def _operator(target: Any) -> str:
    """Name an operator of PyTorch as its users write it: conv2d of aten.conv2d.default."""
    name = getattr(target, "_overloadpacket", target)
    return str(getattr(name, "__name__", name)).removeprefix("aten.")
