"""The profilers of ONNX Runtime, OpenVINO and PyTorch, each as `profile.Profiler` takes it.

This file is copied beside the runner to other hosts, which may have no such package.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, List, NamedTuple, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from tutelage.bench.runtimes.graph import holds_int8
else:
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]

# Inferences that are not counted, and those that are.
SETTLE, RUNS = 5, 50


class Kernel(NamedTuple):
    """One layer as `profile.Layer`, without its time."""

    name: str
    operator: str
    kernel: str = ""
    note: str = ""


Profile = List[Tuple[Kernel, Sequence[float]]]  # noqa: UP006

# Operators that compute products: in an int8 model they should be integers.
_ORT_FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_OPENVINO_PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
_NOT_QUANTIZED = "not quantized"


def onnxruntime(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Read the kernels' times that ONNX Runtime's profiler writes, of the graph that it optimised."""
    int8 = holds_int8(path)
    with TemporaryDirectory(prefix="tutelage-layers-") as folder:
        session = _adapter("ort").Onnxruntime().session(path, threads, profile=str(Path(folder, "ort")))
        name, images = session.get_inputs()[0].name, images_of(shape)
        for _ in range(SETTLE + RUNS):
            session.run(None, {name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = {}
    layers: dict[str, Kernel] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        node, said = event["name"].removesuffix("_kernel_time"), event["args"]
        provider = said.get("provider", "").removesuffix("ExecutionProvider")
        operator = said.get("op_name", "")
        note = _NOT_QUANTIZED if int8 and operator in _ORT_FLOAT else ""
        layers.setdefault(node, Kernel(node, operator, provider, note))
        times.setdefault(node, []).append(event["dur"] / 1000)
    return [(layer, times[node][-RUNS:]) for node, layer in layers.items()]


def openvino(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Read OpenVINO's performance counters after each inference; what it fused away or folded has none."""
    import openvino as runtime

    core = runtime.Core()
    model = core.read_model(path)
    model.reshape({model.inputs[0].any_name: list(shape)})
    settings = {
        "INFERENCE_PRECISION_HINT": _adapter("ov").OPENVINO_HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERF_COUNT": True,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    int8, images = holds_int8(path), images_of(shape)
    times: dict[str, list[float]] = {}
    layers: dict[str, Kernel] = {}
    for run in range(SETTLE + RUNS):
        request.infer([images])
        for one in request.get_profiling_info() if run >= SETTLE else ():
            if "EXECUTED" not in str(one.status) or one.node_type in ("Parameter", "Result", "Input", "Output"):
                continue
            kernel = one.exec_type
            whole = not kernel.upper().endswith(("_I8", "_U8")) and one.node_type in _OPENVINO_PRODUCTS
            note = _NOT_QUANTIZED if int8 and whole else ""
            layers.setdefault(one.node_name, Kernel(one.node_name, one.node_type, kernel, note))
            times.setdefault(one.node_name, []).append(one.real_time.total_seconds() * 1000)
    return [(layer, times[name]) for name, layer in layers.items()]


def torch(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Run an exported program node by node, each timed, on the CPU; nodes of no call take no time."""
    import contextlib

    import torch as runtime

    runtime.set_num_threads(threads)
    module: Any = _adapter("pytorch").load_program(path).module()
    times: dict[str, list[float]] = {}
    layers: dict[str, Kernel] = {}

    class Timed(runtime.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            if node.op != "call_function":
                return super().run_node(node)
            start = time.perf_counter_ns()
            value = super().run_node(node)
            took = (time.perf_counter_ns() - start) / 1e6
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            inside = str(stack[-1][0]) if stack else ""
            layers.setdefault(node.name, Kernel(inside or node.name, _operator(node.target), "eager"))
            times.setdefault(node.name, []).append(took)
            return value

    cast: Any = runtime.autocast("cpu", runtime.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    images = runtime.from_numpy(images_of(shape))
    interpreter = Timed(module)
    with runtime.inference_mode(), cast:
        for _ in range(SETTLE + RUNS):
            interpreter.run(images)
    return [(layer, times[name][-RUNS:]) for name, layer in layers.items()]


def images_of(shape: Sequence[int]) -> Any:
    """Give images of noise, as a measurement takes them."""
    import numpy as np

    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)


def _adapter(name: str) -> Any:
    """Import a runtime's own file, of the package or beside this one."""
    return importlib.import_module(f"tutelage.bench.runtimes.{name}" if __package__ else name)


def _operator(target: Any) -> str:
    """Name an operator of PyTorch as its users write it: conv2d of aten.conv2d.default."""
    name = getattr(target, "_overloadpacket", target)
    return str(getattr(name, "__name__", name)).removeprefix("aten.")
