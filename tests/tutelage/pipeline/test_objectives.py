"""What a search weighs by name, and that figures at int8 are those of real int8 files."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.accelerator import find_accelerator
from tutelage.bench.converters.exports import ExportCache
from tutelage.bench.devices.imported import import_profile
from tutelage.pipeline import objectives
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.device import Device, open_device
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.objectives import (
    ERROR,
    Subnets,
    latency_name,
    read_objectives,
    weighed_devices,
)
from tutelage.pipeline.operations.devices import DeviceRequest, _exporter, measure_device
from tutelage.pipeline.recipe import Recipe, with_options
from tutelage.pipeline.sections import DeviceSection, QuantizeSection
from tutelage.pipeline.stages.budgets import bounds_of
from tutelage.pipeline.stages.quantization import Quantization, calibration_images
from tutelage.pipeline.stages.search import search_winners
from tutelage.pipeline.stages.supernet import Supernet, space_of, train_the_supernet
from tutelage.pipeline.stages.training import SupernetInput
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.files import is_quantized, read_graph
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.run import run_onnx
from tutelage.records import InputError
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES, Space
from tutelage.search.supernet import extract
from tutelage.search.supernet.scoring import recalibrate_bn, score_logits


def _recipe(*objectives: str, **search: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "data": {"dataset": "medmnist", "size": 32, "augment": "none"},
            "supernet": {"space": "mbconv_small_w1.0", "epochs": 2, "lr": 5e-3, "batch_size": 32, "num_random": 1},
            "devices": [{"name": "box", "max_latency": search.pop("max_latency", None)}],
            "search": {"objectives": list(objectives), "calibration_batches": 2, **search},
            "quantize": {"calibration_images": 16, "method": "minmax"},
            "measure": {"tolerance": 0.9},  # a test must not hang on how busy the machine is
        }
    )


def test_default_objectives_are_error_latency_and_bytes() -> None:
    assert [one.name for one in read_objectives(_recipe())] == ["error", "latency_ms@box", "size_bytes"]


def test_names_say_figure_device_and_precision() -> None:
    found = read_objectives(_recipe("error@int8", "latency_ms@box:int8", "int8_bytes"))
    assert [(one.figure, one.device, one.int8) for one in found] == [
        ("error", "", True), ("latency_ms", "box", True), ("int8_bytes", "", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["eror@int8", "macs"], r"unknown 'eror@int8' \(nearest: 'error@int8'\)"),
        (["error", "latency_ms@elsewhere"], "unknown 'latency_ms@elsewhere'"),
        (["error", "error@int8"], "one of error, error@int8"),
        (["macs", "params"], "one of error, error@int8"),
        (["error", "macs", "macs"], "name each once"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_objectives(_recipe(*names))


@pytest.mark.slow
def test_an_int8_profile_is_measured_on_int8_files(tmp_path: Path) -> None:
    arch = SPACES["mbconv_small_w1.0"].with_resolutions((32,)).smallest()
    for quantized in (False, True):
        path = tmp_path / f"{quantized}.onnx"
        _exporter(3, 1, 1, ExportCache(tmp_path / "exports"), quantized)(arch, path)
        assert is_quantized(read_graph(path)) is quantized
    assert (tmp_path / "True.onnx").stat().st_size < 0.35 * (tmp_path / "False.onnx").stat().st_size


def test_int8_blocks_of_a_runtime_that_cannot_have_them_are_refused(tmp_path: Path) -> None:
    space = SPACES["mbconv_small_w1.0"].with_resolutions((32,))
    request = DeviceRequest("box", "openvino", space, 3, 1, precision="int8")
    with pytest.raises(InputError, match="int8 blocks are made for onnxruntime only, not openvino"):
        measure_device(Workspace(tmp_path), lambda *_: None, request)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, Space]:
    """Four digits as images, in a workspace with made-up profiles of `box`, fp32 and int8."""
    from sklearn.datasets import load_digits

    workspace = Workspace(tmp_path_factory.mktemp("w"))
    drawn = load_digits(n_class=4)
    images = np.round(drawn.images * 255 / 16).astype(np.uint8)
    splits = {"train": slice(0, 320), "val": slice(320, 480), "test": slice(480, 520)}
    arrays = {f"{name}_images": images[where] for name, where in splits.items()}
    arrays |= {f"{name}_labels": drawn.target[where, None] for name, where in splits.items()}
    np.savez(workspace.path / "digits.npz", **arrays)
    recipe = with_options(_recipe(), {"data.path": workspace.path / "digits.npz"})
    ctx = open_context(recipe, workspace, lambda *_: None, 1)
    space = space_of(ctx)
    archs = [space.smallest(), space.largest(), *space.decode(space.random(30, np.random.default_rng(0)))]
    macs = count(archs, ctx.num_classes, ctx.channels).macs
    for name, precision, scale in (("box", "fp32", 1.0), ("box-int8", "int8", 0.4)):
        table = workspace.path / f"{name}.json"
        rows = [
            {"arch": arch.to_dict(), "ms": scale * float(value) / 2e7} for arch, value in zip(archs, macs, strict=True)
        ]
        table.write_text(json.dumps(rows))
        import_profile(
            name, table, runtime="onnxruntime", folder=workspace.path / "devices", precision=precision,
            num_classes=ctx.num_classes, in_channels=ctx.channels, host="local",
        )  # fmt: skip
    return ctx, space


@pytest.fixture(scope="module")
def supernet(boxed: tuple[Context, Space]) -> Supernet:
    """A supernet trained on them for some seconds."""
    return train_the_supernet(boxed[0], ())


def _weighing(boxed: tuple[Context, Space], *objectives: str, **search: Any) -> tuple[Context, list[Device]]:
    ctx, space = boxed
    ctx = replace(ctx, recipe=_recipe(*objectives, **search))
    return ctx, [
        open_device(ctx.workspace, section, space, ctx.num_classes, ctx.channels, ctx.report)
        for section in ctx.recipe.devices
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_error_at_int8_is_that_of_the_file_that_the_recipe_would_deploy(
    boxed: tuple[Context, Space], supernet: Supernet, method: str
) -> None:
    """Against the path by hand: extract, set BN, export, quantize by the recipe's method, run."""
    ctx, arch = boxed[0], supernet.space.smallest()
    how = Quantization.of(QuantizeSection(method=method, calibration_images=32))
    subnets = Subnets(ctx, supernet.part, 32, 2, ctx.recipe.seed)
    (error,), (plain,) = subnets.int8_errors([arch], how, "onnxruntime").values, subnets.score([arch], ERROR).values
    images, labels = ctx.split("val", 32)
    train_images = ctx.split("train", 32)[0]
    drawn = np.random.default_rng(ctx.seed("recalibration")).permutation(len(train_images))[:64]
    chosen = train_images[np.sort(drawn)]
    subnet = extract(supernet.load(ctx), arch)
    recalibrate_bn(subnet, [chosen[:32], chosen[32:]])
    fp32, int8 = (ctx.workspace.path / f"{arch.id}.{method}.{name}.onnx" for name in ("fp32", "int8"))
    export_onnx(subnet.eval(), fp32, (1, 1, 32, 32))
    quantize_onnx(fp32, int8, calibration_images(ctx, 32, 32, ctx.recipe.seed), method=method)
    assert is_quantized(read_graph(int8))
    logits = torch.from_numpy(run_onnx(int8, images.numpy()))
    assert error == pytest.approx(score_logits(logits, labels).error)
    with torch.no_grad():
        assert plain == pytest.approx(score_logits(subnet(images), labels).error, abs=1.5 / len(labels))
    assert error < 0.6  # three in four would be chance: the figures are of a network that learnt


def test_error_at_int8_is_of_the_recipes_quantization(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Method, runtime and `max_drop` reach the file that is scored; a subnet with no file to deploy has error 1."""
    asked: list[tuple[Quantization, str]] = []

    def quantized(here: object, how: Quantization, runtime: str, *_: object) -> tuple[str, Path, dict[str, Any]]:
        asked.append((how, runtime))
        if how.max_drop == 0:
            raise InputError("int8 loses 3.00 points on validation, more than max_drop 0")
        return "int8-ptq", tmp_path / "made.onnx", {}

    for name in ("export_onnx", "runtime_file", "extract", "recalibrate_bn", "calibration_images", "validation"):
        monkeypatch.setattr(objectives, name, lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr(objectives, "quantized_file", quantized)
    monkeypatch.setattr(objectives, "answers", lambda runtime, path, *_: np.eye(4, dtype=np.float32))
    monkeypatch.setattr(SupernetInput, "load", lambda self, here: torch.nn.Identity())
    here: Any = SimpleNamespace(
        split=lambda *_: (torch.zeros(4, 1, 32, 32), torch.arange(4)), channels=1, threads=1,
        dataset=SimpleNamespace(multi_label=False, indices=lambda split: np.arange(4)),
        accelerator=find_accelerator("cpu"),
    )  # fmt: skip
    part = SupernetInput(space="s", origin="", resolutions=(32,), weights=FileInput(sha256="", path=""))
    subnets, arch = Subnets(here, part, 2, 1, 0), SPACES["mbconv_small_w1.0"].with_resolutions((32,)).smallest()
    held, refused = (
        Quantization.of(QuantizeSection(method="entropy", max_drop=drop, calibration_images=3)) for drop in (1.0, 0.0)
    )
    assert subnets.int8_errors([arch], held, "openvino").values.tolist() == [0.0]
    assert subnets.int8_errors([arch], refused, "onnxruntime").values.tolist() == [1.0]
    assert asked == [(held, "openvino"), (refused, "onnxruntime")]


def test_latency_at_int8_is_of_a_profile_of_its_own(boxed: tuple[Context, Space]) -> None:
    """The made-up profiles are MACs and .4 of MACs: so are the predictions, and the budget binds what is weighed."""
    ctx, devices = _weighing(boxed, "error", "latency_ms@box", "latency_ms@box:int8", max_latency="50%")
    space = boxed[1]
    fp32, int8 = weighed_devices(ctx, space, devices)
    assert [latency_name(one) for one in (fp32, int8)] == ["latency_ms@box", "latency_ms@box:int8"]
    assert int8.profile.precision == "int8"
    archs = space.decode(space.random(20, np.random.default_rng(1)))
    ratio = int8.model.predict(archs)[0] / fp32.model.predict(archs)[0]
    np.testing.assert_allclose(ratio, 0.4, rtol=0.02)
    bounds = bounds_of(ctx, (fp32, int8))
    assert bounds["latency_ms@box:int8"] == pytest.approx(0.4 * bounds["latency_ms@box"], rel=0.02)
    ctx, devices = _weighing(boxed, "error@int8", "latency_ms@box:int8", max_latency="50%")
    assert list(bounds_of(ctx, weighed_devices(ctx, space, devices))) == ["latency_ms@box:int8"]


def test_a_device_without_a_model_for_what_is_asked_is_refused(boxed: tuple[Context, Space]) -> None:
    """The profile was made at 32 px and batch 1: another side, batch or space would be a guess."""
    ctx, space = boxed
    (section,) = _recipe().devices

    def opened(section: DeviceSection, space: Space) -> None:
        open_device(ctx.workspace, section, space, ctx.num_classes, ctx.channels, ctx.report)

    opened(section, space)
    with pytest.raises(
        InputError, match=r"latency model for mbconv_small_w1\.0 at \[32\] px, this run needs .* \[64\] px"
    ):
        opened(section, space.with_resolutions((64,)))
    with pytest.raises(InputError, match=r"this run needs ofa_mbv3_w1\.2 at \[32\] px"):
        opened(section, SPACES["ofa_mbv3_w1.2"].with_resolutions((32,)))
    with pytest.raises(InputError, match="asks for batch 8, the profile has 1"):
        opened(section.model_copy(update={"batch": 8}), space)


def test_a_budget_on_a_latency_that_is_not_weighed_is_refused(boxed: tuple[Context, Space]) -> None:
    ctx, devices = _weighing(boxed, "error", "macs", max_latency="5ms")
    with pytest.raises(InputError, match="name no latency on it: add latency_ms@box"):
        weighed_devices(ctx, boxed[1], devices)


@pytest.mark.slow
def test_a_search_on_int8_figures_measures_int8_finalists(boxed: tuple[Context, Space], supernet: Supernet) -> None:
    ctx, devices = _weighing(boxed, "error@int8", "latency_ms@box:int8", evaluations=2, winners=1, strategy="random")
    weighed = weighed_devices(ctx, boxed[1], devices)
    found = search_winners(ctx, supernet, weighed)
    assert [device.name for device in found.devices] == ["box-int8"]
    assert list(found.result.objectives) == ["error@int8", "latency_ms@box:int8"]
    for row in found.result.evaluated:
        assert list(row.measured) == ["error@int8"]
        assert "latency_ms@box:int8" in row.predicted
    (winner,) = found.winners
    assert winner.measured_ms["box-int8"] > 0
    files = list(ctx.workspace.path.glob("artifacts/*/*.int8.onnx"))
    assert len(files) == found.finalists
    assert all(is_quantized(read_graph(path)) for path in files)
