"""Check training, scoring and timing on a GPU in at most six minutes and print a Markdown table: `make check-gpu`.

It runs in a bare checkout (nothing installed but what follows, no network): torch >= 2.10 and torchvision, numpy, ofa
(the supernet's layers), timm, accelerate, safetensors, scipy, scikit-learn, pydantic and pyyaml. pyarrow reads a
parquet file, pytest runs the tests marked `gpu`. A part whose package is missing is skipped, and its line says so.

    python tests/gpu/check_gpu.py --data cifar10-10k.npz --out gpu-check       # on a GPU; again: it goes on
    python tests/gpu/check_gpu.py --accelerator cpu --quick                    # toy sizes, to test the script itself

--data is an .npz with `images` (n, 32, 32, 3) uint8 and `labels` (n,), or a parquet file with the columns `img` (or
`image`) and `label` as the hub has CIFAR-10; without it images are synthetic, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("search", "distill", "quant", "bench", "leaderboard")
NEEDED = ("numpy", "torch", "torchvision", "ofa", "timm", "accelerate", "safetensors", "scipy", "pydantic", "yaml")


@dataclass
class Check:
    """What the parts share: the options, the accelerator, the lines of the table, and the time that is left."""

    options: argparse.Namespace
    accelerator: Any
    began: float = field(default_factory=time.monotonic)
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def left(self) -> float:
        return float(self.options.minutes) * 60 - (time.monotonic() - self.began)

    def say(self, part: str, what: str, result: str) -> None:
        """Add a line to the table, and print it as progress."""
        self.rows.append({"part": part, "what": what, "result": result})
        print(f"[{time.monotonic() - self.began:5.0f} s] {part}: {what}: {result}", file=sys.stderr, flush=True)
        write_results(self)


def main() -> None:
    """Run the parts in their order, each while there is time for it."""
    options = _options()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"missing here: {', '.join(missing)}; the parts that need them are skipped", file=sys.stderr)
    if "torch" in missing or "pydantic" in missing:
        sys.exit("check_gpu: nothing runs without torch and pydantic")
    with tempfile.TemporaryDirectory(prefix="tutelage-house-") as house:
        sys.path[:0] = [str(ROOT), _importable(Path(house))]
        from tutelage.accelerator import find_accelerator, use
        from tutelage.records import InputError

        try:
            accelerator = find_accelerator(options.accelerator)
        except InputError as error:
            sys.exit(f"check_gpu: {error}")
        use(accelerator)
        options.out.mkdir(parents=True, exist_ok=True)
        check = Check(options, accelerator)
        import torch

        check.say("host", "accelerator", f"{accelerator}; torch {torch.__version__}")
        for name, seconds, needs, part in PARTS:
            lacking = [one for one in needs if importlib.util.find_spec(one) is None]
            if lacking:
                check.say(name, "skipped", f"not installed: {', '.join(lacking)}")
            elif check.left < seconds * (0.05 if options.quick else 1):
                check.say(name, "skipped", f"it takes {seconds:g} s, and {check.left:.0f} s are left")
            else:
                _run(check, name, part)
        print(table(check.rows))
        sys.exit(any(row["what"] == "failed" for row in check.rows))


def _run(check: Check, name: str, part: Callable[[Check], None]) -> None:
    """Run a part; what fails in it is a line of the table, so that the others are still run."""
    try:
        part(check)
    except Exception as error:  # noqa: BLE001 - a report of what works on a machine nobody has seen
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        check.say(name, "failed", f"{type(error).__name__}: {reason}")


def table(rows: list[dict[str, str]]) -> str:
    """Give the lines as a Markdown table."""
    lines = ["| part | what | result |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {row['part']} | {row['what']} | {row['result']} |" for row in rows)])


def write_results(check: Check) -> None:
    """Write the lines so far into the --out folder."""
    (check.options.out / "results.json").write_text(json.dumps(check.rows, indent=1))
    (check.options.out / "results.md").write_text(table(check.rows) + "\n")


def per_second(accelerator: Any, work: Callable[[], Any], seconds: float, warm: int = 2) -> float:
    """Give how often a second `work` runs, after `warm` runs, waiting for the device at the end only."""
    for _ in range(warm if seconds > 1 else 1):
        work()
    synchronise(accelerator)
    began, count = time.perf_counter(), 0
    while count < 1 or time.perf_counter() - began < seconds:
        work()
        count += 1
        if count % 4 == 0:
            synchronise(accelerator)
    synchronise(accelerator)
    return count / (time.perf_counter() - began)


def synchronise(accelerator: Any) -> None:
    """Wait until a GPU has done what it was given."""
    if accelerator.kind != "cpu":
        import torch

        getattr(torch, accelerator.kind).synchronize()


def gpu_tests(check: Check) -> None:
    """Run the tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    last = [line for line in done.stdout.splitlines() if line.strip()]
    what = "failed" if done.returncode else "marked gpu"
    check.say("tests", what, last[-1] if last else f"pytest ended with {done.returncode}")


def supernet_steps(check: Check) -> None:
    """Time steps of the supernet at 32 and 224 px: float32, bf16, compiled, and by the package's own modules."""
    from supernet_timing import ofa_step, our_step

    quick, seconds = check.options.quick, 0.2 if check.options.quick else 3.0
    for side, batch in ((32, 8),) if quick else ((32, 256), (224, 64)):
        for label, changes in (("float32", {}), ("bf16", {"bf16": True}), ("bf16, compiled", {"compile": True})):
            if "compile" in changes and (quick or check.left < 150):
                check.say("supernet", f"{side} px, {label}", "skipped: toy sizes or little time left")
                continue
            rate = per_second(check.accelerator, our_step(check.accelerator, side, batch, **changes), seconds)
            check.say("supernet", f"{side} px, batch {batch}, {label}", f"{rate:.3g} steps/s")
        rate = per_second(check.accelerator, ofa_step(check.accelerator, side, batch), seconds)
        check.say("supernet", f"{side} px, batch {batch}, float32, the ofa package's modules", f"{rate:.3g} steps/s")


def scoring(check: Check) -> None:
    """Time the scoring of random subnets: batch norm calibrated, then one pass over the images."""
    import numpy as np
    import torch

    from tutelage.search.spaces.space import SPACES
    from tutelage.search.supernet import build_supernet, score_subnets

    space, quick = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,)), check.options.quick
    net = check.accelerator.place(build_supernet(space, 10, 3))
    images, labels = torch.randn(16 if quick else 2000, 3, 32, 32), torch.arange(16 if quick else 2000) % 10
    archs = space.decode(space.random(2 if quick else 40, np.random.default_rng(0)))
    calibration = list(torch.split(images[:512], 256))
    score_subnets(net, archs[:1], calibration, images, labels)
    began = time.perf_counter()
    score_subnets(net, archs, calibration, images, labels)
    check.say("scoring", f"{len(images)} images, 32 px", f"{len(archs) / (time.perf_counter() - began):.3g} subnets/s")


def latency(check: Check) -> None:
    """Time subnets eagerly and compiled, fit the latency model of `device add`, and say its error on unseen nets."""
    from supernet_timing import timed_subnets

    from tutelage.bench.latency.model import LatencyModel

    for compiled in (False, True):
        name = "torch-compiled" if compiled else "torch"
        if compiled and (check.options.quick or check.left < 90):
            check.say("latency", name, "skipped: toy sizes or little time left")
            continue
        for batch in (1, 4) if check.options.quick else (1, 64):
            archs, ms = timed_subnets(check.accelerator, batch, compiled, check.options.quick)
            seen = len(archs) * 2 // 3
            model = LatencyModel()
            model.fit(archs[:seen], ms[:seen])
            error = abs(model.predict(archs[seen:])[0] / ms[seen:] - 1).mean()
            check.say(
                "latency",
                f"{name}, batch {batch}, {'CUDA events' if check.accelerator.kind == 'cuda' else 'wall clock'}",
                f"{min(ms):.3g} to {max(ms):.3g} ms; error on {len(ms) - seen} unseen nets {error:.1%}",
            )


def family(check: Check) -> None:
    """Train as much of a family on CIFAR-10 images as the time allows: supernet, teacher, students with controls."""
    from cifar_family import train_family

    train_family(check)


# Name, the seconds that must be left, what it needs beside torch, and the part.
PARTS: tuple[tuple[str, float, tuple[str, ...], Callable[[Check], None]], ...] = (
    ("tests", 60, ("pytest", "ofa", "timm", "accelerate"), gpu_tests),
    ("supernet", 60, ("ofa", "safetensors"), supernet_steps),
    ("scoring", 20, ("ofa", "safetensors", "scipy"), scoring),
    ("latency", 30, ("ofa", "scipy", "yaml"), latency),
    ("family", 40, ("ofa", "timm", "accelerate", "safetensors", "sklearn", "yaml"), family),
)


def images_of(path: Path | None, quick: bool) -> tuple[Any, Any, str]:
    """Read images uint8 (n, 32, 32, 3) and labels int64 (n,), at most 10,000, and say what they are."""
    import numpy as np

    most = 80 if quick else 10_000
    if path is None:
        rng = np.random.default_rng(0)
        labels = np.arange(most) % 10
        images = rng.integers(0, 128, (most, 32, 32, 3), dtype=np.uint8) + (12 * labels)[:, None, None, None]
        return images.astype(np.uint8), labels.astype(np.int64), "synthetic images"
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays["images"][:most], arrays["labels"][:most].astype(np.int64).ravel(), path.name
    import pyarrow.parquet as parquet
    from PIL import Image

    rows = parquet.read_table(path).slice(0, most).to_pydict()
    pictures = rows.get("img") or rows["image"]
    decoded = [np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in pictures]
    return np.stack(decoded), np.asarray(rows["label"], dtype=np.int64), path.name


def _importable(house: Path) -> str:
    """Lay links as the package is when it is installed: `tutelage.search` is the folder `search`."""
    package = house / "tutelage"
    package.mkdir()
    for entry in (ROOT / "tutelage").iterdir():
        (package / entry.name).symlink_to(entry)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    return str(house)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", help="cuda, cuda:N, mps or cpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="no part is begun that would end later")
    parser.add_argument("--data", type=Path, help="an .npz or parquet file of CIFAR-10 images")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of results and checkpoints")
    parser.add_argument("--quick", action="store_true", help="toy sizes: says nothing about speed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.modules["check_gpu"] = sys.modules["__main__"]
    main()
