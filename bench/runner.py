"""The process that runs models and times them: Python, numpy and one runtime are all it needs, here or on another host.

Enters: one JSON job on the first line of standard input, then one JSON request a line. Leaves: one JSON answer a line
on standard output. Between requests it waits blocked on standard input, so an idle runner costs no processor time;
when the input ends (the parent is gone, the connection is lost) it ends too.

    job       {"runtime", "threads", "precision", "cores": [..]|null, "models": [{"path", "shape": [b, c, h, w]}, ..]}
    requests  {"do": "load", "model": i} | {"do": "warm", "model": i, "seconds": s}
              {"do": "time", "model": i, "settle": m, "repeats": n} | {"do": "memory"}
              any request may carry "limit": seconds after which the runner kills itself
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
from typing import Any, Callable, Iterator, Sequence  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

Run = Callable[[Any], Any]

# Warm-up ends when two neighbouring windows of this many inferences agree within the tolerance.
WARM_WINDOW = 5
WARM_TOLERANCE = 0.05
ANCHOR_SIZES = (48, 96, 192)


class Onnxruntime:
    """ONNX Runtime on the CPU: one inter-op thread, and no thread that spins while it waits."""

    suffixes = (".onnx",)

    def prepare(self) -> str:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        return str(onnxruntime.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        import onnxruntime

        if precision not in ("fp32", "int8"):
            raise ValueError(f"onnxruntime runs fp32 and int8 on the CPU, not {precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        quantized = _holds(path, b"QuantizeLinear")
        return lambda images: session.run(None, {name: images})[0], "int8" if quantized else "fp32"


# What OpenVINO is told for a precision; of an int8 model, what is not quantized stays f32.
OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


class Openvino:
    """OpenVINO on the CPU. Left alone it computes fp32 models in bf16 where it can: the precision is always pinned."""

    suffixes = (".onnx", ".xml")

    def prepare(self) -> str:
        import openvino

        return str(openvino.__version__).split("-")[0]

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        if shape is not None:
            model.reshape(list(shape))
        if precision not in OPENVINO_HINTS:
            raise ValueError(f"openvino runs {', '.join(OPENVINO_HINTS)}, not {precision}")
        settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the runner pins the whole process
        }
        compiled = core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
        told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        effective = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}.get(told, told)
        if any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()):
            effective = "int8"
        return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0], effective


class Torch:
    """PyTorch eager on an exported program (`.pt2`): the numerical reference."""

    suffixes = (".pt2",)

    def prepare(self) -> str:
        import torch

        return str(torch.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        import torch

        torch.set_num_threads(threads)
        module = torch.export.load(path).module()
        kind = {"fp32": None, "bf16": torch.bfloat16}
        if precision not in kind:
            raise ValueError(f"torch runs {', '.join(kind)}, not {precision}")
        cast = torch.autocast("cpu", kind[precision]) if kind[precision] else contextlib.nullcontext()

        def run(images: Any) -> Any:
            with torch.inference_mode(), cast:
                return module(torch.from_numpy(images)).float().numpy()

        return run, precision


class Litert:
    """LiteRT with XNNPACK. A fully quantized model wants quantized input: making it is part of the inference."""

    suffixes = (".tflite",)

    def prepare(self) -> str:
        from importlib.metadata import version

        import ai_edge_litert.interpreter  # noqa: F401 - its memory belongs to the runtime, not to a model

        return version("ai-edge-litert")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        from ai_edge_litert.interpreter import Interpreter

        if precision not in ("fp32", "int8"):
            raise ValueError(f"litert runs fp32 and int8, not {precision}")
        interpreter = Interpreter(model_path=path, num_threads=threads)
        entry, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if shape is not None and tuple(entry["shape"]) != tuple(shape):
            interpreter.resize_tensor_input(entry["index"], list(shape))
        interpreter.allocate_tensors()
        scale, zero = entry["quantization"]

        def run(images: Any) -> Any:
            if entry["dtype"] != np.float32:
                limits = np.iinfo(entry["dtype"])
                images = np.clip(np.round(images / scale + zero), limits.min, limits.max).astype(entry["dtype"])
            interpreter.set_tensor(entry["index"], images)
            interpreter.invoke()
            out = interpreter.get_tensor(leave["index"])
            if leave["dtype"] != np.float32:
                out = (out.astype(np.float32) - leave["quantization"][1]) * leave["quantization"][0]
            return out

        quantized = any(detail["dtype"] == np.int8 for detail in interpreter.get_tensor_details())
        return run, "int8" if quantized else "fp32"


class Ncnn:
    """ncnn on the CPU. Its default is half precision: fp32 is asked for and all its short formats are switched off."""

    suffixes = (".param",)

    def prepare(self) -> str:
        import ncnn

        return str(ncnn.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        import ncnn

        if precision not in ("fp32", "fp16", "bf16"):
            raise ValueError(f"ncnn runs fp32, fp16 and bf16 here, not {precision}")
        if shape is not None and shape[0] != 1:
            raise ValueError(f"ncnn takes one image at a time, not a batch of {shape[0]}")
        net = ncnn.Net()
        net.opt.num_threads = threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(net.opt, option, precision == "fp16")
        net.opt.use_bf16_storage = precision == "bf16"
        if net.load_param(path) or net.load_model(os.path.splitext(path)[0] + ".bin"):
            raise ValueError(f"ncnn cannot read {path} and the .bin beside it")
        entry, leave = net.input_names()[0], net.output_names()[0]

        def run(images: Any) -> Any:
            with net.create_extractor() as extractor:
                extractor.input(entry, ncnn.Mat(images[0]).clone())  # ncnn may write into its input
                return np.array(extractor.extract(leave)[1])[None]

        return run, precision


class Anchor:
    """A fixed net in numpy alone, for runtimes that cannot read the ONNX anchors: the 'path' is its width."""

    suffixes = ("",)

    def prepare(self) -> str:
        return str(np.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        width = int(os.path.basename(path))
        weights = np.random.default_rng(width).standard_normal((width, width)).astype(np.float32) / width**0.5

        def run(images: Any) -> Any:
            x = weights
            for _ in range(8):
                x = np.maximum(weights @ x, 0)
            return x

        return run, "fp32"


ADAPTERS: dict[str, Callable[[], Any]] = {
    "onnxruntime": Onnxruntime,
    "openvino": Openvino,
    "torch": Torch,
    "litert": Litert,
    "ncnn": Ncnn,
    "anchor": Anchor,
}


def open_model(runtime: str, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
    """Load a model in this process; returns `(run, effective precision)`, where run takes and gives arrays."""
    adapter = ADAPTERS[runtime]()
    adapter.prepare()
    run, effective = adapter.load(path, shape, threads, precision)
    return run, effective


def serve(lines: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Take the job, then answer requests until the input ends."""
    job = json.loads(next(lines))
    _follow_parent(job.get("parent"))
    if job.get("cores") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core that this host lacks: run unpinned
            os.sched_setaffinity(0, job["cores"])
    models: list[Any] = [None] * len(job["models"])
    try:
        adapter = ADAPTERS[job["runtime"]]()
        version = adapter.prepare()
    except Exception as error:  # noqa: BLE001 - every failure of a runtime must reach the parent as an answer
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    gc.disable()
    answer({"version": version, "rss": memory()["rss"], "pid": os.getpid(), "machine": os.uname().machine})
    for line in lines:
        request = json.loads(line)
        _watchdog(request.get("limit"))
        try:
            answer(_obey(request, job, adapter, models))
        except Exception as error:  # noqa: BLE001
            answer({"error": f"{type(error).__name__}: {error}"})
        _watchdog(None)


def memory() -> dict[str, int | None]:
    """Give the resident memory of this process in bytes: now, and at its peak."""
    sizes = {}
    try:
        with open("/proc/self/status") as status:  # the peak of getrusage would include the parent's before exec
            for line in status:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmHWM"):
                    sizes[key] = int(value.split()[0]) * 1024
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sizes = {"VmRSS": peak, "VmHWM": peak}
    return {"rss": sizes.get("VmRSS"), "peak": sizes.get("VmHWM")}


def _obey(request: dict[str, Any], job: dict[str, Any], adapter: Any, models: list[Any]) -> dict[str, Any]:
    what = request["do"]
    if what == "memory":
        return memory()
    index = request["model"]
    spec = job["models"][index]
    if what == "load":
        start = time.perf_counter_ns()
        run, effective = adapter.load(spec["path"], tuple(spec["shape"]), job["threads"], job["precision"])
        images = np.random.default_rng(0).standard_normal(spec["shape"], dtype=np.float32)
        run(images)  # the first inference belongs to loading: runtimes allocate and pack in it
        models[index] = (run, images)
        return {"load_ms": (time.perf_counter_ns() - start) / 1e6, "effective": effective}
    run, images = models[index]
    if what == "warm":
        return _warm(run, images, request["seconds"])
    if what == "time":
        for _ in range(request.get("settle", 1)):  # caches hold another model's data: the first inferences do not count
            run(images)
        return {"ms": _times(run, images, request["repeats"])}
    raise ValueError(f"unknown request {what}")


def _times(run: Run, images: Any, repeats: int) -> list[float]:
    clock = time.perf_counter_ns
    samples = []
    for _ in range(repeats):
        start = clock()
        run(images)
        samples.append((clock() - start) / 1e6)
    return samples


def _warm(run: Run, images: Any, seconds: float) -> dict[str, Any]:
    """Run until two neighbouring windows agree, or until the time is over; returns the last window's median."""
    end = time.perf_counter() + seconds
    last = float(np.median(_times(run, images, WARM_WINDOW)))
    while time.perf_counter() < end:
        now = float(np.median(_times(run, images, WARM_WINDOW)))
        if abs(now - last) <= WARM_TOLERANCE * last:
            return {"ms": now, "steady": True}
        last = now
    return {"ms": last, "steady": False}


def _holds(path: str, word: bytes) -> bool:
    with open(path, "rb") as file:
        return word in file.read()


def _watchdog(seconds: float | None) -> None:
    """Let the kernel end this process after some seconds, even while it hangs inside a runtime's native code."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds or 0)


def _follow_parent(parent: int | None) -> None:
    """Ask Linux to kill this process when its parent dies, even if it is stopped just then."""
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Speak JSON on the real standard output, and send whatever a runtime prints there to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    serve(iter(sys.stdin.readline, ""), lambda reply: print(json.dumps(reply), file=out, flush=True))


if __name__ == "__main__":
    main()
