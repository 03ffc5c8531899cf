"""Is it worth searching on int8 figures? The front found so, against the fp32 front quantized, on PneumoniaMNIST.

    python tests/benchmarks/int8_search.py --data DIR [--evaluations 40] [--seeds 2] [--epochs 2] [--method random]
                                           [--tolerance .1] [--keep FOLDER]

DIR holds `pneumoniamnist.npz` (MedMNIST v2); only its training and validation splits are read. One supernet is trained;
then, for each seed, two searches of equal evaluations: on (error, latency) and on (error@int8, latency@int8), error on
one half of the validation images. Every subnet of both fronts is quantized; its error is taken on the searched half and
on the half that no search saw, and the int8 files of all fronts are timed in one interleaved session. Printed are the
hypervolumes of (int8 ms, int8 error) as shares of a box that ends at the error of always calling the commoner class,
their difference, and its 95 % interval over resampled images. `--keep` holds the supernet, the device profiles and the
searches, and goes on from them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.bench.protocol.measure import measure
from tutelage.dominance import hypervolume
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.device import Device, open_device
from tutelage.pipeline.objectives import Subnets, objectives_of, read_objectives, weighed_devices
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.stages.quantization import Quantization
from tutelage.pipeline.stages.supernet import Supernet, space_of, train_the_supernet
from tutelage.pipeline.workspace import Workspace
from tutelage.quant.run import run_onnx
from tutelage.records import Arch
from tutelage.search import loop as evolve
from tutelage.search.objectives import Objective
from tutelage.search.result import SearchResult

DEVICE = "host-ort"
KINDS = {
    "fp32": ["error", f"latency_ms@{DEVICE}"],
    "int8": ["error@int8", f"latency_ms@{DEVICE}:int8"],
}
RESAMPLES = 1000


@dataclass(frozen=True)
class Setting:
    """The run's context, whose validation split is the searched half; the other half as images and labels."""

    ctx: Context
    supernet: Supernet
    device: Device
    unseen: tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--method", choices=("sandwich", "random", "progressive"), default="random")
    parser.add_argument("--tolerance", type=float, default=0.1, help="of the timings; more where the host is busy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="int8-search-") as scratch:
        folder = options.keep or Path(scratch)
        setting = prepare(
            folder,
            options.data,
            threads=options.threads,
            tolerance=options.tolerance,
            changes=(f"supernet.epochs={options.epochs}", f"supernet.method={options.method}"),
        )
        fronts = {
            (kind, seed): search(setting, kind, seed, options.evaluations, folder)
            for seed in range(options.seeds)
            for kind in KINDS
        }
        report(setting, fronts, folder)


def prepare(
    folder: Path, data: Path, *, threads: int, tolerance: float, changes: Sequence[str] = (), seed: int = 0
) -> Setting:
    """Load the images, measure the device at fp32, and train the supernet; what `folder` holds is taken from there."""
    fixed = [
        f"data.path={data / 'pneumoniamnist.npz'}", "teachers=[]", "supernet.teachers=[]", "baselines=[]",
        f"measure.tolerance={tolerance}", f"devices=[{{name: {DEVICE}, runtime: onnxruntime}}]", f"seed={seed}",
    ]  # fmt: skip
    recipe = load_recipe("pneumoniamnist", [*fixed, *changes])
    ctx = open_context(recipe, Workspace(folder), show, threads)
    images, labels = ctx.split("val")
    halves = [np.arange(len(labels))[start::2] for start in (0, 1)]
    seen = ctx.dataset.indices("val")[halves[0]]
    ctx = replace(ctx, dataset=replace(ctx.dataset, splits={**ctx.dataset.splits, "val": seen}))
    space = space_of(ctx)
    device = open_device(
        ctx.workspace, recipe.devices[0], space, ctx.num_classes, ctx.channels, show, tolerance=tolerance
    )
    supernet = train_the_supernet(ctx, ())
    return Setting(ctx, supernet, device, (images[halves[1]], labels[halves[1]]))


def search(setting: Setting, kind: str, seed: int, evaluations: int, folder: Path) -> SearchResult:
    """Run one search on the figures of `kind`, all else equal."""
    ctx = at(setting.ctx, kind)
    space = setting.supernet.space
    weighed = weighed_devices(ctx, space, [setting.device])
    subnets, how = subnets_of(setting), Quantization.of(ctx.recipe.quantize)
    error = subnets.errors if kind == "fp32" else lambda archs: subnets.int8_errors(archs, how, "onnxruntime")
    objectives: tuple[Objective, ...] = objectives_of(read_objectives(ctx.recipe), weighed, error)
    found = evolve.search(
        space,
        objectives,
        strategy="default",
        evaluations=evaluations,
        seed=seed,
        initial=[space.smallest(), space.largest()],
        checkpoint=folder / f"search-{kind}-{seed}-{evaluations}-{setting.supernet.part.weights.sha256[:12]}.json",
        num_classes=ctx.num_classes,
        in_channels=ctx.channels,
        progress=lambda done, total: show(f"search {kind}, seed {seed}", done, total),
    )
    rate = 60 * len(found.evaluated) / found.scoring_seconds
    print(f"search {kind}, seed {seed}: {len(found.evaluated)} subnets, {rate:.1f} a minute, front {len(found.front)}")
    return found


def report(setting: Setting, fronts: dict[tuple[str, int], SearchResult], folder: Path) -> None:
    """Quantize every subnet of every front, time the int8 files side by side, and print the hypervolumes."""
    archs = {arch.id: arch for found in fronts.values() for arch in front_of(found)}
    files = {name: quantized(setting, arch, folder) for name, arch in archs.items()}
    ctx = at(setting.ctx, "int8")
    profile = weighed_devices(ctx, setting.supernet.space, [setting.device])[0].profile
    side = setting.supernet.space.resolutions[0]
    timed = measure(files, profile, (ctx.channels, side, side), tolerance=ctx.recipe.measure.tolerance)
    ms = {name: float(found.anchored_ms or found.p50_ms) for name, found in timed.items()}
    for title, (images, labels) in {"unseen half": setting.unseen, "searched half": ctx.split("val")}.items():
        wrong = {
            name: np.asarray(run_onnx(path, images.numpy(), threads=ctx.threads)).argmax(1) != labels.numpy()
            for name, path in files.items()
        }
        corner = np.array([1.05 * max(ms.values()), float(min(labels.float().mean(), 1 - labels.float().mean()))])
        print(f"\n{title}: {len(labels)} images; reference {corner[0]:.3f} ms, error {corner[1]:.4f}")
        print("seed | fp32 front quantized | int8 front | difference | 95 % interval")
        for seed in sorted({seed for _, seed in fronts}):
            sets = {kind: [arch.id for arch in front_of(fronts[kind, seed])] for kind in KINDS}
            whole = {kind: volume(sets[kind], ms, wrong, corner) for kind in KINDS}
            low, high = resampled(sets, ms, wrong, corner, seed)
            gain = whole["int8"] - whole["fp32"]
            print(f"{seed} | {whole['fp32']:.4f} | {whole['int8']:.4f} | {gain:+.4f} | {low:+.4f} to {high:+.4f}")
    print("\nkind | seed | arch | int8 ms | searched-half error by the search")
    for (kind, seed), found in fronts.items():
        for index in found.front:
            row = found.evaluated[index]
            error = next(iter(row.measured.values()))
            print(f"{kind} | {seed} | {row.arch.id} | {ms[row.arch.id]:.3f} | {error:.4f}")


def quantized(setting: Setting, arch: Arch, folder: Path) -> Path:
    """Cut a subnet out, set its batch norm as the search does, and file its int8 form."""
    path = folder / f"int8-{setting.supernet.part.weights.sha256[:12]}" / f"{arch.id}.onnx"
    path.parent.mkdir(exist_ok=True)
    if not path.is_file():
        how = Quantization.of(setting.ctx.recipe.quantize)
        subnets_of(setting).int8_file(arch, how, "onnxruntime", path.parent).replace(path)
    return path


def subnets_of(setting: Setting) -> Subnets:
    """Open the subnets of the supernet as a search of the recipe scores them."""
    recipe = setting.ctx.recipe
    batches = recipe.search.calibration_batches
    return Subnets(setting.ctx, setting.supernet.part, recipe.supernet.batch_size, batches, recipe.seed)


def volume(
    names: list[str],
    ms: dict[str, float],
    wrong: dict[str, NDArray[np.bool_]],
    corner: NDArray[np.float64],
    places: NDArray[np.int64] | None = None,
) -> float:
    """Give the hypervolume of (ms, error) as a share of the reference box; `places` resamples the images."""
    errors = [float((wrong[name] if places is None else wrong[name][places]).mean()) for name in names]
    points = np.array([[ms[name], error] for name, error in zip(names, errors, strict=True)])
    return hypervolume(points, corner) / float(np.prod(corner))


def resampled(
    sets: dict[str, list[str]],
    ms: dict[str, float],
    wrong: dict[str, NDArray[np.bool_]],
    corner: NDArray[np.float64],
    seed: int,
) -> tuple[float, float]:
    """Give the 95 % interval of the difference over resampled images, the same for both fronts."""
    rng = np.random.default_rng(seed)
    num = len(next(iter(wrong.values())))
    gains = []
    for _ in range(RESAMPLES):
        places = rng.integers(0, num, num)
        gains.append(volume(sets["int8"], ms, wrong, corner, places) - volume(sets["fp32"], ms, wrong, corner, places))
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def front_of(found: SearchResult) -> list[Arch]:
    return [found.evaluated[index].arch for index in found.front]


def at(ctx: Context, kind: str) -> Context:
    """Give the context whose recipe weighs the figures of `kind`."""
    section = ctx.recipe.search.model_copy(update={"objectives": tuple(KINDS[kind])})
    return replace(ctx, recipe=ctx.recipe.model_copy(update={"search": section}))


def show(text: str, done: int, total: int, *_: Any) -> None:
    if done == total:
        print(f"{text}: done", flush=True)


if __name__ == "__main__":
    main()
