"""Layers of a model: each runtime's profiler on a network whose layers are known, and what is refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.bench.converters.litert import quantize_litert
from tutelage.bench.devices.profiles import write_profile
from tutelage.bench.latency import LatencyModel
from tutelage.bench.layers import profilers
from tutelage.bench.layers.profile import Layer, profile_layers, typical_ms
from tutelage.bench.micro.model import write_model
from tutelage.bench.runtimes.runner import processor
from tutelage.cli.layers import draw_layers
from tutelage.files import sha256_of
from tutelage.leaderboard.store import Store
from tutelage.pipeline.curves import with_curves
from tutelage.pipeline.operations.layers import Profiled
from tutelage.pipeline.runtime_files import export_network
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.records import DeviceProfile, InputError, Row
from tutelage.search.costs.counts import block_specs
from tutelage.search.spaces.space import SPACES

from ..micro.small_net import CHANNELS, SIDE, small_net

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two convolutions and a linear layer."""
    folder = tmp_path_factory.mktemp("layers")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 48, 5, padding=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(48, 4),
    ).eval()  # fmt: skip
    for suffix in (".onnx", ".pt2"):
        export_network(net, folder / f"net{suffix}", (1, *SHAPE))
    images = np.random.default_rng(0).standard_normal((4, *SHAPE), dtype=np.float32)
    quantize_onnx(folder / "net.onnx", folder / "int8.onnx", images)
    (folder / "ws" / "devices").mkdir(parents=True)
    for runtime in ("onnxruntime", "openvino", "torch", "ncnn"):
        (folder / "ws" / "devices" / f"{runtime}.yaml").write_text(f"name: {runtime}\nruntime: {runtime}\n")
    return folder


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_the_layers_of_a_network_are_found_with_their_times(runtime: str, folder: Path) -> None:
    path = folder / ("net.pt2" if runtime == "torch" else "net.onnx")
    layers = profile_layers(path, DeviceProfile(name="box", runtime=runtime), SHAPE)
    convolutions = [layer for layer in layers if "conv" in layer.operator.lower()]
    assert len(convolutions) == 2
    assert all(layer.ms >= 0 for layer in layers)
    assert sum(layer.ms for layer in layers) > 0
    assert not any(layer.note for layer in layers)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_an_int8_model_computes_in_floats_is_noted(runtime: str, folder: Path) -> None:
    device = DeviceProfile(name="box", runtime=runtime, precision="int8")
    layers = profile_layers(folder / "int8.onnx", device, SHAPE)
    assert not any(layer.note for layer in layers if "QLinear" in layer.operator or layer.kernel.endswith("_I8"))
    float_layers = profilers.__dict__[runtime](str(folder / "net.onnx"), (1, *SHAPE), 1, "fp32")
    assert float_layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profilers, "holds_int8", lambda path: True)  # a model of which nothing was quantized
        noted = [one for one, _ in profilers.__dict__[runtime](str(folder / "net.onnx"), (1, *SHAPE), 1, "fp32")]
    assert [layer.note for layer in noted if "Conv" in layer.operator] == ["not quantized"] * 2


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network of seven convolutions and a linear layer for LiteRT, float and int8."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("tflite")
    plain = write_model(small_net(), folder / "net.tflite")
    images = np.random.default_rng(0).standard_normal((8, CHANNELS, SIDE, SIDE), dtype=np.float32)
    return plain, quantize_litert(plain, folder / "int8.tflite", images)


def test_litert_counts_what_xnnpack_ran(tflite: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shape, box = (CHANNELS, SIDE, SIDE), DeviceProfile(name="box", runtime="litert")
    for path, precision in zip(tflite, ("fp32", "int8"), strict=True):
        layers = profile_layers(path, box.model_copy(update={"precision": precision}), shape)
        kinds = [layer.operator.split(" (")[0] for layer in layers]
        assert (kinds.count("Convolution"), kinds.count("Fully Connected")) == (3, 5)  # XNNPACK has 1 x 1 as the latter
        assert {layer.kernel for layer in layers} == {"XNNPACK"}
        assert not any(layer.note for layer in layers)
        assert not any("Delegate" in layer.operator for layer in layers)  # stands for all of them
        assert all(layer.ms >= 0 for layer in layers)
        assert sum(layer.ms for layer in layers) > 0
        assert len({layer.name for layer in layers}) == len(layers)
    monkeypatch.setattr(profilers, "holds_int8", lambda path, opened: True)  # a model of which nothing was quantized
    noted = profile_layers(tflite[0], box, shape)
    assert sum(layer.note == "not quantized" for layer in noted) == 8
    monkeypatch.undo()
    far = DeviceProfile(name="far", runtime="litert", command=f"{sys.executable} -I {{runner}}")
    there = profile_layers(tflite[0], far, shape)
    assert [replace(one, ms=0.0) for one in there] == [replace(one, ms=0.0, note="") for one in noted]
    monkeypatch.undo()
    monkeypatch.setattr(profilers, "_EVENT_BYTES", (96,))  # what is written is longer: no overflow, and refused
    with pytest.raises(InputError, match=r"cannot profile net.tflite on box: its profiler wrote \d+ bytes for \d+ ev"):
        profile_layers(tflite[0], box, shape)


def test_a_profile_that_cannot_be_taken_is_one_line(tflite: tuple[Path, Path], tmp_path: Path) -> None:
    shape, two = (CHANNELS, SIDE, SIDE), DeviceProfile(name="box", runtime="litert", batch=2)
    with pytest.raises(InputError, match=r"cannot profile net.tflite on box: the model takes 3072 bytes, and images"):
        profile_layers(tflite[0], two, shape)
    broken = tmp_path / "net.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(InputError, match=r"cannot profile net.onnx on box: ") as caught:
        profile_layers(broken, DeviceProfile(name="box", runtime="onnxruntime"), SHAPE)
    assert "\n" not in str(caught.value)
    far = DeviceProfile(name="far", runtime="litert", host="unreachable")
    with pytest.raises(InputError, match="far cannot be reached from here"):
        profile_layers(tflite[0], far, shape)


def test_a_layers_time_leaves_outliers_out() -> None:
    assert typical_ms([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 900.0, 0.0]) == 1.5


def test_the_command_prints_and_draws_them(
    folder: Path, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = ["bench", str(folder / "net.onnx"), "--resolution", "32", "-w", str(folder / "ws"), "--device"]
    assert command(*bench, "onnxruntime", "--layers", "--picture", str(tmp_path / "p.png"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["operator"] for one in said["layers"]].count("Conv") == 2
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert command(*bench, "onnxruntime", "--layers") == 0
    printed = capsys.readouterr().out
    assert "█" in printed
    assert f"{len(said['layers'])} layers, " in printed
    for words, message in (
        (["ncnn", "--layers"], "runtime ncnn has no times of layers"),
        (["onnxruntime", "--layers", "--offline"], "--offline has no effect with --layers"),
        (["onnxruntime", "--picture", "p.png"], "--picture belongs to --layers"),
        (["onnxruntime", "--layers", "--picture", "p.bmp"], "--picture 'p.bmp': name a file that ends in .png"),
    ):
        assert command(*bench, *words) == 2
        assert message in capsys.readouterr().err
    far = DeviceProfile(name="far", runtime="onnxruntime", command="./program")
    with pytest.raises(InputError, match="device far runs a program of its own, which times no layers"):
        profile_layers(folder / "net.onnx", far, SHAPE)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_the_runner_profiles_layers_elsewhere(runtime: str, folder: Path) -> None:
    """Another process with the runner's files alone, as docker would start it."""
    path = folder / ("net.pt2" if runtime == "torch" else "net.onnx")
    here = profile_layers(path, DeviceProfile(name="box", runtime=runtime), SHAPE)
    far = DeviceProfile(name="far", runtime=runtime, command=f"{sys.executable} -I {{runner}}")
    there = profile_layers(path, far, SHAPE)
    # What ONNX Runtime inserts on a processor with AVX-512 bears a number of its process.
    far_ones, near_ones = (
        [replace(layer, ms=0.0, name=re.sub(r"_token_\d+$", "", layer.name)) for layer in layers]
        for layers in (there, here)
    )
    assert far_ones == near_ones
    assert sum(layer.ms for layer in there) > 0
    broken = folder / f"broken{path.suffix}"
    broken.write_bytes(b"no network")
    with pytest.raises(InputError, match=f"cannot profile {broken.name} on far: ") as caught:
        profile_layers(broken, far, SHAPE)
    assert "\n" not in str(caught.value)


def test_a_picture_of_many_layers_has_the_smaller_ones_as_one_bar(tmp_path: Path) -> None:
    layers = tuple(Layer(f"layer {n}", "Conv", 1.0 + n, "", "not quantized" if n == 98 else "") for n in range(99))
    layers += (Layer(r"$\no formula", "Conv", 200.0, "", ""),)
    draw_layers(Profiled("box", "onnxruntime", layers), tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert "40 smaller layers" in drawn
    assert "layer 98" in drawn
    assert "<!-- layer 5 " not in drawn


def test_the_latency_models_times_of_blocks_stand_beside(
    folder: Path, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    space = SPACES["mbconv_small_w1.0"].with_resolutions((32,))
    archs = space.decode(space.random(12, np.random.default_rng(0)))
    specs = {spec.key: spec for arch in archs for spec in block_specs(arch, 4, 3)}
    blocks = {key: 0.01 + place / 1000 for place, key in enumerate(specs)}
    times = [sum(blocks[spec.key] for spec in block_specs(arch, 4, 3)) for arch in archs]
    model = LatencyModel().fit(archs, times, blocks=blocks, num_classes=4, in_channels=3)
    known = DeviceProfile(
        name="known",
        runtime="onnxruntime",
        spaces=(space.name,),
        resolutions=(32,),
        latency_model="known.latency.json",
        cpu_model=processor(),
    )
    write_profile(known, tmp_path / "devices", model)
    (tmp_path / "arch.json").write_text(json.dumps(archs[0].to_dict()))
    bench = ["bench", str(folder / "net.onnx"), "--resolution", "32", "-w", str(tmp_path), "--device", "known"]
    bench += ["--layers", "--arch", str(tmp_path / "arch.json")]
    assert command(*bench, "--json") == 0
    said = json.loads(capsys.readouterr().out)["blocks"]
    assert [(one["block"], one["ms"]) for one in said] == [
        (spec.key, blocks[spec.key]) for spec in block_specs(archs[0], 4, 3)
    ]
    assert command(*bench) == 0
    printed = capsys.readouterr().out
    assert "what the latency model of known takes each block for" in printed
    assert f"{times[0]:.4f} ms  in sum" in printed
    assert command(*bench, "--picture", str(tmp_path / "p.svg")) == 0
    drawn = (tmp_path / "p.svg").read_text()
    assert f"Blocks by the latency model of known, {times[0]:.3f} ms in sum" in drawn


def test_rows_of_the_profiled_file_show_its_layers(
    folder: Path, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "ws", tmp_path / "ws")
    how = {"file": {"sha256": sha256_of(folder / "net.onnx")}}
    here, there, other = (
        Row(model="m", role="student", dataset="d", runtime="onnxruntime", device=device, details={"how": one})
        for device, one in (("onnxruntime", how), ("openvino", how), ("onnxruntime", {"file": {"sha256": "0" * 64}}))
    )
    store = Store(tmp_path / "ws" / "leaderboard.db")
    store.add([here, there, other])
    bench = ["bench", str(folder / "net.onnx"), "--resolution", "32", "-w", str(tmp_path / "ws"), "--layers"]
    assert command(*bench, "--device", "onnxruntime", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == [here.key]
    shown = with_curves(store.details, tmp_path / "ws")([row.key for row in (here, there, other)])
    drawn = json.loads(shown[here.key])["layers"]
    assert drawn == [{name: one[name] for name in ("name", "operator", "ms")} for one in said["layers"]]
    assert not any("layers" in json.loads(shown[row.key]) for row in (there, other))
    noted = {"name": "a", "operator": "Conv", "ms": 1.0, "note": "not quantized"}
    (tmp_path / "ws" / "layers" / f"{here.key}.json").write_text(json.dumps([{**noted, "kernel": "x"}]))
    assert json.loads(with_curves(store.details, tmp_path / "ws")([here.key])[here.key])["layers"] == [noted]
    (tmp_path / "ws" / "layers" / f"{here.key}.json").write_text("[{")
    assert "layers" not in json.loads(with_curves(store.details, tmp_path / "ws")([here.key])[here.key])
