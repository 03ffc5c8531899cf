"""PyTorch on an exported program (`.pt2`), eager or compiled."""

from __future__ import annotations

import contextlib
import os
import zipfile
from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import Run, Runtime
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


class Torch:
    """PyTorch on an exported program (`.pt2`): eager, the numerical reference, or compiled for its fixed weights."""

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
)
TORCH_COMPILED = Runtime(
    name="torch-compiled",
    module="torch",
    distribution="torch",
    precisions=("fp32", "bf16"),
    suffixes=(".pt2",),
    adapter=lambda: Torch(compiled=True),
    file=__file__,
    exported=".pt2",
    load_seconds=900.0,
    files_rows=False,
    block_table=False,
)
