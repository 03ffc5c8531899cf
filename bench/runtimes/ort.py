"""ONNX Runtime on the CPU or a CUDA device."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import NEVER_ON_GPU, Feed, Run, Runtime, ask_driver, sizes_of
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import NEVER_ON_GPU, Feed, Run, Runtime, ask_driver, sizes_of  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Onnxruntime:
    """ONNX Runtime on the CPU or a CUDA device: one inter-op thread, and no thread that spins while it waits.

    bound: the device, as IOBinding names it, on which images are placed before an inference is timed and its outputs
    are left; "": both are the host's, and an inference is timed with what copying them takes.
    """

    def __init__(self, provider: str = _CPU, bound: str = "") -> None:
        self.provider, self.bound = provider, bound

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        if self.provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime has no {self.provider}: {_GPU_BUILD}")
        return str(onnxruntime.__version__)

    def gpu(self) -> Tuple[str, str]:  # noqa: UP006
        """Name the first CUDA device and its power limit, as the driver does; "" on the CPU, or where it is silent."""
        if self.provider != _CUDA:
            return "", ""
        return ask_driver("name", "0")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        if precision not in ("fp32", "int8"):
            raise ValueError(f"onnxruntime runs fp32 and int8, not {precision}")
        session = self.session(path, threads)
        effective = "int8" if holds_int8(path) else "fp32"
        entry, *others = session.get_inputs()
        if entry.type == "tensor(float)" and not others and not self.bound:
            name = entry.name
            return lambda images: session.run(None, {name: images})[0], effective
        batch = shape[0] if shape else 1
        feed = Feed(entry.name, _dtype(entry), [(one.name, _dtype(one), sizes_of(one.shape, batch)) for one in others])
        if self.bound:
            return _Bound(session, feed, self.bound), effective
        return lambda images: session.run(None, feed(images))[0], effective

    def session(self, path: str, threads: int, profile: str = "") -> Any:
        """Open a model file; with `profile`, the start of a file's name, the times of its kernels are written there."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # By default the CUDA provider multiplies fp32 in TF32.
        settings = {"use_tf32": "0"} if self.provider == _CUDA else {}
        session = onnxruntime.InferenceSession(path, options, providers=[(self.provider, settings)])
        if session.get_providers()[0] != self.provider:  # it falls back to the CPU without an error
            raise ValueError(f"{self.provider} does not start here: is there a CUDA device with its libraries?")
        return session


class _Bound:
    """A session whose inputs and outputs stay on the device while it is timed; called with arrays and giving them."""

    def __init__(self, session: Any, feed: Feed, device: str) -> None:
        self._session, self._feed, self._device = session, feed, device
        self._images: Any = None
        self._binding: Any = None

    def __call__(self, images: Any) -> Any:
        return self._session.run(None, self._feed(images))[0]

    def times(self, images: Any, repeats: int) -> list[float]:
        """Give the milliseconds of each of `repeats` inferences, until the device has the outputs of each."""
        binding, samples = self._placed(images), []
        for _ in range(repeats):
            start = time.perf_counter_ns()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            samples.append((time.perf_counter_ns() - start) / 1e6)
        return samples

    def outputs(self) -> list[Any]:
        """Copy what the last timed inference gave to the host."""
        return list(self._binding.copy_outputs_to_cpu())

    def _placed(self, images: Any) -> Any:
        """Place images on the device, once for those that come again, and run on them once: outputs are allocated."""
        if images is self._images:
            return self._binding
        import onnxruntime

        binding = self._session.io_binding()
        for name, value in self._feed(images).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0))
        for output in self._session.get_outputs():
            binding.bind_output(output.name, self._device)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        self._images, self._binding = images, binding
        return binding


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
    profiler="tutelage.bench.layers.profilers:onnxruntime",
)
# In the place of onnxruntime: both distributions bring one module, and what is installed last is what runs.
_GPU_BUILD = "pip uninstall -y onnxruntime, then pip install onnxruntime-gpu"
ONNXRUNTIME_CUDA = replace(
    ONNXRUNTIME,
    name="onnxruntime-cuda",
    distribution="onnxruntime-gpu",
    adapter=lambda: Onnxruntime(_CUDA, bound="cuda"),
    anchors="onnxruntime-cuda",
    int8_blocks=False,
    program="",
    profiler="",
    on_gpu=True,
    ambiguous_module=True,
    installed_by=_GPU_BUILD,
    caveat=NEVER_ON_GPU,
)
# Timed with the copies of images to the card and of outputs from it, as an application that holds both in its own
# memory waits for them: another device than one without.
ONNXRUNTIME_CUDA_COPIES = replace(
    ONNXRUNTIME_CUDA,
    name="onnxruntime-cuda-copies",
    adapter=lambda: Onnxruntime(_CUDA),
    anchors="onnxruntime-cuda-copies",
)
