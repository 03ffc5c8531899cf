"""The files of one model: weights beside the graph count in its bytes and in its hash, wherever they are read."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutelage.bench.converters.conversion import parts, size_bytes
from tutelage.files import files_of_a_model, model_bytes, model_digest
from tutelage.quant.files import onnx_bytes
from tutelage.records import InputError


def external(folder: Path, value: float) -> Path:
    """Write an ONNX file whose 40,000 bytes of weights lie in `net.onnx.data`."""
    weights = numpy_helper.from_array(np.full((100, 100), value, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mul")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 100])],
        [weights],
    )
    path = folder / "net.onnx"
    (folder / "net.onnx.data").unlink(missing_ok=True)
    onnx.save_model(helper.make_model(graph), path, save_as_external_data=True, location="net.onnx.data")
    return path


def test_external_data_counts_in_bytes_and_hash(tmp_path: Path):
    path = external(tmp_path, 1.0)
    data = tmp_path / "net.onnx.data"
    assert files_of_a_model(path) == [path, data]
    expected = path.stat().st_size + 40_000
    assert model_bytes(path) == size_bytes(path) == onnx_bytes(path) == expected
    graph, digest = path.read_bytes(), model_digest(path)
    external(tmp_path, 2.0)
    assert path.read_bytes() == graph  # the graph alone does not tell the two apart
    assert model_digest(path) != digest
    with pytest.raises(InputError, match=r"keeps weights in net\.onnx\.data, which is not copied"):
        parts(path)


def test_a_file_alone_has_its_own_hash_and_weights_beside_are_listed(tmp_path: Path):
    for name in ("a.xml", "a.bin", "b.param", "c.onnx", "d.tflite"):
        (tmp_path / name).write_bytes(name.encode())
    assert files_of_a_model(tmp_path / "a.xml") == [tmp_path / "a.xml", tmp_path / "a.bin"]
    for name in ("b.param", "c.onnx", "d.tflite"):
        assert files_of_a_model(tmp_path / name) == [tmp_path / name]
        assert model_digest(tmp_path / name) == hashlib.sha256(name.encode()).hexdigest()


def test_data_outside_the_folder_is_not_followed(tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner, 1.0)
    model = onnx.load_model(path, load_external_data=False)
    (inner / "net.onnx.data").rename(tmp_path / "net.onnx.data")
    model.graph.initializer[0].external_data[0].value = "../net.onnx.data"
    path.write_bytes(model.SerializeToString())
    assert files_of_a_model(path) == [path]
