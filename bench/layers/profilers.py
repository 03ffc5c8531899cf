"""The profilers of ONNX Runtime, OpenVINO, LiteRT and PyTorch, each as `profile.Profiler` takes it.

This file is copied beside the runner to other hosts, which may have no such package.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

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
# XNNPACK names an operator by its kind and its types, LiteRT the part of a graph that one delegate ran by the delegate.
_FLOAT_PRODUCT = re.compile(r"(Convolution|Deconvolution|Fully Connected|Batch Matrix Multiply).*\bF(16|32)\b")
DELEGATE = re.compile(r"TfLite\w*Delegate$")
# Of LiteRT's C interface (litert/c/litert_profiler_event.h): kinds of events, operators and those of a delegate; the
# bytes of an event, by version; and more than the type of a tensor takes.
_OPERATOR, _DELEGATED = 2, 4 | 8
_EVENT_BYTES, _EVENT_ROOM = (104, 88), 1024  # room for what another version may write
_TENSOR_TYPE_BYTES = 256
_UNWRITTEN = b"\xaa"


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


def litert(path: str, shape: tuple[int, ...], threads: int, precision: str) -> Profile:
    """Read the events of LiteRT's profiler after each inference: XNNPACK's operators, and what it left to LiteRT's own.

    The profiler is in the C library of LiteRT's Python package, which does not show it. Raises RuntimeError for a
    version of it that does not do as this one expects.
    """
    from ai_edge_litert.interpreter import Interpreter

    int8 = holds_int8(path, Interpreter(model_path=path))
    with _no_messages():
        model = _CompiledLitert(path, threads, images_of(shape))
        try:
            runs = [model.events() for _ in range(SETTLE + RUNS)][SETTLE:]
        finally:
            model.close()
    first = runs[0]
    if any([event[:2] for event in run] != [event[:2] for event in first] for run in runs):
        raise RuntimeError("its profiler counted other operators in another inference")
    by_xnnpack = [bool(kind & _DELEGATED) for kind, *_ in first]
    layers: Profile = []
    for place, (_, operator, _) in enumerate(first):
        delegated = by_xnnpack[place]
        if any(by_xnnpack) and DELEGATE.match(operator):  # stands for all of its operators
            continue
        kernel, note = litert_kernel(operator, by_xnnpack=delegated, int8=int8, beside_xnnpack=any(by_xnnpack))
        layers.append((Kernel(f"{operator}:{place}", operator, kernel, note), [run[place][2] for run in runs]))
    return layers


def litert_kernel(operator: str, *, by_xnnpack: bool, int8: bool, beside_xnnpack: bool) -> Tuple[str, str]:  # noqa: UP006
    """Say what ran an operator of LiteRT, and what is to be noted: XNNPACK left it, or ran it in floats."""
    if by_xnnpack:
        return "XNNPACK", _NOT_QUANTIZED if int8 and _FLOAT_PRODUCT.match(operator) else ""
    return "built-in", "not by XNNPACK" if beside_xnnpack else ""


@contextmanager
def _no_messages() -> Iterator[None]:
    """Keep from standard error what a C library says there of each of its steps."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _CompiledLitert:
    """A model that LiteRT's C library (`litert/c` of its source) runs on the CPU with its profiler."""

    def __init__(self, path: str, threads: int, images: Any) -> None:
        import ai_edge_litert

        folder = Path(str(ai_edge_litert.__file__)).parent
        self.library = ctypes.CDLL(str(next(iter(folder.glob("libLiteRt.*")), folder / "libLiteRt.so")))
        self.made: list[tuple[str, ctypes.c_void_p]] = []
        self.environment = self._new("Environment", "LiteRtCreateEnvironment", 0, None)
        model = self._new("Model", "LiteRtCreateModelFromFile", self.environment, path.encode())
        options = self._new("Options", "LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, 1)  # the CPU
        c = ctypes.CDLL(None)
        c.strdup.restype = ctypes.c_void_p
        toml = {"xnnpack": f"num_threads = {threads}", "runtime_options_string": "enable_profiling = true"}
        for name, text in toml.items():
            said = ctypes.c_void_p(c.strdup(f"{text}\n".encode()))
            own = self._new("", "LiteRtCreateOpaqueOptions", name.encode(), said, c.free)
            self._call("LiteRtAddOpaqueOptions", options, own)
        self.compiled = self._new("CompiledModel", "LiteRtCreateCompiledModel", self.environment, model, options)
        self.profiler = self._new("", "LiteRtCompiledModelGetProfiler", self.compiled)
        index = ctypes.c_size_t()
        self._call("LiteRtGetMainModelSubgraphIndex", model, ctypes.byref(index))
        graph = self._new("", "LiteRtGetModelSubgraph", model, index)
        self.inputs, self.outputs = self._buffers(graph, "Input"), self._buffers(graph, "Output")
        self._fill(images)

    def events(self) -> list[tuple[int, str, float]]:
        """Run once; give the operators as (kind, name, ms)."""
        for function in ("LiteRtResetProfiler", "LiteRtStartProfiler"):
            self._call(function, self.profiler)
        ends = [end for one in (self.inputs, self.outputs) for end in (ctypes.c_size_t(len(one)), one)]
        self._call("LiteRtRunCompiledModel", self.compiled, ctypes.c_size_t(0), *ends)
        self._call("LiteRtStopProfiler", self.profiler)
        number = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(number))
        room = _EVENT_ROOM * number.value
        written = ctypes.create_string_buffer(_UNWRITTEN * room, max(1, room))
        self._call("LiteRtGetProfilerEvents", self.profiler, number, written)
        used = len(written.raw.rstrip(_UNWRITTEN))
        size = next((one for one in _EVENT_BYTES if 0 <= one * number.value - used < 8), 0)
        if not size:
            raise RuntimeError(f"its profiler wrote {used} bytes for {number.value} events: another version's layout")
        found = [struct.unpack_from("=QI4x8xQ", written.raw, size * place) for place in range(number.value)]
        wanted = [one for one in found if one[1] & (_OPERATOR | _DELEGATED)]
        return [(kind, ctypes.string_at(tag).decode(errors="replace"), us / 1000) for tag, kind, us in wanted]

    def close(self) -> None:
        """Free what was made, the last first."""
        for kind, handle in reversed(self.made):
            getattr(self.library, f"LiteRtDestroy{kind}")(handle)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self.library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function} of LiteRT's library gives status {status}")

    def _new(self, kind: str, function: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function whose last argument takes what it makes; of a `kind` that is to be freed."""
        handle = ctypes.c_void_p()
        self._call(function, *arguments, ctypes.byref(handle))
        if kind:
            self.made.append((kind, handle))
        return handle

    def _buffers(self, graph: ctypes.c_void_p, way: str) -> Any:
        """Allocate the buffers of all inputs or outputs, as the compiled model wants them."""
        number = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSubgraph{way}s", graph, ctypes.byref(number))
        buffers = []
        for place in map(ctypes.c_size_t, range(number.value)):
            kind = ctypes.create_string_buffer(_TENSOR_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", self._new("", f"LiteRtGetSubgraph{way}", graph, place), kind)
            wanted = f"LiteRtGetCompiledModel{way}BufferRequirements"
            needs = self._new("", wanted, self.compiled, ctypes.c_size_t(0), place)
            create = "LiteRtCreateManagedTensorBufferFromRequirements"
            buffers.append(self._new("TensorBuffer", create, self.environment, kind, needs).value)
        return (ctypes.c_void_p * len(buffers))(*buffers)

    def _fill(self, images: Any) -> None:
        """Write the images into the input, as floats or as int8."""
        size, place = ctypes.c_size_t(), ctypes.c_void_p()
        self._call("LiteRtGetTensorBufferPackedSize", ctypes.c_void_p(self.inputs[0]), ctypes.byref(size))
        if size.value not in (images.nbytes, images.size):
            raise RuntimeError(f"the model takes {size.value} bytes, and images {images.shape} have {images.nbytes}")
        content = (images if size.value == images.nbytes else (32 * images).clip(-128, 127).astype("int8")).tobytes()
        buffer = ctypes.c_void_p(self.inputs[0])
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), 1)  # to write
        ctypes.memmove(place, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", buffer)


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
