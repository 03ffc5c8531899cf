"""Check training, scoring and timing on a GPU in at most six minutes and print a Markdown table: `make check-gpu`.

It runs in a bare checkout (nothing installed but what follows, no network): torch >= 2.10 and torchvision, numpy, ofa
(the supernet's layers), timm, accelerate, safetensors, scipy, scikit-learn, pydantic and pyyaml, for `device add` rich
and SQLAlchemy. pyarrow reads a parquet file, pytest runs the tests marked `gpu`. A part whose package is missing is
skipped, and its line says so.

    python tests/gpu/check_gpu.py --data cifar10-10k.npz --out gpu-check       # on a GPU; again: it goes on
    python tests/gpu/check_gpu.py --accelerator cpu --quick                    # toy sizes, to test the script itself

Called again with the same --out, card, versions and code it keeps what was finished and goes on with the rest.

--data is an .npz with `images` (n, 32, 32, 3) uint8 and `labels` (n,), or a parquet file with the columns `img` (or
`image`) and `label` as the hub has CIFAR-10; without it images are synthetic, and the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("search", "distill", "quant", "bench", "leaderboard")
NEEDED = ("numpy", "torch", "torchvision", "ofa", "timm", "accelerate", "safetensors", "scipy", "pydantic", "yaml")
FAMILY_SECONDS = 75.0  # what is left to the family by the parts before it


@dataclass
class Check:
    """What the parts share: the options, the accelerator, the lines of the table, and the time that is left."""

    options: argparse.Namespace
    accelerator: Any
    began: float = field(default_factory=time.monotonic)
    rows: list[dict[str, str]] = field(default_factory=list)
    before: list[dict[str, str]] = field(default_factory=list)  # of an earlier call

    @property
    def left(self) -> float:
        minutes = math.inf if self.options.quick else float(self.options.minutes)  # toy sizes say nothing of time
        return minutes * 60 - (time.monotonic() - self.began)

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
        find_package(Path(house))
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

        earlier = options.out / "results.json"
        before = json.loads(earlier.read_text()) if earlier.is_file() else []
        check.say("host", "accelerator", f"{accelerator}; torch {torch.__version__}; code {_code_id()}")
        check.before = before if before[:1] == check.rows else []
        for name, seconds, needs, part in PARTS:
            lacking = [one for one in needs if importlib.util.find_spec(one) is None]
            kept = _finished(check.before, name)
            if name not in options.parts:
                kept = [row for row in check.before if row["part"] == name]
            for row in kept:
                check.say(**row)
            if kept or name not in options.parts:
                continue
            if lacking:
                check.say(name, "skipped", f"not installed: {', '.join(lacking)}")
            elif check.left < seconds:
                check.say(name, "skipped", f"it takes {seconds:g} s, and {check.left:.0f} s are left")
            else:
                _run(check, name, part)
        print(table(check.rows))
        sys.exit(any(row["what"] == "failed" for row in check.rows))


def _finished(rows: list[dict[str, str]], part: str) -> list[dict[str, str]]:
    """Give the lines of a part that an earlier call finished; none of one that failed or lacked something.

    The family has checkpoints of its own.
    """
    own = [row for row in rows if row["part"] == part != "family"]
    open_ends = ("failed", "skipped", "stopped")
    return [] if any(row[of].startswith(open_ends) for row in own for of in ("what", "result")) else own


def _code_id() -> str:
    """Give a digest of the package's code."""
    sources = [path for top in ("tutelage", *ROOMS) for path in sorted((ROOT / top).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


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


def in_turns(accelerator: Any, works: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Give how often a second each of `works` runs, in each of three rounds of `seconds`, after one run that warms up.

    They take turns, so that a card that slows down as it gets warm does so for all.
    """
    for work in works.values():
        for _ in range(2):
            work()
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3):
        for name, work in works.items():
            rates[name].append(per_second(accelerator, work, seconds))
    return rates


def per_second(accelerator: Any, work: Callable[[], Any], seconds: float) -> float:
    """Give how often a second `work` runs, waiting for the device every four runs."""
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
    # -P: the checkout's folder would stand before the package's; conftest.py needs more packages.
    tests = str(Path(__file__).with_name("test_gpu.py"))
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    last = [line for line in done.stdout.splitlines() if line.strip()]
    what = "failed" if done.returncode else "marked gpu"
    check.say("tests", what, last[-1] if last else f"pytest ended with {done.returncode}")


def supernet_steps(check: Check) -> None:
    """Time steps of the supernet at 32 and 224 px: float32, bf16, compiled, and by the package's own modules."""
    from supernet_timing import ofa_step, our_step

    quick, package = check.options.quick, "float32, the ofa package's modules"
    for side, batch in ((32, 8),) if quick else ((32, 256), (224, 64)):
        steps = {package: ofa_step(check.accelerator, side, batch)}
        for label, changes in (("float32", {}), ("bf16", {"bf16": True}), ("bf16, compiled", {"compile": True})):
            if "compile" in changes and (quick or check.left < 150):
                check.say("supernet", f"{side} px, {label}", "skipped: toy sizes or little time left")
            else:
                steps[label] = our_step(check.accelerator, side, batch, **changes)
        rates = in_turns(check.accelerator, steps, 0.0 if quick else 1.0)
        for label, found in rates.items():
            ratios = sorted(own / theirs for own, theirs in zip(found, rates[package], strict=True))
            what = f"{side} px, batch {batch}, {label}"
            check.say(
                "supernet", what,
                f"{statistics.median(found):.3g} steps/s, {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f}) times the package's",
            )  # fmt: skip


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


def devices(check: Check) -> None:
    """Add torch and compiled torch as devices, batch 1 and 64, and say their latency models' errors on unseen nets."""
    if check.accelerator.kind == "mps":
        check.say("device", "skipped", "no runtime measures on Apple's GPU")
        return
    on = "-cuda" if check.accelerator.kind == "cuda" else ""
    for runtime in (f"torch{on}", f"torch-compiled{on}"):
        for batch in (1, 64):
            what = f"{runtime}, batch {batch}"
            box = check.left - FAMILY_SECONDS
            if check.options.quick and (runtime, batch) != ("torch", 1):
                check.say("device", what, "skipped: toy sizes")
            elif box < 20:
                check.say("device", what, "skipped: little time left; the same command goes on")
            else:
                figures, end, failed = _device(check, runtime, batch, box)
                result = _described(figures, end, on)
                check.say("device", "failed" if failed else what, f"{what}: {result}" if failed else result)


def _device(check: Check, runtime: str, batch: int, box: float) -> tuple[dict[str, float], str, bool]:
    """Run `device_timing.py` for at most `box` seconds.

    Give the figures that it came to, why it ended early, and whether it failed.
    """
    name, folder = f"{runtime}-{batch}", (check.options.out / "devices").resolve()
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("device_timing.py")
    command = [sys.executable, str(script), "--name", name, "--runtime", runtime, "--batch", str(batch)]
    command += ["--folder", str(folder), *(["--any-noise", "--minutes", "0.1"] if check.options.quick else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")  # a later call does not compile them anew
    if check.accelerator.device.index:  # the runtimes take the first card that they see
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        index = check.accelerator.device.index
        environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[index] if seen else str(index)
    output, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    with output.open("w") as to, log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=to, stderr=errors, start_new_session=True
        )  # fmt: skip
        try:
            code: int | None = process.wait(None if math.isinf(box) else box)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    figures = {key: value for line in output.read_text().splitlines() for key, value in json.loads(line).items()}
    last = (log.read_text().strip().splitlines() or [f"exit code {code}"])[-1]
    if code is None:
        return figures, f"stopped after {box:.0f} s: {last}; the same command goes on", False
    return figures, last if code else "", code != 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process in a session of its own, and the processes that it started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _described(figures: dict[str, float], end: str, on: str) -> str:
    """Say in a line what `device add` came to; first how it ended, where that was early."""
    parts = [end] if end else []
    if "nets" in figures:
        parts.append(
            f"{figures['smallest_ms']:.3g} ms smallest to {figures['largest_ms']:.3g} ms largest subnet "
            f"({'CUDA events' if on else 'wall clock'}); {figures['nets']:.0f} nets, error of each left out "
            f"{figures['error']:.1%}"
        )
    if "unseen_error" in figures:
        parts.append(f"error on unseen nets {figures['unseen_error']:.1%}, {figures['inside']:.0%} in their interval")
    return "; ".join(parts)


def family(check: Check) -> None:
    """Train as much of a family on CIFAR-10 images as the time allows: supernet, teacher, students with controls."""
    from cifar_family import train_family

    train_family(check)


# Name, the seconds that must be left, what it needs beside torch, and the part.
PARTS: tuple[tuple[str, float, tuple[str, ...], Callable[[Check], None]], ...] = (
    ("tests", 60, ("pytest", "ofa", "timm", "accelerate"), gpu_tests),
    ("supernet", 60, ("ofa", "safetensors"), supernet_steps),
    ("scoring", 20, ("ofa", "safetensors", "scipy"), scoring),
    ("device", 110, ("ofa", "scipy", "yaml", "rich", "sqlalchemy", "accelerate", "safetensors"), devices),
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


def find_package(house: Path) -> None:
    """Make the checkout's package importable by links in `house` that lie as when it is installed.

    `tutelage.search` is the folder `search`: in the checkout itself it lies beside the package, so `house` comes first.
    """
    package = house / "tutelage"
    package.mkdir()
    for entry in (ROOT / "tutelage").iterdir():
        (package / entry.name).symlink_to(entry)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    described = house / f"tutelage-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tutelage\nVersion: {version}\n")
    sys.path[:0] = [str(house), str(ROOT)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", help="cuda, cuda:N, mps or cpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="no part is begun that would end later")
    names = ",".join(name for name, *_ in PARTS)
    parser.add_argument("--parts", default=names, help=f"of {names}; what an earlier call found of others is kept")
    parser.add_argument("--data", type=Path, help="an .npz or parquet file of CIFAR-10 images")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of results and checkpoints")
    parser.add_argument("--quick", action="store_true", help="toy sizes: says nothing about speed")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    return options


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.modules["check_gpu"] = sys.modules["__main__"]
    main()
