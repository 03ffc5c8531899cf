"""ONNX Runtime on the CPU or a CUDA device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import Feed, Run, Runtime, ask_driver, sizes_of
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Feed, Run, Runtime, ask_driver, sizes_of  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


class Onnxruntime:
    """ONNX Runtime on the CPU or a CUDA device: one inter-op thread, and no thread that spins while it waits."""

    def __init__(self, provider: str = "CPUExecutionProvider") -> None:
        self.provider = provider

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        if self.provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime has no {self.provider}: pip install onnxruntime-gpu")
        return str(onnxruntime.__version__)

    def gpu(self) -> Tuple[str, str]:  # noqa: UP006
        """Name the first CUDA device and its power limit, as the driver does; "" on the CPU, or where it is silent."""
        if self.provider != "CUDAExecutionProvider":
            return "", ""
        return ask_driver("name", "0")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import onnxruntime

        if precision not in ("fp32", "int8"):
            raise ValueError(f"onnxruntime runs fp32 and int8, not {precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # By default the CUDA provider multiplies fp32 in TF32.
        settings = {"use_tf32": "0"} if self.provider == "CUDAExecutionProvider" else {}
        session = onnxruntime.InferenceSession(path, options, providers=[(self.provider, settings)])
        if session.get_providers()[0] != self.provider:  # it falls back to the CPU without an error
            raise ValueError(f"{self.provider} does not start here: is there a CUDA device with its libraries?")
        effective = "int8" if holds_int8(path) else "fp32"
        entry, *others = session.get_inputs()
        if entry.type == "tensor(float)" and not others:
            name = entry.name
            return lambda images: session.run(None, {name: images})[0], effective
        batch = shape[0] if shape else 1
        feed = Feed(entry.name, _dtype(entry), [(one.name, _dtype(one), sizes_of(one.shape, batch)) for one in others])
        return lambda images: session.run(None, feed(images))[0], effective


def _dtype(entry: Any) -> str:
    """Give numpy's name of the type that an input declares."""
    if entry.type not in _DTYPES:
        raise ValueError(f"input {entry.name} is a {entry.type}: give a network of numbers")
    return _DTYPES[entry.type]


ONNXRUNTIME = Runtime(
    name="onnxruntime",
    module="onnxruntime",
    distribution="onnxruntime",
    precisions=("fp32", "int8"),
    suffixes=(".onnx",),
    adapter=Onnxruntime,
    file=__file__,
    anchors="onnxruntime",
    program="tutelage.bench.programs.onnxruntime:PERF_TEST",
    int8_blocks=True,
)
ONNXRUNTIME_CUDA = replace(
    ONNXRUNTIME,
    name="onnxruntime-cuda",
    distribution="onnxruntime-gpu",
    adapter=lambda: Onnxruntime("CUDAExecutionProvider"),
    anchors="onnxruntime-cuda",
    int8_blocks=False,
    program="",
    on_gpu=True,
    ambiguous_module=True,
)
