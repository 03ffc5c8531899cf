"""A network whose weights want another mean and standard deviation sees its images so, from training to bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from tests.served import Served
from tutelage.distill.data.loader import NORMALISATION
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.normalisation import Renormalisation, normalised_inputs
from tutelage.pipeline import networks
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.operations.bundle import bundle_row
from tutelage.pipeline.operations.quantize import quantize_file
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.stages.compress import compress
from tutelage.pipeline.stages.evaluate import evaluate_variant
from tutelage.pipeline.stages.quantization import calibration_images
from tutelage.pipeline.stages.students import train_named_students
from tutelage.pipeline.stages.train import train_teacher
from tutelage.pipeline.stages.training import soft_targets
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.quant.run import run_onnx
from tutelage.records import Row

NET, SIZE = "test_resnet", 32
MEAN, STD = (0.1, 0.5, 0.7), (0.9, 0.5, 0.25)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make class folders of colour pictures of the run's size."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(48):
        file = folder / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        picture = rng.integers(0, 128, (SIZE, SIZE, 3), dtype=np.uint8) + np.uint8(100 * (number % 2))
        Image.fromarray(picture).save(file)
    return folder


def opened(images: Path, folder: Path, **sections: Any) -> Context:
    data = {"dataset": "folder", "path": str(images), "size": SIZE, "channels": 3, "augment": "none"}
    usual = {"distill": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0}, "quantize": {"calibration_images": 16}}
    recipe = Recipe.model_validate({"name": "tiny", "data": data, **usual, **sections})
    return open_context(recipe, Workspace(folder), silent, 1)


def served_network(hub: Served, classes: int) -> None:
    torch.manual_seed(classes)
    net = timm.create_model(NET, num_classes=classes)
    hub.files["me/net", "model.safetensors"] = save(net.state_dict())
    settings = {"architecture": NET, "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, SIZE, SIZE]}}
    hub.files["me/net", "config.json"] = json.dumps(settings).encode()


def by_hand(pixels: np.ndarray) -> Tensor:
    """Normalise uint8 `(n, h, w, 3)` as the network's weights want it."""
    values = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())


def test_torch_export_int8_evaluation_and_bundle_see_one_picture_alike(
    hub: Served, images: Path, tmp_path: Path
) -> None:
    served_network(hub, 2)
    ctx = opened(images, tmp_path / "w", students=[{"name": NET, "weights": "hf-hub:me/net", "epochs": 0}])
    (student,) = train_named_students(ctx, [])
    pixels = ctx.dataset.images[ctx.dataset.indices("val")]
    given = build_teacher(NET, 2, 3, SIZE, weights=next(Path(tmp_path / "hub").rglob("model.safetensors"))).eval()
    with torch.no_grad():
        expected = given(by_hand(pixels)).numpy()
        wrong = given(ctx.split("val")[0]).numpy()
        loaded = networks.load(ctx, student, runs_images=True)(ctx.split("val")[0]).numpy()
    assert np.abs(wrong - expected).max() > 0.01  # the run's normalisation would show
    np.testing.assert_allclose(loaded, expected, atol=1e-4)
    accuracy = float((expected.argmax(1) == ctx.split("val")[1].numpy()).mean())
    assert student.validation["accuracy"] == pytest.approx(accuracy)

    variants = {one.scheme: one for one in compress(ctx, student, ["onnxruntime"])}
    fp32 = tmp_path / "w" / variants["fp32"].file.path
    np.testing.assert_allclose(run_onnx(fp32, by_hand(pixels).numpy()), expected, atol=1e-4)

    drawn = ctx.draw("train", 16, 0)
    train = ctx.dataset.images[ctx.dataset.indices("train")[drawn]]
    fed = ctx.split("train", SIZE, drawn, student.normalisation)[0]
    torch.testing.assert_close(fed, by_hand(train), rtol=1e-5, atol=1e-5)
    calibration = calibration_images(ctx, SIZE, 16, 0, student.normalisation)
    assert variants["int8-ptq"].quantization["num_calibration"] == len(calibration)
    again = quantize_file(ctx.recipe, ctx.workspace, silent, 1, model=fp32, out=tmp_path / "again.onnx")
    made = variants["int8-ptq"].quantization["calibration_sha256"]
    assert again["calibration_sha256"] == made  # the verb reads the normalisation off the file

    evaluated = evaluate_variant(ctx, variants["fp32"])
    with np.load(tmp_path / "w" / evaluated.predictions) as arrays:
        odds = np.exp(expected - expected.max(1, keepdims=True))
        np.testing.assert_allclose(arrays["val_probs"], odds / odds.sum(1, keepdims=True), atol=1e-4)

    made_of = {
        "recipe": ctx.recipe_values, "network": student.to_dict(), "file": variants["fp32"].file.to_dict(),
    }  # fmt: skip
    details = {"how": made_of, "manifest": ctx.dataset.manifest, "predictions": evaluated.predictions}
    row = Row(model=NET, role="student", recipe="tiny", dataset="folder", runtime="onnxruntime", details=details)
    bundle = bundle_row(row, ctx.workspace, silent, 1, out=tmp_path / "bundle")
    assert (bundle.preprocess.mean, bundle.preprocess.std) == (MEAN, STD)
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    command = [sys.executable, str(tmp_path / "bundle" / "predict.py"), str(tmp_path / "one.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout)["logits"], expected[0], atol=1e-4)


def test_student_and_teacher_are_trained_each_on_its_own_normalisation(
    hub: Served, images: Path, tmp_path: Path
) -> None:
    served_network(hub, 2)
    ctx = opened(images, tmp_path / "w", teachers=[{"name": NET, "weights": "hf-hub:me/net", "epochs": 0}])
    teacher = train_teacher(ctx, ctx.recipe.teachers[0])
    batch = next(iter(ctx.loader(ctx.augment_input, 8, seed=0).epoch(0)))
    given = build_teacher(NET, 2, 3, SIZE, weights=next(Path(tmp_path / "hub").rglob("model.safetensors"))).eval()
    with torch.no_grad():
        expected = given(by_hand(ctx.dataset.images[batch.indices.numpy()]))
    found = soft_targets(ctx, [teacher], ctx.augment_input).logits(batch)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # The same weights on the run's images give other outputs, and another cache.
    plain = teacher.model_copy(update={"normalisation": None})
    other = soft_targets(ctx, [plain], ctx.augment_input).logits(batch)[0]
    assert (other - expected).abs().max() > 0.01
    assert len(list((tmp_path / "w" / "cache" / "soft-targets").iterdir())) == 2
    # Training goes through the same front: what was trained is validated as it is evaluated later.
    trained = opened(images, tmp_path / "w", students=[{"name": NET, "weights": "hf-hub:me/net"}])
    (student,) = train_named_students(trained, [])
    net = networks.load(trained, student)
    with torch.no_grad():
        own = net(by_hand(ctx.dataset.images[ctx.dataset.indices("val")]))
    accuracy = (own.argmax(1) == trained.split("val")[1]).float().mean()
    assert student.validation["accuracy"] == pytest.approx(float(accuracy))
    assert student.weights is not None
    filed = load_file(tmp_path / "w" / student.weights.path)
    assert filed.keys() == given.state_dict().keys()  # the front is no part of the network


def test_a_front_leaves_with_its_block_and_none_is_put_where_none_is_wanted() -> None:
    net = build_teacher(NET, 2, 1, SIZE).eval()
    batch = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = net(batch)
        with normalised_inputs(net, ((0.3,), (0.1,))):
            inside = net(batch)
        with normalised_inputs(net, None):
            assert torch.equal(net(batch), plain)
        pixels = batch * 0.25 + 0.5
        torch.testing.assert_close(inside, net((pixels - 0.3) / 0.1), rtol=1e-4, atol=1e-4)
        assert torch.equal(net(batch), plain)
    usual = Renormalisation(*NORMALISATION[3])
    colours = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(usual(colours), colours)
