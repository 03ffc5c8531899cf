"""A device of any runtime: its networks are written in what it loads, measured, searched for; a run refuses early."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from torch import nn

from tutelage.bench.devices.profiles import write_profile
from tutelage.bench.latency.calibrate import measure_nets
from tutelage.bench.protocol.anchors import ANCHORS, anchor_onnx
from tutelage.bench.protocol.measure import measure
from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.pipeline.operations import devices
from tutelage.pipeline.operations.devices import DeviceRequest, measure_device
from tutelage.pipeline.operations.single_stage import bench_file, input_shape
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.run import run
from tutelage.pipeline.runtime_files import network_file
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.run import run_onnx
from tutelage.records import DeviceProfile, InputError
from tutelage.search.costs.counts import block_specs
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))
SMALLEST = SPACE.smallest()


def silent(*_: object) -> None:
    """Take a progress report and say nothing."""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).eval()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", pytest.param("executorch", marks=pytest.mark.long), "ncnn"])
def test_a_network_is_written_as_its_runtime_loads_it(runtime: str, network: nn.Module, tmp_path: Path):
    found = RUNTIMES[runtime]
    if not found.installed():
        pytest.skip(f"{runtime} is not installed: {found.remedy()}")
    shape = (1, 1, 28, 28)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    path = network_file(network, runtime, tmp_path, "net", shape, tmp_path / "kept")
    assert path.suffix in found.suffixes
    if path.suffix != ".param":  # which does not say what it takes
        assert input_shape(path, None) == shape[1:]
    exact = run_onnx(network_file(network, "onnxruntime", tmp_path, "net", shape, tmp_path), images)
    np.testing.assert_allclose(found.load(path, 1, "fp32", shape).run(images), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.long
def test_nets_and_blocks_of_a_torch_device_are_exported_for_its_batch_and_measured(
    tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    passed: dict[str, Any] = {}
    monkeypatch.setattr(devices, "make_profile", lambda *names, **options: passed.update(options))
    request = DeviceRequest("box", "torch", SPACE, 4, 1, batch=2)
    measure_device(Workspace(tmp_path / "w"), silent, request)
    profile = DeviceProfile(name="box", runtime="torch", batch=2)
    timed, ms = measure_nets(profile, [SMALLEST], in_channels=1, export=passed["export"], seconds=1.0)
    assert timed.measurements["net 0"].batch == 2
    spec = block_specs(SMALLEST, 4, 1)[0]
    passed["export_block"](spec, tmp_path / "block.pt2")
    block = {"block": tmp_path / "block.pt2"}
    sides = (spec.in_channels, spec.in_hw, spec.in_hw)
    one = measure(block, profile, sides, rounds=8, samples=16, min_seconds=0.0, tolerance=5.0)
    assert 0 < one["block"].p50_ms < ms[0]
    measure_device(Workspace(tmp_path / "w"), silent, replace(request, runtime="torch-compiled"))
    assert passed["export_block"] is None  # each network is compiled: a table would take an hour

    write_profile(replace_batch(profile, 1), tmp_path / "w" / "devices")
    program = network_file(network, "torch", tmp_path, "net", (1, 1, 28, 28), tmp_path)
    figures = bench_file(Workspace(tmp_path / "w"), silent, model=program, device="box", resolution=None)
    assert figures["precision"] == "fp32"
    assert figures["size_bytes"] == program.stat().st_size


def replace_batch(profile: DeviceProfile, batch: int) -> DeviceProfile:
    """Give the profile at another batch."""
    return DeviceProfile.from_dict({**profile.to_dict(), "batch": batch})


def test_broken_programs_and_files_that_do_not_say_their_shape_are_refused(tmp_path: Path):
    for suffix, message in (
        (".pt2", "is not a .pt2 file of torch"),
        (".pte", "pte"),
        (".bin", "which say what they take"),
    ):
        broken = tmp_path / f"net{suffix}"
        broken.write_bytes(b"no model")
        with pytest.raises(InputError, match=message) as caught:
            input_shape(broken, None)
        assert "\n" not in str(caught.value)


def test_the_image_is_the_input_that_is_no_weight_and_the_only_one(tmp_path: Path):
    path, make = tmp_path / "net.onnx", onnx.helper.make_tensor_value_info
    path.write_bytes(anchor_onnx(ANCHORS[0]))
    shape, model = input_shape(path, None), onnx.load(path)
    weight = model.graph.initializer[0]
    model.graph.input.insert(0, make(weight.name, weight.data_type, weight.dims))
    onnx.save_model(model, path)
    assert input_shape(path, None) == shape
    model.graph.input.append(make("age", onnx.TensorProto.FLOAT, [1, 1]))
    onnx.save_model(model, path)
    with pytest.raises(InputError, match=r"takes 2 inputs \(\w+, age\): give a network of one image"):
        input_shape(path, None)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ('{"name": "box", "runtime": "torch-compiled"}', "box runs torch-compiled: a run files rows of onnxruntime, "),
        ('{"name": "box", "runtime": "executorch", "batch": 4}', "box runs executorch at batch 4: .* set batch: 1"),
    ],
)
def test_a_run_refuses_a_device_it_makes_no_files_for_before_anything_is_made(
    device: str, message: str, tmp_path: Path
):
    recipe = load_recipe("demo", [f"devices=[{device}]"])
    with pytest.raises(InputError, match=message):
        run(recipe, Workspace(tmp_path / "w"), silent, 1)
    assert not (tmp_path / "w" / "artifacts").exists() or not list((tmp_path / "w" / "artifacts").iterdir())
