"""The runtimes' adapters: load a model file and run it. Python, numpy and the runtime itself are all they need.

Each has `suffixes`, `prepare()`, which imports the runtime and gives its version, and `load(path, shape, threads,
precision)`, which gives `(run, effective precision)`: run takes images and gives the model's outputs, as arrays.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from typing import Any, Callable, Sequence  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

if __package__:
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]

Run = Callable[[Any], Any]


class Onnxruntime:
    """ONNX Runtime on the CPU or a CUDA device: one inter-op thread, and no thread that spins while it waits."""

    suffixes = (".onnx",)

    def __init__(self, provider: str = "CPUExecutionProvider") -> None:
        self.provider = provider

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        if self.provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime has no {self.provider}: pip install onnxruntime-gpu")
        return str(onnxruntime.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import onnxruntime

        if precision not in ("fp32", "int8"):
            raise ValueError(f"onnxruntime runs fp32 and int8, not {precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Left alone, the CUDA provider multiplies fp32 in TF32.
        settings = {"use_tf32": "0"} if self.provider == "CUDAExecutionProvider" else {}
        session = onnxruntime.InferenceSession(path, options, providers=[(self.provider, settings)])
        if session.get_providers()[0] != self.provider:  # it falls back to the CPU without an error
            raise ValueError(f"{self.provider} does not start here: is there a CUDA device with its libraries?")
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0], "int8" if holds_int8(path) else "fp32"


# What OpenVINO is told for a precision; of an int8 model, what is not quantized stays f32.
OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


class Openvino:
    """OpenVINO on the CPU. Left alone it computes fp32 models in bf16 where it can: the precision is always pinned."""

    suffixes = (".onnx", ".xml")

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import openvino

        return str(openvino.__version__).split("-")[0]

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
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
        if holds_int8(path):
            effective = "int8"
        return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0], effective


class Torch:
    """PyTorch on an exported program (`.pt2`): eager, the numerical reference, or compiled for its fixed weights."""

    suffixes = (".pt2",)

    def __init__(self, compiled: bool = False) -> None:
        self.compiled = compiled

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import torch

        return str(torch.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import torch

        torch.set_num_threads(threads)
        program = load_program(path)
        module: Any = program.module()
        kind = {"fp32": None, "bf16": torch.bfloat16}
        if precision not in kind:
            raise ValueError(f"torch runs {', '.join(kind)}, not {precision}")
        cast = torch.autocast("cpu", kind[precision]) if kind[precision] else contextlib.nullcontext()
        layout = torch.contiguous_format
        if self.compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True  # weights become constants: folded and laid out in advance
            inductor.compile_threads = 1  # else a pool of its processes stays alive beside what is measured
            layout = torch.channels_last
            module = torch.compile(module.to(memory_format=layout))

        def run(images: Any) -> Any:
            with torch.inference_mode(), cast:
                return module(torch.from_numpy(images).contiguous(memory_format=layout)).float().numpy()

        return run, "int8" if holds_int8(path, program) else precision


# Names of what a `.pt2` archive holds as pickled objects, and the switch that keeps all else to tensors.
_PICKLED = ("custom_obj_", "opaque_obj_")
_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(path: str) -> Any:
    """Read a `.pt2` program as data: left alone, `torch.export.load` unpickles what a file holds beside tensors."""
    import torch

    with zipfile.ZipFile(path) as archive:
        held = [name for name in archive.namelist() if any(mark in name for mark in _PICKLED)]
    if held:
        raise ValueError(f"it holds a pickled object, {held[0]}: refused")
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        return torch.export.load(path)
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


class Executorch:
    """ExecuTorch with XNNPACK on a lowered program (`.pte`)."""

    suffixes = (".pte",)

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        from importlib.metadata import version

        import executorch.runtime  # noqa: F401 - it imports torch, whose memory is the runtime's

        return version("executorch")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        if precision not in ("fp32", "int8"):
            raise ValueError(f"executorch runs fp32 and int8, not {precision}")
        torch.set_num_threads(threads)
        _unsafe_reset_threadpool(threads)
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")

        def run(images: Any) -> Any:
            return method.execute([torch.from_numpy(images)])[0].numpy()

        return run, "int8" if holds_int8(path, program) else "fp32"


class Litert:
    """LiteRT with XNNPACK. A fully quantized model wants quantized input: making it is part of the inference."""

    suffixes = (".tflite",)

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        from importlib.metadata import version

        import ai_edge_litert.interpreter  # noqa: F401 - its memory belongs to the runtime, not to a model

        return version("ai-edge-litert")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
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

        return run, "int8" if holds_int8(path, interpreter) else "fp32"


class Ncnn:
    """ncnn on the CPU. Its default is half precision: fp32 is asked for and all its short formats are switched off."""

    suffixes = (".param",)

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import ncnn

        return str(ncnn.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
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

        return run, "int8" if holds_int8(path) else precision


class Anchor:
    """A fixed net in numpy alone, for runtimes that cannot read the ONNX anchors: the 'path' is its width.

    Eight layers, each with weights of its own, on sixteen columns: as in a network's last layers, each is read once.
    """

    suffixes = ("",)

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        return str(np.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        width = int(os.path.basename(path))
        rng = np.random.default_rng(width)
        weights = [rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5) for _ in range(8)]
        first = rng.standard_normal((width, 16), dtype=np.float32)

        def run(images: Any) -> Any:
            x = first
            for layer in weights:
                x = np.maximum(layer @ x, 0)
            return x

        return run, "fp32"


ADAPTERS: dict[str, Callable[[], Any]] = {
    "onnxruntime": Onnxruntime,
    "onnxruntime-cuda": lambda: Onnxruntime("CUDAExecutionProvider"),
    "openvino": Openvino,
    "torch": Torch,
    "torch-compiled": lambda: Torch(compiled=True),
    "litert": Litert,
    "executorch": Executorch,
    "ncnn": Ncnn,
    "anchor": Anchor,
}


def open_model(runtime: str, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
    """Load a model in this process; returns `(run, effective precision)`, where run takes and gives arrays."""
    adapter = ADAPTERS[runtime]()
    adapter.prepare()
    run, effective = adapter.load(path, shape, threads, precision)
    return run, effective
