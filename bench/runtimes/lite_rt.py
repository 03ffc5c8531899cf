"""LiteRT with XNNPACK (`.tflite`)."""

from __future__ import annotations

from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

if __package__:
    from .entry import Run, Runtime
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


class Litert:
    """LiteRT with XNNPACK. A fully quantized model wants quantized input: making it is part of the inference."""

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


def read_shape(path: str) -> list[int | None]:
    """Give the sizes of a model's input."""
    from ai_edge_litert.interpreter import Interpreter

    return [int(size) for size in Interpreter(model_path=path).get_input_details()[0]["shape"]]


LITERT = Runtime(
    name="litert",
    module="ai_edge_litert",
    distribution="ai-edge-litert",
    precisions=("fp32", "int8"),
    suffixes=(".tflite",),
    adapter=Litert,
    file=__file__,
    extra="litert",
    program="tutelage.bench.programs.litert:BENCHMARK_MODEL",
    profiler="tutelage.bench.layers.profilers:litert",
    converter="tutelage.bench.converters.litert:convert_to_litert",
    read_shape=read_shape,
)
