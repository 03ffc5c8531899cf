"""The program that goes into a bundle: it needs the runtime and numpy, and Pillow only for image files.

Enters the runtime, the model's file name and how images that are not square are treated; leaves the text of predict.py.
"""

from __future__ import annotations

_OPEN = {
    "onnxruntime": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(HERE / "{model}", providers=["CPUExecutionProvider"])\n'
        "run = lambda x: session.run(None, {{session.get_inputs()[0].name: x}})[0][0]",
    ),
    # The batch is fixed at 1: with a free batch OpenVINO 2026.4 answers wrongly for one image of an int8 network.
    "openvino": (
        "import openvino",
        'net = openvino.Core().read_model(HERE / "{model}")\n'
        'net.reshape([1, HOW["channels"], HOW["height"], HOW["width"]])\n'
        'net = openvino.compile_model(net, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
        "run = lambda x: net(x)[0][0]",
    ),
}
# Crop and pad are one cut of a square around the middle: what lies outside the image is black.
_SQUARE = (
    "    (w, h), s = image.size, {side}(image.size)\n"
    "    image = image.crop((int((w - s) / 2), int((h - s) / 2), int((w - s) / 2) + s, int((h - s) / 2) + s))\n"
)
# As in training: a JPEG that is squashed is decoded small at once.
_DRAFT = '    image.draft(None, (2 * HOW["width"], 2 * HOW["height"]))\n'

_SCRIPT = '''"""python predict.py IMAGE.png ... IMAGES.npy ... -> JSON lines; .npy: uint8 (n, h, w, channels)."""
import hashlib, json, sys
from pathlib import Path
import numpy as np
{imports}
HERE = Path(__file__).resolve().parent
HOW, NAMES, CUTS, FILES = (json.loads((HERE / f"{{n}}.json").read_text("utf-8"))
                           for n in ("preprocess", "labels", "thresholds", "manifest"))
for name, entry in FILES["files"].items():
    if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != entry["sha256"]:
        sys.exit(f"{{name}} was changed: refused")
{opening}
def read(path):
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    from PIL import Image
    image = Image.open(path)
    if image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr") or "transparency" in image.info:
        sys.exit(f"{{path}}: mode {{image.mode}}: give 8-bit gray or RGB without alpha")
{draft}    image = image.convert("RGB" if HOW["channels"] == 3 else "L")
{square}    return np.asarray(image.resize((HOW["width"], HOW["height"]), Image.BILINEAR, reducing_gap=2.0))
for path in sys.argv[1:]:
    pixels = read(path).reshape(-1, HOW["height"], HOW["width"], HOW["channels"]).astype(np.float32) / 255
    for image in ((pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])).transpose(0, 3, 1, 2):
        logits = run(np.ascontiguousarray(image[None]))
        powers = np.exp(logits - logits.max())
        probs = 1 / (1 + np.exp(-logits)) if CUTS["multi_label"] else powers / powers.sum()
        called = probs >= np.array(CUTS["values"])
        if not CUTS["multi_label"]:
            called = np.arange(len(NAMES)) == (called[1] if len(NAMES) == 2 else probs.argmax())
        print(json.dumps(dict(file=path, labels=[name for name, yes in zip(NAMES, called) if yes],
                              probabilities=probs.tolist(), logits=logits.tolist())))
'''


def predict_script(runtime: str, model: str, fit: str = "squash") -> str:
    """Write predict.py for `onnxruntime` (model.onnx) or `openvino` (model.xml or model.onnx)."""
    imports, opening = _OPEN[runtime]
    draft, square = (_DRAFT, "") if fit == "squash" else ("", _SQUARE.format(side="min" if fit == "crop" else "max"))
    return _SCRIPT.format(imports=imports, opening=opening.format(model=model), draft=draft, square=square)
