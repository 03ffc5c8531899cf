"""The program that goes into a bundle: it needs the runtime and numpy, and Pillow only for image files.

Enters a runtime's name; leaves the text of predict.py.
"""

from __future__ import annotations

_OPEN = {
    "onnxruntime": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])\n'
        "run = lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]",
    ),
    # The batch is fixed at 1: with a free batch OpenVINO 2026.4 answers wrongly for one image of an int8 network.
    "openvino": (
        "import openvino",
        'core = openvino.Core()\nmodel = core.read_model(HERE / "model.xml")\n'
        'model.reshape([1, HOW["channels"], HOW["height"], HOW["width"]])\n'
        'model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})\n'
        "run = lambda x: model(x)[0]",
    ),
}

_SCRIPT = '''"""python predict.py IMAGE.png ... IMAGES.npy ... -> JSON lines; .npy: uint8 (n, h, w, channels)."""
import json, sys
from pathlib import Path
import numpy as np
{imports}
HERE = Path(__file__).resolve().parent
HOW, NAMES, CUTS = (json.loads((HERE / f"{{n}}.json").read_text()) for n in ("preprocess", "labels", "thresholds"))
{opening}
def read(path):
    if path.endswith(".npy"):
        pixels = np.load(path, allow_pickle=False)
    else:
        from PIL import Image
        image = Image.open(path).convert("RGB" if HOW["channels"] == 3 else "L")
        pixels = np.asarray(image.resize((HOW["width"], HOW["height"]), Image.BILINEAR))
    pixels = pixels.reshape(-1, HOW["height"], HOW["width"], HOW["channels"]).astype(np.float32) / 255
    return np.ascontiguousarray(((pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])).transpose(0, 3, 1, 2))

def decide(probs):
    if CUTS["multi_label"]:
        return [name for name, p, cut in zip(NAMES, probs, CUTS["values"]) if p >= cut]
    return [NAMES[int(probs[1] >= CUTS["values"][1]) if len(NAMES) == 2 else int(probs.argmax())]]

for path in sys.argv[1:]:
    for logits in (run(image[None])[0] for image in read(path)):
        powers = np.exp(logits - logits.max())
        probs = 1 / (1 + np.exp(-logits)) if CUTS["multi_label"] else powers / powers.sum()
        print(json.dumps(dict(file=path, labels=decide(probs), probabilities=probs.tolist(), logits=logits.tolist())))
'''


def predict_script(runtime: str) -> str:
    """Write predict.py for `onnxruntime` (model.onnx) or `openvino` (model.xml)."""
    imports, opening = _OPEN[runtime]
    return _SCRIPT.format(imports=imports, opening=opening)
