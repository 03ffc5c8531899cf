"""The anchor nets in numpy, for runtimes that cannot read the ONNX ones; devices cannot use it as a runtime."""

from __future__ import annotations

import os
from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

import numpy as np

if __package__:
    from .entry import Run, Runtime
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]


class Anchor:
    """A fixed net in numpy, for runtimes that cannot read the ONNX anchors: the 'path' is its width.

    Eight layers, each with weights of its own, on sixteen columns: as in a network's last layers, each is read once.
    """

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


ANCHOR = Runtime(
    name="anchor",
    module="numpy",
    distribution="numpy",
    precisions=("fp32",),
    suffixes=("",),
    adapter=Anchor,
    file=__file__,
    files_rows=False,
)
