#!/usr/bin/env python3
"""Classify images with the model of this bundle.

    python predict.py scan1.png scan2.jpg          image files: 8-bit gray or RGB, of any size
    python predict.py images.npy                   an array: uint8 (n, height, width, channels), the model's size
    python predict.py --threads 4 scan1.png

One JSON line is printed for each image: its file, the labels that are called, the probability and the logit of every
class, and, of two classes or several labels an image, the probability from which on each is called (`thresholds`, which
were chosen on validation images and need not be 0.5: the called class may be the less likely one). It needs Python
3.10, numpy and the bundle's runtime (onnxruntime or openvino), and Pillow for image files, and names what is missing;
the package that made the bundle is not needed. A bundle one file of which was changed is refused.

It lies beside the model and reads from the bundle's own files how pixels become the model's input (preprocess.json),
what the classes are called (labels.json) and from which probability on a class is called (thresholds.json).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def needed(module: str, requirement: str) -> Any:
    """Import a module, or stop with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        broken = "" if isinstance(error, ModuleNotFoundError) else f" (the one here does not load: {error})"
        sys.exit(f'this model needs {module.partition(".")[0]}: pip install "{requirement}"{broken}')


np = needed("numpy", "numpy")

HERE = Path(__file__).resolve().parent
# Pixels of more than 8 bits, or with transparency, would be changed without a word by a conversion.
READABLE_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")

Run = Callable[[Any], Any]


def main() -> None:
    """Print a JSON line for every image of the files that are named."""
    parser = argparse.ArgumentParser(description="Classify images with the model of this bundle.")
    parser.add_argument("files", nargs="+", help="image files, or .npy: uint8 pixels (n, height, width, channels)")
    parser.add_argument("--threads", type=int, default=1, help="threads the runtime may use (default: 1)")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: give 1 or more")
    manifest = read_json("manifest.json")
    check_files(manifest)
    how, names, decision = (read_json(f"{name}.json") for name in ("preprocess", "labels", "thresholds"))
    run = open_model(manifest, how, options.threads)
    for file in options.files:
        for pixels in read_pixels(file, how):
            logits = run(normalise(pixels, how))
            probabilities = to_probabilities(logits, decision["multi_label"])
            line = {
                "file": file,
                "labels": called(probabilities, names, decision),
                "probabilities": probabilities.tolist(),
                "logits": logits.tolist(),
                **called_from(names, decision),
            }
            print(json.dumps(line))


def read_json(name: str) -> Any:
    """Read one of the bundle's own files."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def check_files(manifest: Any) -> None:
    """Stop unless every file of the bundle has the hash that its manifest names."""
    for name, entry in manifest["files"].items():
        path = HERE / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            sys.exit(f"{name} was changed: refused")


def open_model(manifest: Any, how: Any, threads: int) -> Run:
    """Open the model; give a function from one normalised image (channels, height, width) to its logits."""
    model, name = HERE / manifest["model"], manifest["runtime"]
    runtime = needed(name, f"{name}=={manifest['runtime_version']}")
    if name == "openvino":
        return open_openvino(runtime, model, [1, how["channels"], how["height"], how["width"]], threads)
    return open_onnxruntime(runtime, model, threads)


def open_onnxruntime(onnxruntime: Any, model: Path, threads: int) -> Run:
    """Open an ONNX file on the CPU; it is run on one image at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    size = session.get_inputs()[0].shape[0]
    batch = size if isinstance(size, int) else 1  # a file whose batch is fixed is given the image so many times
    return lambda image: session.run(None, {name: np.repeat(image[None], batch, axis=0)})[0][0]


def open_openvino(openvino: Any, model: Path, shape: list[int], threads: int) -> Run:
    """Open an IR or ONNX file on the CPU, in float32 where it is not int8; `shape` is that of one image as a batch."""
    network = openvino.Core().read_model(str(model))
    # With a free batch OpenVINO 2026.4 computes wrong outputs for one image of an int8 network: fix it at 1.
    network.reshape(shape)
    # Left alone, OpenVINO computes float layers in bf16 on processors that have it.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = openvino.compile_model(network, "CPU", config)
    return lambda image: compiled(np.ascontiguousarray(image[None]))[0][0]


def read_pixels(file: str, how: Any) -> Iterator[Any]:
    """Yield the images of a file as uint8 (height, width, channels), of the model's size."""
    shape = (how["height"], how["width"], how["channels"])
    if not file.endswith(".npy"):
        yield np.asarray(read_image(file, how)).reshape(shape)
        return
    try:
        images = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        sys.exit(f"{file} cannot be read as an array: {error}")
    if not isinstance(images, np.ndarray):
        sys.exit(f"{file} holds several arrays (.npz): save one with numpy.save")
    if images.dtype != np.uint8 or images.shape[-3:] != shape:
        sys.exit(f"{file}: {images.dtype} of shape {images.shape}: give uint8 (n, {shape[0]}, {shape[1]}, {shape[2]})")
    yield from images.reshape(-1, *shape)


def read_image(file: str, how: Any) -> Any:
    """Read a picture and resize it as the training images were."""
    Image, ImageOps = (needed(f"PIL.{name}", "pillow") for name in ("Image", "ImageOps"))
    try:
        image = Image.open(file)
        if how["fit"] == "squash":
            image.draft(None, (2 * how["width"], 2 * how["height"]))  # a large JPEG is decoded small, as in training
        if image.mode not in READABLE_MODES or "transparency" in image.info:
            sys.exit(f"{file}: mode {image.mode}: give 8-bit gray or RGB without alpha")
        shaped = ImageOps.exif_transpose(image).convert("RGB" if how["channels"] == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these
        sys.exit(f"{file} cannot be read as an image: {error}")
    if how["fit"] != "squash":
        shaped = shaped.crop(square(shaped.size, how["fit"]))  # what lies outside the image is black
    return shaped.resize((how["width"], how["height"]), Image.Resampling.BILINEAR, reducing_gap=2.0)


def square(size: tuple[int, int], fit: str) -> tuple[int, int, int, int]:
    """Give the square around the middle of an image: inside it for `crop`, around it for `pad`."""
    width, height = size
    side = min(size) if fit == "crop" else max(size)
    left, top = int((width - side) / 2), int((height - side) / 2)
    return left, top, left + side, top + side


def normalise(pixels: Any, how: Any) -> Any:
    """Scale uint8 (height, width, channels) as in training: float32 (channels, height, width)."""
    scaled = (pixels.astype(np.float32) / 255 - np.float32(how["mean"])) / np.float32(how["std"])
    return scaled.transpose(2, 0, 1)


def to_probabilities(logits: Any, multi_label: bool) -> Any:
    """Give a probability for each label of its own, or probabilities of the classes that sum to 1."""
    if multi_label:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def called(probabilities: Any, names: list[str], decision: Any) -> list[str]:
    """Name what is called: each label, or the second of two classes, from its threshold on; else the likeliest."""
    thresholds = decision["values"]
    if decision["multi_label"]:
        return [name for name, value, least in zip(names, probabilities, thresholds, strict=True) if value >= least]
    if len(names) == 2:
        return [names[int(probabilities[1] >= thresholds[1])]]
    return [names[int(probabilities.argmax())]]


def called_from(names: list[str], decision: Any) -> dict[str, Any]:
    """Give the probability from which on a label is called, where it is not the likeliest one that is."""
    if decision["multi_label"]:
        return {"thresholds": dict(zip(names, decision["values"], strict=True))}
    return {"thresholds": {names[1]: decision["values"][1]}} if len(names) == 2 else {}


if __name__ == "__main__":
    main()
