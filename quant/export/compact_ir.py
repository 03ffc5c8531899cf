"""Write an OpenVINO IR without what its reader does not read.

A 1.3 M student's IR is one fifth XML: indentation, names of nodes and shapes and types that every operator infers anew.
Without them that XML is a little more than half as large; the weights and the outputs are bit for bit the same.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tutelage.files import sync, sync_tree

# An attribute with its default value says nothing (OpenVINO's operation specifications, opset 1).
_DEFAULTS = {"auto_broadcast": "numpy", "auto_pad": "explicit"}


def save_ir(model: Any, path: Path) -> None:
    """Write an IR pair with the weights' own types; the .xml is renamed last: who finds it finds the whole model.

    model: an `openvino.Model`; its nodes lose their names, its inputs and outputs keep theirs.
    """
    import openvino

    _shorten_names(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        aside = Path(folder) / path.name
        openvino.save_model(model, str(aside), compress_to_fp16=False)
        aside.write_text(compact(aside.read_text(encoding="utf-8")), encoding="utf-8")
        sync_tree(aside.parent)
        os.replace(aside.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(aside, path)
        sync(path.parent)


def _shorten_names(model: Any) -> None:
    """Number the nodes; only the tensors that go in and come out keep the names that programs use for them."""
    outside = {name for port in (*model.inputs, *model.outputs) for name in port.get_names()}
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(format(index, "x"))
        for port in node.outputs():
            port.get_tensor().set_names(port.get_names() & outside)


def compact(xml: str) -> str:
    """Drop indentation, the dimensions of ports, the types of input ports and attributes with their default value."""
    root = ElementTree.fromstring(xml)
    for element in root.iter():
        element.text = element.tail = None
    for layer in root.iter("layer"):
        for port in layer.iterfind("*/port"):
            for dim in port.findall("dim"):
                port.remove(dim)
        for port in layer.iterfind("input/port"):
            port.attrib.pop("precision", None)
        for data in layer.iterfind("data"):
            for name, value in _DEFAULTS.items():
                if data.get(name) == value:
                    del data.attrib[name]
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")
