"""int8 in a run: rows say how they were made, students of QAT stand beside; choices see all classes; the verb obeys."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from tutelage.bench.converters.litert import converter_ready
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.cli.app import app
from tutelage.cli.output import exit_for_refused
from tutelage.leaderboard.comparisons.matrix import matrices
from tutelage.leaderboard.store import Store
from tutelage.pipeline.context import Context, Refused, TeacherSet, open_context
from tutelage.pipeline.device import name_device
from tutelage.pipeline.keys.model_files import filed_model
from tutelage.pipeline.operations.quantize import quantize_file
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.runtime_files import answers
from tutelage.pipeline.sections import DeviceSection, QuantizeSection
from tutelage.pipeline.stages.compress import compress
from tutelage.pipeline.stages.explain import _images
from tutelage.pipeline.stages.measure import measure_all
from tutelage.pipeline.stages.publish import file_refused
from tutelage.pipeline.stages.qat import train_with_qat
from tutelage.pipeline.stages.quantization import Quantization, calibration_images, quantize_for, validation
from tutelage.pipeline.stages.train import train_student, train_teacher
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.files import is_quantized, read_graph
from tutelage.quant.run import run_onnx
from tutelage.records import Arch, InputError, Student

ARCH = Arch.from_dict({"space": "mbconv_small_w1.0", "ks": [3] * 4, "e": [2] * 4, "d": [0] * 4, "r": 32})
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "data": {"dataset": "phantom", "size": 32, "limit": 140, "augment": "none", "augment_variants": 1},
        "teachers": [{"name": "resnet10t", "epochs": 1, "batch_size": 32}],
        "distill": {"epochs": 2, "batch_size": 32, "lr": 3e-3},
        "quantize": {"calibration_images": 32, "qat_epochs": 1},
        "measure": {"tolerance": 0.9},  # what is measured here beside other tests is not reported
    }
)


def _quiet(text: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Context, Student, Student]:
    ctx = open_context(RECIPE, Workspace(tmp_path_factory.mktemp("workspace")), _quiet, 1)
    teacher = train_teacher(ctx, RECIPE.teachers[0])
    student = train_student(ctx, Student(model="small", role="student", arch=ARCH), None, TeacherSet((teacher,)))
    return ctx, teacher, student


@pytest.mark.slow
def test_rows_say_how_they_were_made_and_qat_has_the_same_teacher(trained) -> None:
    ctx, teacher, student = trained
    variants = compress(ctx, student, ["onnxruntime"])
    fp32, int8 = variants
    assert [one.scheme for one in variants] == ["fp32", "int8-ptq"]
    assert int8.quantization["num_calibration"] == 32
    assert len(int8.quantization["calibration_sha256"]) == 64
    assert set(int8.quantization["trials"]) == {"minmax", "percentile", "entropy"}  # the recipe's method is auto
    assert int8.quantization["method"] == max(int8.quantization["trials"], key=int8.quantization["trials"].get)
    (rounded,) = train_with_qat(ctx, student, ["onnxruntime"], TeacherSet((teacher,)))
    assert rounded.scheme == "int8-qat"
    assert rounded.quantization["qat_epochs"] == 1
    assert rounded.quantization["num_learnt"] > 10  # the ranges that training saw are the file's
    assert int8.quantization["num_learnt"] == 0
    paths = [ctx.workspace.path / one.file.path for one in (fp32, int8, rounded)]
    assert [is_quantized(read_graph(path)) for path in paths] == [False, True, True]
    images = ctx.split("val", 32)[0].numpy()
    plain, ptq, qat = (run_onnx(path, images) for path in paths)
    assert np.abs(ptq - plain).mean() < np.abs(plain).mean()
    assert not np.array_equal(qat, ptq)  # its weights have moved; that this helps is tested on digits
    journal = [event["stage"] for event in ctx.workspace.journal()]
    assert train_with_qat(ctx, student, ["onnxruntime"], TeacherSet((teacher,))) == [rounded]
    assert [event["stage"] for event in ctx.workspace.journal()] == journal  # done once


@pytest.mark.slow
def test_no_qat_of_teachers_or_where_qat_epochs_is_0(trained) -> None:
    ctx, teacher, student = trained
    assert train_with_qat(ctx, teacher, ["onnxruntime"], TeacherSet((teacher,))) == []
    plain = RECIPE.model_copy(update={"quantize": RECIPE.quantize.model_copy(update={"qat_epochs": 0})})
    other = Context(plain, ctx.workspace, ctx.dataset, _quiet, 1)
    assert train_with_qat(other, student, ["onnxruntime"], TeacherSet((teacher,))) == []


@pytest.mark.slow
def test_a_runtime_that_cannot_is_left_out_and_said(trained, monkeypatch, caplog) -> None:
    """A runtime that is not installed: its row is missing, the others stand, and the log has the remedy."""
    import importlib.util

    ctx, _, student = trained
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "nncf" else find(name, *a))
    changed = RECIPE.quantize.model_copy(update={"method": "minmax"})
    other = Context(RECIPE.model_copy(update={"quantize": changed}), ctx.workspace, ctx.dataset, _quiet, 1)
    found = compress(other, student, ["onnxruntime", "openvino"])
    assert [(one.scheme, one.runtime) for one in found] == [
        ("fp32", "onnxruntime"),
        ("fp32", "openvino"),
        ("int8-ptq", "onnxruntime"),
    ]
    assert "nncf is not installed; install it with" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", pytest.param("executorch", marks=pytest.mark.long), "ncnn", "torch"])
def test_rows_of_other_runtimes_are_their_own_files(runtime, trained, caplog) -> None:
    """Each answers as ONNX Runtime does, from the file it loads; int8 stands beside it or is said to be missing."""
    if not find_runtime(runtime).installed() or (runtime == "litert" and not converter_ready()):
        pytest.skip(f"{runtime} or its converter is not installed")
    ctx, teacher, student = trained
    images = ctx.split("val", 32)[0][:24]
    # Each layer of a subnet takes ExecuTorch seconds to lower, and torch.export a part of one: the teacher has few.
    exported = teacher if runtime in ("executorch", "torch") else student
    variants = compress(ctx, exported, ["onnxruntime", runtime])
    logits = {
        (one.runtime, one.scheme): answers(one.runtime, ctx.workspace.path / one.file.path, images.numpy(), 1)
        for one in variants
    }
    exact = logits["onnxruntime", "fp32"]
    np.testing.assert_allclose(logits[runtime, "fp32"], exact, atol=1e-3 * np.abs(exact).max())
    files = {one.runtime: one.file for one in variants if one.scheme == "fp32"}
    assert Path(files[runtime].path).suffix in find_runtime(runtime).suffixes
    assert 0.8 < files[runtime].size_bytes / files["onnxruntime"].size_bytes < 1.3  # ncnn's weights count too
    if runtime in ("ncnn", "torch"):
        assert (runtime, "int8-ptq") not in logits
        assert f"no int8 row of {exported.model} for {runtime}: {runtime} has no int8 here, it runs fp32" in caplog.text
        return
    int8 = next(one for one in variants if one.runtime == runtime and one.scheme == "int8-ptq")
    assert int8.file.size_bytes < 0.45 * files[runtime].size_bytes
    assert int8.quantization["num_calibration"] == 32
    rough = np.abs(logits[runtime, "int8-ptq"] - exact).mean()
    assert 0 < rough < 3 * max(np.abs(logits["onnxruntime", "int8-ptq"] - exact).mean(), 0.02 * np.abs(exact).max())
    if runtime == "executorch":  # measuring takes it half a minute; LiteRT shows that such files are measured
        return
    measured = measure_all(ctx, name_device(ctx.workspace, DeviceSection(name=runtime, runtime=runtime)), variants)
    assert {int8.file.sha256, files[runtime].sha256} == set(measured)
    assert measured[int8.file.sha256].effective_precision == "int8"


class _Odd(nn.Module):
    """A determinant of what a convolution makes, once a class: ONNX Runtime knows it, ncnn does not."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.det(self.convolution(x)[:, 0, :2, :2])[:, None].repeat(1, 2)


@pytest.mark.slow
def test_an_operator_that_a_runtime_does_not_know_is_named_and_its_row_left_out(
    trained, monkeypatch, caplog, tmp_path
) -> None:
    if not find_runtime("ncnn").installed():
        pytest.skip("ncnn is not installed")
    ctx, _, student = trained
    changed = RECIPE.quantize.model_copy(update={"method": "minmax"})
    other = Context(RECIPE.model_copy(update={"quantize": changed}), Workspace(tmp_path), ctx.dataset, _quiet, 1)
    refused: list[Refused] = []
    other = replace(other, refused=refused.append)
    monkeypatch.setattr("tutelage.pipeline.networks.load", lambda here, student: _Odd().eval())
    found = compress(other, student, ["onnxruntime", "ncnn"])
    assert {one.runtime for one in found} == {"onnxruntime"}
    (fp32,) = [one for one in refused if one.runtime == "ncnn"]
    assert (fp32.student.model, fp32.scheme) == ("small", "fp32")
    assert "it has no layer for torch.tile" in fp32.reason
    devices = [name_device(other.workspace, DeviceSection(name=name, runtime=name)) for name in ("ncnn", "onnxruntime")]
    store = Store(tmp_path / "leaderboard.db")
    for state in ("evaluated", "complete"):
        file_refused(
            other, store, devices, [fp32, replace(fp32, student=student.model_copy(update={"seed": 9}))], state=state
        )
    (row,) = store.rows()
    assert (row.device, row.accuracy, row.size_bytes, row.details["state"]) == ("ncnn", None, None, "complete")
    (matrix,) = matrices(store, "latency_p50_ms")
    assert [(cell.state, cell.reason) for line in matrix.lines for cell in line.cells] == [("failed", fp32.reason)]
    # A later run that succeeds takes its place.
    made = {"state": "complete", "how": {**row.details["how"], "file": {"sha256": "f" * 64}}}
    store.add([row.model_copy(update={"details": made, "accuracy": 0.9, "latency_p50_ms": 1.0})])
    assert [one.accuracy for one in store.rows()] == [0.9]
    with pytest.raises(SystemExit) as ended:
        exit_for_refused([str(fp32)])
    assert ended.value.code == 5
    exit_for_refused([])
    assert "no row of small for ncnn:" in caplog.text
    assert "it has no layer for torch.tile" in caplog.text


@pytest.mark.slow
def test_a_file_that_a_device_refuses_is_named_and_the_others_are_measured(trained, caplog) -> None:
    """Its runtime loads it and raises: the stage files the reason, and is not done again."""
    ctx, _, student = trained
    good = compress(ctx, student, ["onnxruntime"])[0]
    whole = ctx.workspace.path / good.file.path
    graph = onnx.load(whole)
    graph.graph.node[0].domain = "my.operators"
    graph.opset_import.append(onnx.helper.make_opsetid("my.operators", 1))
    onnx.save_model(graph, whole.with_name("odd.onnx"))
    odd = replace(good, scheme="int8-ptq", file=filed_model(ctx.workspace, whole.with_name("odd.onnx")))
    device = name_device(ctx.workspace, DeviceSection(name="here", runtime="onnxruntime"))
    for _ in range(2):
        refused: list[Refused] = []
        measured = measure_all(replace(ctx, refused=refused.append), device, [good, odd])
        assert set(measured) == {good.file.sha256}
        (one,) = refused
        assert (one.scheme, one.device, one.sha256) == ("int8-ptq", "here", odd.file.sha256)
        assert "my.operators" in one.reason
    assert "was not measured on here: " in caplog.text
    done = [
        event for event in ctx.workspace.journal() if event["stage"] == "measure on here" and event["event"] == "done"
    ]
    assert len(done) == 1


@pytest.mark.slow
def test_the_verb_quantizes_as_the_recipe_says(trained, tmp_path: Path) -> None:
    ctx, _, student = trained
    model = ctx.workspace.path / compress(ctx, student, ["onnxruntime"])[0].file.path
    setting = (ctx.workspace, _quiet, 1)
    recipe = RECIPE.model_copy(
        update={"quantize": RECIPE.quantize.model_copy(update={"max_drop": 1.0, "method": "minmax"})}
    )
    figures = quantize_file(
        recipe, *setting, model=model, out=tmp_path / "int8.onnx", picture=tmp_path / "noise.png"
    )  # fmt: skip
    assert figures["int8_score"] >= figures["fp32_score"] - 0.01 - 1e-9
    assert figures["calibration_images"] == 32
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")
    images = ctx.split("val", 32)[0].numpy()
    difference = np.abs(run_onnx(model, images) - run_onnx(tmp_path / "int8.onnx", images))
    assert figures["largest_difference"] == pytest.approx(float(difference.max()))
    with pytest.raises(InputError, match=r"name the int8 model \.onnx"):
        quantize_file(recipe, *setting, model=model, out=tmp_path / "int8.tflite")
    entropy = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"method": "entropy"})})
    with pytest.raises(
        InputError, match=r"method entropy makes \.onnx files, openvino loads \.xml: give auto or minmax"
    ):
        quantize_file(entropy, *setting, model=model, out=tmp_path / "int8.xml")
    with pytest.raises(InputError, match="quantized already"):
        quantize_file(recipe, *setting, model=tmp_path / "int8.onnx", out=tmp_path / "again.onnx")
    other = onnx.load(model)
    other.graph.node[0].domain = "my.operators"
    other.opset_import.append(onnx.helper.make_opsetid("my.operators", 1))
    onnx.save_model(other, tmp_path / "custom.onnx")
    with pytest.raises(InputError, match=f"onnxruntime cannot run {tmp_path / 'custom.onnx'}: .*my.operators"):
        quantize_file(recipe, *setting, model=tmp_path / "custom.onnx", out=tmp_path / "again.onnx")
    gray = recipe.model_copy(update={"data": recipe.data.model_copy(update={"channels": 3})})
    with pytest.raises(InputError, match="the recipe's images have 3 channels"):
        quantize_file(gray, *setting, model=model, out=tmp_path / "other.onnx")


@pytest.mark.slow
def test_calibration_is_the_same_images_every_time(trained) -> None:
    ctx, _, _ = trained
    np.testing.assert_array_equal(calibration_images(ctx, 32, 32, 0), calibration_images(ctx, 32, 32, 0))
    train = ctx.split("train", 32)[0].numpy()
    assert all((train == image).all(axis=(1, 2, 3)).any() for image in calibration_images(ctx, 32, 32, 0)[:4])


@pytest.mark.slow
def test_the_command_line_holds_the_loss_and_measures_both_files(trained, tmp_path: Path) -> None:
    """As a user types it: `tutelage quantize MODEL --out INT8 --max-drop 0.5 --device NAME`."""
    ctx, _, student = trained
    model = ctx.workspace.path / compress(ctx, student, ["onnxruntime"])[0].file.path
    name_device(ctx.workspace, DeviceSection(name="here"))
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "int8.onnx"
    quick = RECIPE.model_copy(update={"quantize": RECIPE.quantize.model_copy(update={"method": "minmax"})})
    recipe.write_text(json.dumps(quick.model_dump(mode="json")))  # JSON is YAML
    command = [
        "quantize", str(model), "--out", str(out), "--max-drop", "0.5", "--device", "here", "--recipe", str(recipe),
        "--workspace", str(ctx.workspace.path),
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["int8_score"] >= figures["fp32_score"] - 0.005 - 1e-9
    assert figures["validation_images"] == len(ctx.split("val", 32)[1])
    assert min(figures["fp32_p50_ms"], figures["int8_p50_ms"]) > 0
    assert figures["model"] == str(out)
    assert is_quantized(read_graph(out))
    wrong = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "int8.xml")])
    assert isinstance(wrong.exception, InputError)
    assert "device here runs onnxruntime, the file is for openvino" in str(wrong.exception)
    lost = CliRunner().invoke(app, [*command, "--device", "nowhere"])
    assert isinstance(lost.exception, InputError)
    assert "nowhere" in str(lost.exception)


@pytest.fixture(scope="module")
def sorted_by_class(tmp_path_factory) -> Context:
    """Open three classes of pictures whose split is sorted by class, as folders are read."""
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    for kind, name in enumerate(("a", "b", "c")):
        (root / name).mkdir()
        for number in range(40):
            pixels = rng.integers(0, 60, (16, 16)).astype(np.uint8) + np.uint8(80 * kind)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    data = {"dataset": "folder", "path": str(root), "size": 16, "channels": 1, "augment": "none", "val_fraction": 0.3}
    recipe = Recipe.model_validate({"name": "sorted", "data": data, "explain": {"images": 6}})
    return open_context(recipe, Workspace(tmp_path_factory.mktemp("workspace")), _quiet, 1)


def test_choices_see_every_class_of_a_sorted_split(sorted_by_class, monkeypatch) -> None:
    """The first images of this split are of one class: none of the draws may be a prefix."""
    ctx = sorted_by_class
    labels = ctx.dataset.labels[ctx.dataset.indices("val")]
    assert len(set(labels[:9].tolist())) == 1  # what a prefix would have seen
    monkeypatch.setattr("tutelage.pipeline.stages.quantization._CHOOSING_IMAGES", 9)
    monkeypatch.setattr("tutelage.pipeline.stages.quantization._RANKING_IMAGES", 6)
    val = validation(ctx, 16, 0)
    images = ctx.split("val", 16)[0].numpy()
    for drawn, each in ((val.choosing, 3), (val.ranking, 2)):
        places = [int(np.flatnonzero((images == one).all(axis=(1, 2, 3)))[0]) for one in drawn]
        assert np.bincount(labels[places]).tolist() == [each] * 3
    inputs: Any = SimpleNamespace(number=6, seed=0)
    student = Student(model="small", role="student", arch=ARCH.model_copy(update={"r": 16}))
    explained = _images(inputs, ctx, student)[1]
    assert np.bincount(explained.numpy()).tolist() == [2, 2, 2]
    assert ctx.draw("val", 9, 1).tolist() == ctx.draw("val", 9, 1).tolist()
    assert ctx.draw("val", 9, 1).tolist() != ctx.draw("val", 9, 2).tolist()


def _how(**section: object) -> Quantization:
    return Quantization.of(QuantizeSection.model_validate(section))


def test_a_held_loss_still_chooses_the_method(sorted_by_class, tmp_path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    export_onnx(net, tmp_path / "net.onnx", (1, 1, 16, 16))
    ctx, files = sorted_by_class, (tmp_path / "net.onnx", tmp_path / "int8.onnx")
    calibration, val = calibration_images(ctx, 16, 24, 0), validation(ctx, 16, 0)
    made = quantize_for(_how(max_drop=100.0), "onnxruntime", *files, calibration, val, threads=1)
    assert set(made.trials) == {"minmax", "percentile", "entropy"}
    assert made.method == max(made.trials, key=made.trials.__getitem__)
    with pytest.raises(InputError, match=r"percentile makes \.onnx files, openvino loads \.xml: give auto or minmax"):
        quantize_for(_how(method="percentile"), "openvino", files[0], tmp_path / "a.xml", calibration, val, threads=1)


@pytest.mark.slow
def test_qat_is_not_put_through_another_runtime_s_calibration(trained, caplog) -> None:
    ctx, teacher, student = trained
    found = train_with_qat(ctx, student, ["onnxruntime", "litert"], TeacherSet((teacher,)))
    assert {one.runtime for one in found} == {"onnxruntime"}
    assert "no int8-qat row of small for litert: its quantizer takes no learnt ranges" in caplog.text


def test_the_recipes_method_is_for_the_tensors_that_qat_has_not_seen(monkeypatch, tmp_path) -> None:
    from tutelage.pipeline.stages import quantization as stage

    asked = []
    monkeypatch.setattr(stage, "quantize_onnx", lambda *_, **options: asked.append(options))
    monkeypatch.setattr(stage, "quantize_openvino", lambda *_, **options: asked.append(options))
    ranges = {"x": (0.0, 1.0)}

    def quantized(runtime: str, method: str) -> None:
        files = (tmp_path / "a.onnx", tmp_path / "b")
        quantize_for(_how(method=method), runtime, *files, np.zeros(1), None, threads=1, learnt=ranges)

    quantized("onnxruntime", "percentile")
    quantized("onnxruntime", "auto")
    quantized("openvino", "minmax")
    methods = ({"method": "percentile"}, {"method": "minmax"}, {})
    assert asked == [{"learnt": ranges, **method} for method in methods]
    with pytest.raises(InputError, match=r"percentile makes \.onnx files, openvino loads \.xml"):
        quantized("openvino", "percentile")
