"""PyTorch on an exported program (`.pt2`), eager or compiled, on the CPU or a CUDA device."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from dataclasses import replace
from typing import Any, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import NEVER_ON_GPU, Run, Runtime, ask_driver
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import NEVER_ON_GPU, Run, Runtime, ask_driver  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


class Torch:
    """PyTorch on an exported program (`.pt2`): eager, the numerical reference, or compiled for its fixed weights.

    device: cpu, or cuda, the first one that CUDA_VISIBLE_DEVICES leaves. float32 is multiplied as such there, not in
    TF32, as by the other runtimes.
    """

    def __init__(self, compiled: bool = False, device: str = "cpu") -> None:
        self.compiled, self.device = compiled, device

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"torch {torch.__version__} finds no CUDA device here: runtime torch takes the CPU")
        return str(torch.__version__)

    def gpu(self) -> Tuple[str, str]:  # noqa: UP006
        """Name the CUDA device with its driver, and its power limit; "" on the CPU, or where the driver is silent."""
        if self.device != "cuda":
            return "", ""
        import torch

        card = torch.cuda.get_device_properties(0)
        driver, limit = ask_driver("driver_version", f"GPU-{card.uuid}" if hasattr(card, "uuid") else "0")
        return f"{card.name}, driver {driver}" if driver else str(card.name), limit

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import torch

        torch.set_num_threads(threads)
        if self.device == "cuda" and os.path.basename(path).isdigit():
            return _OnCuda(_anchor(int(os.path.basename(path)))), "fp32"
        program = load_program(path)
        if self.device == "cuda":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self.device)
        module: Any = program.module()
        kind = {"fp32": None, "bf16": torch.bfloat16}
        if precision not in kind:
            raise ValueError(f"torch runs {', '.join(kind)}, not {precision}")
        cast: Any = torch.autocast(self.device, kind[precision]) if kind[precision] else contextlib.nullcontext()
        layout = torch.contiguous_format
        if self.compiled:
            import torch._inductor.config as inductor

            inductor.freezing = self.device == "cpu"  # weights become constants: folded and laid out in advance
            inductor.compile_threads = 1  # else a pool of its processes stays alive beside what is measured
            layout = torch.channels_last
            module = torch.compile(module.to(memory_format=layout))
        if self.device == "cuda":
            return _OnCuda(module, layout, cast), "int8" if holds_int8(path, program) else precision

        def run(images: Any) -> Any:
            with torch.inference_mode(), cast:
                return module(torch.from_numpy(images).contiguous(memory_format=layout)).float().numpy()

        return run, "int8" if holds_int8(path, program) else precision


class _OnCuda:
    """A network on the CUDA device: called with arrays and giving them; timed on images that are there already."""

    def __init__(self, module: Any, layout: Any = None, cast: Any = None) -> None:
        import torch

        backends: Any = torch.backends
        backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = "ieee"
        self._module, self._layout = module, layout or torch.contiguous_format
        self._cast = cast or contextlib.nullcontext()

    def __call__(self, images: Any) -> Any:
        import torch

        with torch.inference_mode(), self._cast:
            return self._module(self._placed(images)).float().cpu().numpy()

    def times(self, images: Any, repeats: int) -> list[float]:
        """Give the milliseconds of each of `repeats` inferences, one after another, by CUDA events."""
        import torch

        cuda: Any = torch.cuda
        samples = []
        with torch.inference_mode(), self._cast:
            there = self._placed(images)
            for _ in range(repeats):
                first, last = (cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                self._module(there)
                last.record()
                last.synchronize()
                samples.append(first.elapsed_time(last))
        return samples

    def _placed(self, images: Any) -> Any:
        import torch

        layout = self._layout if images.ndim == 4 else torch.contiguous_format
        return torch.from_numpy(images).to("cuda").contiguous(memory_format=layout)


def _anchor(width: int) -> Any:
    """Give the anchor net of a width on the CUDA device: the matrix products of the anchors in numpy, see `anchor.py`.

    A GPU drifts by itself: what the CPU took says nothing about it.
    """
    import torch

    drawn = torch.Generator().manual_seed(width)
    weights = [(torch.randn(width, width, generator=drawn) / width**0.5).to("cuda") for _ in range(8)]
    first = torch.randn(width, 16, generator=drawn).to("cuda")

    def run(_: Any) -> Any:
        x = first
        for layer in weights:
            x = (layer @ x).relu()
        return x

    return run


CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# Names of what a `.pt2` archive holds as pickled objects, and the switch that keeps all else to tensors.
_PICKLED = ("custom_obj_", "opaque_obj_")
_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(path: str) -> Any:
    """Read a `.pt2` program as data: by default `torch.export.load` unpickles what a file holds beside tensors."""
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


def read_shape(path: str) -> list[int | None]:
    """Give the sizes of a program's input; None for one that it leaves open."""
    program = load_program(path)
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return [int(size) if isinstance(size, int) else None for size in node.meta["val"].shape]


TORCH = Runtime(
    name="torch",
    module="torch",
    distribution="torch",
    precisions=("fp32", "bf16"),
    suffixes=(".pt2",),
    adapter=Torch,
    file=__file__,
    exported=".pt2",
    read_shape=read_shape,
    profiler="tutelage.bench.layers.profilers:torch",
)
TORCH_COMPILED = replace(
    TORCH,
    name="torch-compiled",
    adapter=lambda: Torch(compiled=True),
    profiler="",
    load_seconds=900.0,
    files_rows=False,
    block_table=False,
)
# On a CUDA device: profiles for searches under a budget, and `bench`. A run files no rows of them.
TORCH_CUDA = replace(
    TORCH,
    name="torch-cuda",
    adapter=lambda: Torch(device="cuda"),
    profiler="",
    anchors="torch-cuda",
    files_rows=False,
    block_table=False,  # kernels of neighbouring blocks overlap: times of blocks do not add up to a network's
    on_gpu=True,
    driver=CUDA_DRIVER,
    caveat=NEVER_ON_GPU,
)
TORCH_COMPILED_CUDA = replace(
    TORCH_CUDA,
    name="torch-compiled-cuda",
    adapter=lambda: Torch(compiled=True, device="cuda"),
    load_seconds=900.0,
)
