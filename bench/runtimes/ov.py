"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import Feed, Run, Runtime, sizes_of
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Feed, Run, Runtime, sizes_of  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]

# OpenVINO's hint for a precision; layers of an int8 model that are not quantized stay f32.
OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


class Openvino:
    """OpenVINO on the CPU. By default it computes fp32 models in bf16 where it can, so the precision is always set."""

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import openvino

        return str(openvino.__version__).split("-")[0]

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        image, *others = model.inputs
        if shape is not None:
            known = {port.any_name: _sizes(port, shape[0]) for port in others}
            model.reshape({image.any_name: list(shape), **{name: list(sizes) for name, sizes in known.items()}})
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
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        effective = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}.get(hint, hint)
        if holds_int8(path):
            effective = "int8"
        kind = image.get_element_type().to_dtype()
        if kind == "float32" and not others:
            return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0], effective
        batch = shape[0] if shape else 1
        zeros = [(port.any_name, port.get_element_type().to_dtype(), _sizes(port, batch)) for port in others]
        feed = Feed(image.any_name, kind, zeros)
        return lambda images: request.infer(feed(images), share_inputs=True, share_outputs=True)[0], effective


def _sizes(port: Any, batch: int) -> Sequence[int]:
    return sizes_of([size.get_length() if size.is_static else None for size in port.get_partial_shape()], batch)


def read_shape(path: str) -> list[int | None]:
    """Give the sizes of the input of an IR; None for one that it leaves open."""
    from openvino import Core

    shape = Core().read_model(path).inputs[0].get_partial_shape()
    return [size.get_length() if size.is_static else None for size in shape]


OPENVINO = Runtime(
    name="openvino",
    module="openvino",
    distribution="openvino",
    precisions=tuple(OPENVINO_HINTS),
    suffixes=(".onnx", ".xml"),
    adapter=Openvino,
    file=__file__,
    anchors="openvino",
    read_shape=read_shape,
    profiler="tutelage.bench.layers.profilers:openvino",
)
