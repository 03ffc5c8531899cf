"""The anchor nets in the format of a device's own runtime, made once and kept in the user's cache."""

from __future__ import annotations

from pathlib import Path

from tutelage.bench.converters.conversion import Conversion
from tutelage.bench.converters.convert import convert
from tutelage.bench.converters.litert import cache_folder
from tutelage.bench.protocol.anchors import anchor_files
from tutelage.bench.protocol.worker import ModelFile
from tutelage.bench.runtimes.entry import Runtime


def runtime_anchors(runtime: Runtime, folder: Path) -> list[ModelFile]:
    """Write the anchors into `folder` as files that a runtime loads. Raises InputError where nothing makes them.

    What runs on a device without Python can be no numpy: its anchors are the ONNX ones, converted as models are.
    """
    made = anchor_files("onnxruntime", folder)
    if ".onnx" in runtime.suffixes:
        return made
    if runtime.exported == ".pte":
        from .anchors_pte import export_anchors

        return export_anchors(folder)
    suffix = runtime.suffixes[0]
    conversions = [Conversion(Path(one.path), Path(one.path).with_suffix(suffix), one.shape) for one in made]
    convert(runtime, conversions, cache_folder() / "anchors")
    return [ModelFile(str(each.target), each.shape) for each in conversions]
