"""Core ML on a zipped program (`.mlzip`), on the CPU, GPU and Neural Engine of a Mac, as Core ML chooses."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from typing import Any, Sequence  # noqa: UP035 - other hosts may have Python 3.8

if __package__:
    from .entry import Run, Runtime
else:  # beside the runner, on a host that may have no such package
    from entry import Run, Runtime  # type: ignore[import-not-found,no-redef]

# What a zipped program holds, see `quant/export/coreml.py`.
ABOUT, FOLDER = "about.json", "net.mlpackage"
# What only a Mac can load: coremltools converts elsewhere, too, and predicts only there.
FRAMEWORK = "/System/Library/Frameworks/CoreML.framework/CoreML"


class Coreml:
    """Core ML on a zipped program; which of its processors computes what is Core ML's own choice."""

    def prepare(self) -> str:
        """Import the runtime and give its version."""
        import coremltools

        return str(coremltools.__version__)

    def load(self, path: str, shape: Sequence[int] | None, threads: int, precision: str) -> tuple[Run, str]:
        """Open a model file; give a function from images to outputs, and the precision that it computes in."""
        import coremltools

        about = read_about(path)
        folder = tempfile.TemporaryDirectory(prefix="tutelage-coreml-")
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder.name)
        program = os.path.join(folder.name, FOLDER)
        model = coremltools.models.MLModel(program, compute_units=coremltools.ComputeUnit.ALL)

        def run(images: Any, kept: Any = folder) -> Any:  # the folder must outlive the model
            return model.predict({"images": images})["logits"]

        return run, str(about["precision"])


def read_about(path: str) -> dict[str, Any]:
    """Read what a zipped program says of itself: the shape of its images, and the precision that it computes in."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if ABOUT not in names or not any(name.startswith(f"{FOLDER}/") for name in names):
            raise ValueError(f"it holds no {ABOUT} or no {FOLDER}: it is no zipped Core ML program")
        about: dict[str, Any] = json.loads(archive.read(ABOUT))
    return about


def read_shape(path: str) -> list[int | None]:
    """Give the sizes of a program's input."""
    return [int(size) for size in read_about(path)["shape"]]


COREML = Runtime(
    name="coreml",
    module="coremltools",
    distribution="coremltools",
    precisions=("fp16",),
    suffixes=(".mlzip",),
    adapter=Coreml,
    file=__file__,
    extra="coreml",
    exported=".mlzip",
    files_rows=False,
    block_table=False,  # each prediction has a cost of its own: times of blocks do not add up to a network's
    on_gpu=True,
    driver=FRAMEWORK,
    needs="a Mac",
    caveat="never run on a Mac yet",
    read_shape=read_shape,
)
