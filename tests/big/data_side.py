"""Measure the data side of a recipe on a collection: listing, decoding, a kill, a bad file, validation, soft targets.

    python tests/big/data_side.py chestxray14 FOLDER --size 224 --channels 1

Each step runs in a process of its own and gives seconds, CPU seconds and peaks of memory: `anon` is what the process
holds itself, `rss` counts pages of files as well, which the system takes back where it needs memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from tutelage.distill.data.loader import InOrder, Loader
from tutelage.distill.data.registry import load_dataset, open_images, request_for
from tutelage.distill.evaluation.evaluate import evaluate
from tutelage.distill.training.soft_target_store import LogitStore
from tutelage.distill.training.validation import validate

Step = Callable[[argparse.Namespace], dict[str, Any]]


def _load(given: argparse.Namespace, **more: Any) -> Any:
    workers = os.cpu_count() or 1
    return load_dataset(
        given.name, path=given.folder, size=given.size, channels=given.channels, cache=given.cache, workers=workers,
        **more,
    )  # fmt: skip


def listed(given: argparse.Namespace) -> dict[str, Any]:
    """List the files by the tables."""
    request = request_for(given.name, path=given.folder, size=given.size, channels=given.channels)
    return {"images": len(getattr(open_images(request), "paths", ()))}


def decoded(given: argparse.Namespace) -> dict[str, Any]:
    """Decode all images into the cache, or open what is there."""
    return {"images": len(_load(given).images)}


def bad_file(given: argparse.Namespace) -> dict[str, Any]:
    """Open the set with one damaged file: all others are taken from the cache."""
    data = _load(given, skip_bad=True)
    return {"images": len(data.images), "memory_map": isinstance(data.images, np.memmap)}


def validated(given: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a small network on the validation split as a training does, a batch in memory at a time."""
    data = _load(given, skip_bad=True)
    last = nn.Linear(16 * given.channels, len(data.class_names))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), last)
    validate(network, InOrder(data, "val", 256, workers=1), data.multi_label)
    return {"images": len(data.splits["val"])}


def trained(given: argparse.Namespace) -> dict[str, Any]:
    """Read 50 batches as a training does: shuffled, augmented."""
    loader = Loader(_load(given, skip_bad=True), "train", 64, augment="flip", shuffle=True, workers=1)
    images = 0
    for number, batch in enumerate(loader.epoch(0)):
        images += len(batch.images)
        if number == 49:
            break
    return {"images": images}


def soft_targets(given: argparse.Namespace) -> dict[str, Any]:
    """Store a teacher's outputs of every training image under one augmentation, and read them in another object."""
    data = _load(given, skip_bad=True)
    places = data.splits["train"]
    with TemporaryDirectory() as folder:
        keys = np.stack([places, np.zeros_like(places)], axis=1)
        values = np.random.default_rng(0).standard_normal((len(keys), len(data.class_names))).astype(np.float32)
        store = LogitStore(Path(folder), {})
        for start in range(0, len(keys), 64):
            store.append(keys[start : start + 64], values[start : start + 64])
        found, read = LogitStore(Path(folder), {}).find(keys)
        assert found.all()
        assert np.array_equal(read, values)
        return {"images": len(keys), "bytes_an_image": store.path.stat().st_size / len(keys)}


def bootstrap(given: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the test split with 1000 resamples of patients."""
    data = _load(given, skip_bad=True)
    places, rng = data.splits["test"], np.random.default_rng(0)
    probs = rng.random((len(places), len(data.class_names)))
    evaluate(probs, data.labels[places], data.groups[places], multi_label=True, bootstrap=1000)
    return {"images": len(places)}


STEPS: dict[str, Step] = {
    step.__name__: step for step in (listed, decoded, bad_file, validated, trained, soft_targets, bootstrap)
}


def _peak_anon(stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(0.02):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak[0] = max(peak[0], int(fields["RssAnon"].split()[0]) * 1024)


def _run_step(given: argparse.Namespace) -> None:
    stop, peak = threading.Event(), [0]
    watch = threading.Thread(target=_peak_anon, args=(stop, peak))
    watch.start()
    began, cpu = time.perf_counter(), time.process_time()
    found = STEPS[given.step](given)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    watch.join()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**found, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
                      "anon_mb": round(peak[0] / 1e6), "rss_mb": round(rss / 1e6)}))  # fmt: skip


def _spawn(given: argparse.Namespace, step: str) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, given.name, str(given.folder), "--size", str(given.size),
             "--channels", str(given.channels), "--cache", str(given.cache), "--step", step]  # fmt: skip
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def _say(given: argparse.Namespace, step: str, title: str) -> dict[str, Any]:
    text = _spawn(given, step).communicate()[0]
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    rate = f", {found['images'] / found['seconds']:,.0f} images/s" if found["seconds"] else ""
    print(f"{title:34} {json.dumps(found)}{rate}", flush=True)
    return found


def _killed(given: argparse.Namespace, part: float, num: int) -> None:
    """Begin to decode and kill the process when a part of the images is on the disk."""
    process = _spawn(given, "decoded")
    row = given.size**2 * given.channels
    while process.poll() is None:
        done = [file.stat().st_size // row for file in given.cache.rglob(".partial-*/images.npy")]
        if done and done[0] >= part * num:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    process.communicate()
    print(f"killed after {done[0] if done else 0} of {num} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("big-cache"), help="a new folder, removed at the end")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        _run_step(given)
        return
    if given.cache.exists():
        raise SystemExit(f"{given.cache} exists: name a new folder with --cache")
    try:
        num = _say(given, "listed", "list the files")["images"]
        _killed(given, 0.5, num)
        _say(given, "decoded", "decode the rest after the kill")
        _say(given, "decoded", "open the cache")
        victim = sorted(file for file in given.folder.rglob("*") if file.suffix in (".png", ".jpg"))[num // 2]
        content = victim.read_bytes()
        try:
            victim.write_bytes(content[:60])
            for step, title in (
                ("bad_file", "one damaged file, left out"), ("bad_file", "the same, opened"),
                ("validated", "validate a network"), ("trained", "50 shuffled batches of 64"),
                ("soft_targets", "soft targets of the training split"), ("bootstrap", "test figures, 1000 resamples"),
            ):  # fmt: skip
                _say(given, step, title)
        finally:
            victim.write_bytes(content)
    finally:
        shutil.rmtree(given.cache, ignore_errors=True)


if __name__ == "__main__":
    main()
