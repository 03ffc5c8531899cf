"""Core ML programs: what is converted and how it is recognised. Nothing here predicts: that takes a Mac."""

import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tutelage.bench.runtimes import core_ml
from tutelage.bench.runtimes.registry import RUNTIMES, read_shape
from tutelage.pipeline.runtime_files import export_network
from tutelage.quant.export import coreml
from tutelage.quant.export.coreml import export_coreml
from tutelage.quant.export.normalise import normalise
from tutelage.records import InputError, NotAvailableError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch

SHAPE = (1, 3, 32, 32)
FLOAT16 = 10  # of `DataType` in Core ML's MIL.proto


def test_what_no_program_is_written_to_is_refused_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.mlpackage").mkdir()
    for name, said in (("net.onnx", "a .mlpackage folder or a .mlzip file"), ("there.mlpackage", "exists: remove it")):
        with pytest.raises(InputError, match=said):
            export_coreml(nn.Identity(), tmp_path / name, SHAPE)
    with pytest.raises(InputError, match="precision 'int8' is none of Core ML's"):
        export_coreml(nn.Identity(), tmp_path / "net.mlzip", SHAPE, "int8")
    monkeypatch.setattr(coreml.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailableError, match=r"needs coremltools: pip install 'tutelage\[coreml\]'$"):
        export_coreml(nn.Identity(), tmp_path / "net.mlzip", SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == ["there.mlpackage"]


def test_the_runtime_is_refused_off_a_mac_and_feeds_what_the_export_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for coremltools' model, which predicts on a Mac only, takes and gives what the real spec names."""
    path = tmp_path / "net.mlzip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(core_ml.ABOUT, '{"shape": [1, 3, 32, 32], "precision": "fp16"}')
        archive.writestr(f"{core_ml.FOLDER}/Manifest.json", "{}")
    assert (coreml.ABOUT, coreml.FOLDER) == (core_ml.ABOUT, core_ml.FOLDER)
    assert read_shape(path) == [1, 3, 32, 32]
    runtime = RUNTIMES["coreml"]
    if sys.platform != "darwin":
        with pytest.raises(NotAvailableError, match=r"runtime coreml is not installed: it needs a Mac \(.*, then pip"):
            runtime.check("fp16", path)

    class Model:
        def __init__(self, folder: str, compute_units: str) -> None:
            self.folder = Path(folder)

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            assert (self.folder / "Manifest.json").is_file(), "the program was removed while it was used"
            return {"logits": inputs["images"].sum(axis=(2, 3))}

    fake = types.SimpleNamespace(
        __version__="9.0", models=types.SimpleNamespace(MLModel=Model), ComputeUnit=types.SimpleNamespace(ALL="all")
    )
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    adapter = core_ml.Coreml()
    assert adapter.prepare() == "9.0"
    run, effective = adapter.load(str(path), SHAPE, 1, "fp16")
    assert effective == "fp16"
    np.testing.assert_array_equal(run(np.ones(SHAPE, np.float32)), np.full((1, 3), 32.0 * 32))
    with zipfile.ZipFile(tmp_path / "other.mlzip", "w") as archive:
        archive.writestr("notes.txt", "")
    with pytest.raises(InputError, match="it is no zipped Core ML program"):
        read_shape(tmp_path / "other.mlzip")


@pytest.mark.long  # coremltools is imported in seconds, and a subnet converted in ten
def test_a_subnet_becomes_a_program_of_its_layers_in_half_precision(tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    space = SPACES["ofa_mbv3_w0.75_stem1"].with_resolutions((32,))
    net = build_arch(space.smallest(), 4, 3).eval()
    export_network(net, tmp_path / "net.mlzip", SHAPE)  # as `device add` does for the runtime
    assert read_shape(tmp_path / "net.mlzip") == list(SHAPE)
    export_coreml(net, tmp_path / "net.mlpackage", SHAPE)
    with zipfile.ZipFile(tmp_path / "net.mlzip") as archive:
        archive.extractall(tmp_path / "unzipped")
    layers = [*normalise(net).modules()]
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    linear = sum(isinstance(layer, nn.Linear) for layer in layers)
    for folder in (tmp_path / "net.mlpackage", tmp_path / "unzipped" / coreml.FOLDER):
        spec = coremltools.models.MLModel(str(folder), skip_model_load=True).get_spec()
        (images,), (logits,) = spec.description.input, spec.description.output
        assert (images.name, list(images.type.multiArrayType.shape)) == ("images", list(SHAPE))
        assert (logits.name, list(logits.type.multiArrayType.shape)) == ("logits", [1, 4])
        main = spec.mlProgram.functions["main"]
        operations = main.block_specializations[main.opset].operations
        kinds = [one.type for one in operations]
        assert (kinds.count("conv"), kinds.count("linear")) == (convolutions, linear)
        computed = [one for one in operations if one.type in ("conv", "linear")]
        assert {one.outputs[0].type.tensorType.dataType for one in computed} == {FLOAT16}
        weights = sum(path.stat().st_size for path in folder.rglob("weight.bin"))
        params = sum(one.numel() for one in net.parameters())
        assert weights == pytest.approx(2 * params, rel=0.05)
