"""The program that goes into a bundle: it needs the runtime and numpy, and Pillow only for image files.

Enters the runtime, the model's file name, how images become its input and how classes are called; leaves the text of
predict.py, in which only what this bundle needs stands.
"""

from __future__ import annotations

_OPEN = {
    "onnxruntime": 'net = onnxruntime.InferenceSession(HERE / "{model}", providers=["CPUExecutionProvider"])\n',
    # The batch is fixed at 1: with a free batch OpenVINO 2026.4 answers wrongly for one image of an int8 network.
    "openvino": (
        'net = openvino.Core().read_model(HERE / "{model}")\n'
        "net.reshape([1, C, H, W])\n"
        'net = openvino.compile_model(net, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
    ),
}
_RUN = {
    "onnxruntime": "net.run(None, {net.get_inputs()[0].name: np.ascontiguousarray(image[None])})[0][0]",
    "openvino": "net(np.ascontiguousarray(image[None]))[0][0]",
}
# As in training: a JPEG that is squashed is decoded small at once; crop and pad are one cut of a square around the
# middle, where what lies outside the image is black.
_BEFORE = {
    "squash": "    image.draft(None, (2 * W, 2 * H))\n",
    "square": "    (w, h), s = image.size, {side}(image.size)\n    x, y = int((w - s) / 2), int((h - s) / 2)\n",
}
_CUT = {"squash": "", "square": ".crop((x, y, x + s, y + s))"}
_SOFTMAX, _SIGMOID = "np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()", "1 / (1 + np.exp(-logits))"
# Several labels are decided by a threshold each, two classes by the second one's, more classes by the largest.
_LABELS = {
    "several": '[name for name, prob, cut in zip(NAMES, probs, CUTS["values"]) if prob >= cut]',
    "two": '[NAMES[int(probs[1] >= CUTS["values"][1])]]',
    "more": "[NAMES[probs.argmax()]]",
}

_SCRIPT = '''"""python predict.py IMAGE.png ... IMAGES.npy ... -> JSON lines; .npy: uint8 (n, h, w, channels)."""
import hashlib, json, pathlib, sys
import numpy as np, {runtime}
HERE = pathlib.Path(__file__).resolve().parent
FILES, HOW, NAMES, CUTS = (json.loads((HERE / f"{{name}}.json").read_text("utf-8"))
                           for name in ("manifest", "preprocess", "labels", "thresholds"))
for name, entry in FILES["files"].items():
    if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != entry["sha256"]:
        sys.exit(f"{{name}} was changed: refused")
H, W, C = HOW["height"], HOW["width"], HOW["channels"]
{opening}def read(path):
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    from PIL import Image
    image = Image.open(path)
    if image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr") or "transparency" in image.info:
        sys.exit(f"{{path}}: mode {{image.mode}}: give 8-bit gray or RGB without alpha")
{before}    return np.asarray(image.convert("{mode}"){cut}.resize((W, H), Image.BILINEAR, reducing_gap=2.0))
for path in sys.argv[1:]:
    pixels = read(path).reshape(-1, H, W, C).astype(np.float32) / 255
    for image in ((pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])).transpose(0, 3, 1, 2):
        logits = {run}
        probs = {probs}
        called = {labels}
        print(json.dumps(dict(file=path, labels=called, probabilities=probs.tolist(), logits=logits.tolist())))
'''


def predict_script(
    runtime: str, model: str, fit: str, channels: int, num_labels: int, multi_label: bool = False
) -> str:
    """Write predict.py for `onnxruntime` (model.onnx) or `openvino` (model.xml or model.onnx)."""
    called = "several" if multi_label else "two" if num_labels == 2 else "more"
    shape = "squash" if fit == "squash" else "square"
    return _SCRIPT.format(
        runtime=runtime,
        opening=_OPEN[runtime].format(model=model),
        before=_BEFORE[shape].format(side="min" if fit == "crop" else "max") if shape == "square" else _BEFORE[shape],
        mode="RGB" if channels == 3 else "L",
        cut=_CUT[shape],
        run=_RUN[runtime],
        probs=_SIGMOID if multi_label else _SOFTMAX,
        labels=_LABELS[called],
    )
