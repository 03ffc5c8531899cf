"""Bundles: what is deployed answers like what was evaluated, without torch; and one changed byte is refused."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tutelage.pipeline.operations.single_stage import input_shape
from tutelage.quant.bundle.write import Bundle, Preprocess, load_bundle, write_bundle
from tutelage.quant.int8.onnxruntime_ptq import quantize_onnx
from tutelage.quant.int8.openvino_ptq import quantize_openvino
from tutelage.quant.run import run_onnx
from tutelage.records import InputError, Row

NAMES = [f"digit {value}" for value in range(10)]
# The digits fixture normalises 0..16 to -1..1: as 8-bit pixels that is (x / 255 - .5) / .5.
HOW = Preprocess(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
ROW = Row(
    model="student", role="student", dataset="digits", scheme="int8-ptq", teacher="densenet121",
    accuracy=0.95, accuracy_lo=0.93, accuracy_hi=0.97, params=500_000, latency_p50_ms=0.3, device="host",
    runtime="onnxruntime", batch=1, threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def int8(digits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize_onnx(digits.fp32, path, digits.images[:32])
    return path


def _write(digits, model: Path, folder: Path, row: Row = ROW, how: Preprocess = HOW) -> Bundle:
    return write_bundle(
        folder, model, row, preprocess=how, labels=NAMES, thresholds=None,
        validation=digits.val_images, reference_logits=digits.logits, notes=["Drawn by hand in 1998."],
    )  # fmt: skip


@pytest.fixture
def bundle(digits, int8, tmp_path) -> Bundle:
    return _write(digits, int8, tmp_path / "bundle")


def _pixels(digits, n: int) -> np.ndarray:
    """Eight-bit images (n, h, w, c) and, through HOW, nearly the fixture's."""
    return np.round((digits.val_images[:n].transpose(0, 2, 3, 1) + 1) / 2 * 255).astype(np.uint8)


def _normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)).transpose(0, 3, 1, 2)


def _lines(command: list[str], **environment: str) -> list[dict]:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_bundle_is_the_evaluated_file_and_says_how_close_it_is(digits, int8, bundle) -> None:
    assert bundle.model.read_bytes() == int8.read_bytes()
    found = run_onnx(int8, digits.val_images)
    assert bundle.parity.num_images == len(digits.val_images)
    assert bundle.parity.largest_difference == pytest.approx(float(np.abs(found - digits.logits).max()))
    assert bundle.parity.same_top1 == pytest.approx(float((found.argmax(1) == digits.logits.argmax(1)).mean()))
    assert bundle.parity.same_top1 > 0.95
    np.testing.assert_array_equal(bundle.run(digits.val_images[:5]), run_onnx(int8, digits.val_images[:5]))
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    for part in ("0.9500 (0.9300 to 0.9700)", "densenet121", "digit 7", "Drawn by hand", "500,000"):
        assert part in card
    assert "AUC" not in card  # not measured: not shown


def test_predict_runs_where_torch_cannot_be_imported(digits, bundle, tmp_path) -> None:
    """`sitecustomize` refuses everything but the runtime and numpy, before predict.py is read."""
    fence = tmp_path / "fence"
    fence.mkdir()
    (fence / "sitecustomize.py").write_text(
        "import sys\n"
        "class Fence:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'timm', 'tutelage', 'PIL', 'onnx', 'pandas'):\n"
        "            raise ImportError('fenced off: ' + name)\n"
        "sys.meta_path.insert(0, Fence())\n"
    )
    refused = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, "PYTHONPATH": str(fence)}, capture_output=True
    )
    assert refused.returncode != 0
    pixels = _pixels(digits, 6)
    np.save(tmp_path / "images.npy", pixels)
    lines = _lines(
        [sys.executable, str(bundle.folder / "predict.py"), str(tmp_path / "images.npy")], PYTHONPATH=str(fence)
    )
    expected = bundle.run(_normalised(pixels))
    np.testing.assert_allclose([line["logits"] for line in lines], expected, atol=1e-5)
    assert [line["labels"] for line in lines] == [[NAMES[place]] for place in expected.argmax(axis=1)]
    for line in lines:
        assert sum(line["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert "thresholds" not in line  # of ten classes the likeliest is called


@pytest.mark.parametrize("absent", ["onnxruntime", "openvino", "numpy", "PIL"])
def test_predict_names_in_one_line_what_is_not_installed(absent, digits, int8, tmp_path) -> None:
    """A finder takes the module away before predict.py is read, as where nobody installed it."""
    runtime = "openvino" if absent == "openvino" else "onnxruntime"
    model = digits.fp32 if runtime == "openvino" else int8
    made = _write(digits, model, tmp_path / "bundle", ROW.model_copy(update={"runtime": runtime}))
    (tmp_path / "one.png").touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {absent!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name}')\n"
        "sys.meta_path.insert(0, Without())\n"
    )
    done = subprocess.run(
        [sys.executable, str(made.folder / "predict.py"), str(tmp_path / "one.png")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    wanted = {"numpy": "numpy", "PIL": "pillow"}.get(absent) or f"{absent}=={version(absent)}"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f'this model needs {absent}: pip install "{wanted}"']


@pytest.mark.slow
def test_predict_runs_in_an_environment_of_runtime_and_numpy_alone(digits, bundle, tmp_path) -> None:
    import numpy
    import onnxruntime

    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip("uv is not installed, which makes the bare environment")
    home = tmp_path / "bare"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(home)], check=True)
    python = str(home / "bin" / "python")
    wanted = [f"numpy=={numpy.__version__}", f"onnxruntime=={onnxruntime.__version__}"]
    made = subprocess.run([uv, "pip", "install", "-q", "--python", python, *wanted], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(
            f"no package index here: {made.stderr.strip().splitlines()[-1] if made.stderr else made.returncode}"
        )
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    pixels = _pixels(digits, 3)
    np.save(tmp_path / "images.npy", pixels)
    lines = _lines([python, str(bundle.folder / "predict.py"), str(tmp_path / "images.npy")])
    np.testing.assert_allclose([line["logits"] for line in lines], bundle.run(_normalised(pixels)), atol=1e-5)


@pytest.mark.slow
def test_predict_reads_image_files(digits, bundle, tmp_path) -> None:
    from PIL import Image

    pixels = _pixels(digits, 1)
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    (line,) = _lines([sys.executable, str(bundle.folder / "predict.py"), str(tmp_path / "one.png")])
    np.testing.assert_allclose([line["logits"]], bundle.run(_normalised(pixels)), atol=1e-5)


@pytest.mark.slow
def test_two_classes_are_decided_by_the_threshold(tmp_path) -> None:
    """Logits (0, z) give the probability s = sigmoid(z) of the second class: it is called from the threshold on."""
    import torch
    from torch import nn

    from tutelage.quant.export.onnx_export import export_onnx

    class Bright(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3))[:, None]
            return torch.cat([mean * 0, mean], dim=1)

    export_onnx(Bright(), tmp_path / "bright.onnx", (1, 1, 4, 4))
    images = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    how = Preprocess(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,))  # black -> -1, white -> 1
    normalised = (images.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    np.save(tmp_path / "images.npy", images)
    logits = run_onnx(tmp_path / "bright.onnx", normalised)
    for cut, expected in [(0.2, ["ill", "ill"]), (0.5, ["well", "ill"]), (0.8, ["well", "well"])]:
        made = write_bundle(
            tmp_path / f"at{cut}", tmp_path / "bright.onnx", ROW, preprocess=how, labels=["well", "ill"],
            thresholds=[1 - cut, cut], validation=normalised, reference_logits=logits,
        )  # fmt: skip
        lines = _lines([sys.executable, str(made.folder / "predict.py"), str(tmp_path / "images.npy")])
        assert [line["labels"][0] for line in lines] == expected  # sigmoid(-1) = .27, sigmoid(1) = .73
        # Without it a label contradicts the probabilities beside it.
        assert [line["thresholds"] for line in lines] == [{"ill": cut}] * 2


@pytest.mark.slow
def test_several_labels_are_called_by_a_threshold_each(digits, int8, tmp_path) -> None:
    cuts = np.linspace(0.05, 0.95, 10).tolist()
    made = write_bundle(
        tmp_path / "several", int8, ROW, preprocess=HOW, labels=NAMES, thresholds=cuts, multi_label=True,
        validation=digits.val_images[:8], reference_logits=digits.logits[:8],
    )  # fmt: skip
    pixels = _pixels(digits, 12)
    np.save(tmp_path / "images.npy", pixels)
    lines = _lines([sys.executable, str(made.folder / "predict.py"), str(tmp_path / "images.npy")])
    probs = 1 / (1 + np.exp(-made.run(_normalised(pixels))))
    np.testing.assert_allclose([line["probabilities"] for line in lines], probs, atol=1e-5)
    assert lines[0]["thresholds"] == dict(zip(NAMES, cuts, strict=True))
    assert [line["labels"] for line in lines] == [
        [name for name, value, cut in zip(NAMES, row, cuts, strict=True) if value >= cut] for row in probs
    ]


def test_predict_says_how_it_is_used_and_refuses_what_it_cannot_read(bundle, tmp_path) -> None:
    from PIL import Image

    command = [sys.executable, str(bundle.folder / "predict.py")]
    usage = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "image files, or .npy" in usage.stdout
    (tmp_path / "notes.png").write_text("no image")
    np.save(tmp_path / "floats.npy", np.zeros((2, 32, 32, 3), np.float32))
    (tmp_path / "empty.npy").touch()
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, one=np.zeros(1), other=np.zeros(1))
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    cases = {
        "notes.png": "cannot be read as an image", "floats.npy": "give uint8 (n, 32, 32, 3)",
        "empty.npy": "cannot be read as an array", "several.npy": "holds several arrays",
        "cut.png": "cannot be read as an image",
    }  # fmt: skip
    for name, message in cases.items():
        refused = subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    refused = subprocess.run([*command, "--threads", "0", "x.png"], capture_output=True, text=True)
    assert (refused.returncode, "--threads 0: give 1 or more" in refused.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8 IR", "fp32 ONNX"])
def test_an_openvino_bundle_answers_too(kind, digits, tmp_path) -> None:
    model = digits.fp32
    if kind == "int8 IR":
        model = quantize_openvino(digits.fp32, tmp_path / "int8.xml", digits.images[:16]).path
    made = _write(digits, model, tmp_path / "bundle", ROW.model_copy(update={"runtime": "openvino"}))
    assert made.runtime == "openvino"
    assert json.loads((made.folder / "manifest.json").read_text())["runtime"] == "openvino"
    pixels = _pixels(digits, 2)
    np.save(tmp_path / "images.npy", pixels)
    lines = _lines([sys.executable, str(made.folder / "predict.py"), str(tmp_path / "images.npy")])
    np.testing.assert_allclose([line["logits"] for line in lines], made.run(_normalised(pixels)), atol=1e-4)


def test_a_row_of_a_runtime_that_does_not_read_the_file_is_refused(digits, tmp_path) -> None:
    with pytest.raises(InputError, match=r"the row is of ncnn, and student\.onnx is for onnxruntime or openvino"):
        _write(digits, digits.fp32, tmp_path / "bundle", ROW.model_copy(update={"runtime": "ncnn"}))


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_predict_reads_pictures_as_training_did(fit, digits, int8, tmp_path) -> None:
    """An odd, oblong JPEG and gray, palette and 1-bit PNGs: the pixels are those that the data sets decode to."""
    from PIL import Image

    from tutelage.distill.data.images import decode

    made = _write(digits, int8, tmp_path / "bundle", how=HOW.model_copy(update={"fit": fit}))
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 256, (150, 211, 3), dtype=np.uint8)).resize((411, 290))
    wide.save(tmp_path / "wide.jpg")
    wide.convert("L").resize((33, 40)).save(tmp_path / "tall.png")
    wide.quantize(16).save(tmp_path / "palette.png")
    wide.convert("1").save(tmp_path / "bits.png")
    files = [str(tmp_path / name) for name in ("wide.jpg", "tall.png", "palette.png", "bits.png")]
    lines = _lines([sys.executable, str(made.folder / "predict.py"), *files])
    expected = made.run(_normalised(np.stack([decode(Path(name), 32, 3, fit=fit)[0] for name in files])))
    np.testing.assert_allclose([line["logits"] for line in lines], expected, atol=1e-5)
    Image.fromarray(rng.integers(0, 4096, (40, 40)).astype(np.uint16)).save(tmp_path / "deep.png")
    refused = subprocess.run(
        [sys.executable, str(made.folder / "predict.py"), str(tmp_path / "deep.png")], capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "give 8-bit gray or RGB" in refused.stderr


@pytest.mark.slow
def test_predict_itself_refuses_a_changed_bundle(digits, bundle, tmp_path) -> None:
    np.save(tmp_path / "images.npy", _pixels(digits, 1))
    with (bundle.folder / "thresholds.json").open("a") as file:
        file.write(" ")
    command = [sys.executable, str(bundle.folder / "predict.py"), str(tmp_path / "images.npy")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "thresholds.json was changed: refused"


def test_a_file_that_was_added_is_refused(bundle) -> None:
    (bundle.folder / "model.onnx.data").write_bytes(b"weights from elsewhere")
    with pytest.raises(InputError, match="was added afterwards"):
        load_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["model.onnx", "predict.py", "labels.json", "MODEL_CARD.md"])
def test_one_changed_byte_is_refused(name, bundle) -> None:
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} has SHA-256"):
        load_bundle(bundle.folder)


def test_missing_files_links_and_other_formats_are_refused(bundle, tmp_path) -> None:
    manifest = bundle.folder / "manifest.json"
    whole = json.loads(manifest.read_text())
    escaping = {**whole, "files": {**whole["files"], "../secret.txt": {"sha256": "0"}}}
    newer = {**whole, "format": 3}
    short = {**whole, "files": {name: entry for name, entry in whole["files"].items() if name != "predict.py"}}
    for changed, message in [
        (escaping, "outside the bundle"),
        (newer, "format 3 is not 2"),
        (short, "names no predict.py"),
    ]:
        manifest.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            load_bundle(bundle.folder)
    manifest.write_text(json.dumps(whole))
    kept = (bundle.folder / "labels.json").rename(tmp_path / "elsewhere.json")
    (bundle.folder / "labels.json").symlink_to(kept)
    with pytest.raises(InputError, match="not a plain file"):
        load_bundle(bundle.folder)
    with pytest.raises(InputError, match=r"manifest.json is missing"):
        load_bundle(tmp_path / "nowhere")


def test_json_is_bounded_in_size_and_depth(bundle) -> None:
    manifest = bundle.folder / "manifest.json"
    manifest.write_text(" " * (5 * 1024 * 1024))
    with pytest.raises(InputError, match="more than the"):
        load_bundle(bundle.folder)
    manifest.write_text("[" * 200_000)
    with pytest.raises(InputError, match="is not JSON"):
        load_bundle(bundle.folder)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "sub/../../outside.bin"])
def test_external_data_outside_the_folder_is_refused(location, digits, tmp_path) -> None:
    import onnx

    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(10_000_000))
    model = onnx.load(digits.fp32)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for read in (lambda path: run_onnx(path, digits.val_images[:1]), lambda path: input_shape(path, None)):
        with pytest.raises(InputError, match="outside the model's folder"):  # `bench` asks for the shape first
            read(folder / "model.onnx")


def test_labels_that_do_not_fit_the_outputs_are_refused(digits, int8, tmp_path) -> None:
    with pytest.raises(InputError, match="9 labels, 9 thresholds, 10 outputs"):
        write_bundle(
            tmp_path / "b", int8, ROW, preprocess=HOW, labels=NAMES[:9], thresholds=None,
            validation=digits.val_images[:4], reference_logits=digits.logits[:4],
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(digits, int8, bundle) -> None:
    with pytest.raises(InputError, match="is not empty"):
        _write(digits, int8, bundle.folder)
