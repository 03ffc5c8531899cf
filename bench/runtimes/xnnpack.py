"""ExecuTorch with XNNPACK on a lowered program (`.pte`)."""

from __future__ import annotations

from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import Run, Runtime
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


class Executorch:
    """ExecuTorch with XNNPACK on a lowered program (`.pte`)."""

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        from importlib.metadata import version

        import executorch.runtime  # noqa: F401 - it imports torch, whose memory is the runtime's

        return version("executorch")

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime as Executor

        if precision not in ("fp32", "int8"):
            raise ValueError(f"executorch runs fp32 and int8, not {precision}")
        torch.set_num_threads(threads)
        _unsafe_reset_threadpool(threads)
        program = Executor.get().load_program(path)
        method = program.load_method("forward")

        def run(images: Any) -> Any:
            return method.execute([torch.from_numpy(images)])[0].numpy()

        return run, "int8" if holds_int8(path, program) else "fp32"


def read_shape(path: str) -> list[int | None]:
    """Give the sizes of a program's input."""
    from executorch.runtime import Runtime as Executor

    method = Executor.get().load_program(path).load_method("forward")
    return [int(size) for size in method.metadata.input_tensor_meta(0).sizes()]


EXECUTORCH = Runtime(
    name="executorch",
    module="executorch.runtime",
    distribution="executorch",
    precisions=("fp32", "int8"),
    suffixes=(".pte",),
    adapter=Executorch,
    file=__file__,
    extra="executorch",
    program="tutelage.bench.programs.executorch:EXECUTOR_RUNNER",
    exported=".pte",
    read_shape=read_shape,
)
