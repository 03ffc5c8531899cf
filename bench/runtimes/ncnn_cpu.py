"""ncnn on the CPU (`.param`, with its weights in the `.bin` beside it)."""

from __future__ import annotations

import os
from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

if __package__:
    from .entry import Run, Runtime
    from .graph import holds_int8
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]
    from graph import holds_int8  # type: ignore[import-not-found,no-redef]


class Ncnn:
    """ncnn on the CPU. Its default is half precision: fp32 is requested and all its 16-bit formats are switched off."""

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


NCNN = Runtime(
    name="ncnn",
    module="ncnn",
    distribution="ncnn",
    precisions=("fp32", "fp16", "bf16"),
    suffixes=(".param",),
    adapter=Ncnn,
    file=__file__,
    extra="ncnn",
    program="tutelage.bench.programs.ncnn:BENCHNCNN",
    converter="tutelage.bench.converters.ncnn_convert:convert_to_ncnn",
)
