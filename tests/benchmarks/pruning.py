"""Cut channels out of a larger student, or search for a smaller one? Both roads on PneumoniaMNIST at equal latency.

    python tests/benchmarks/pruning.py --data DIR [--parent EEEA-Net-C2] [--epochs 8] [--tune 4] [--shares .2 .4 .65]
        [--evaluations 40] [--seeds 2] [--importance magnitude] [--tolerance .1] [--threads 1] [--keep FOLDER]

DIR holds `pneumoniamnist.npz` (MedMNIST v2); only its training and validation splits are read. For each seed a parent
is trained for `--epochs`, and so is a supernet of the space it lies in. The parent is pruned to shares of its MACs, and
what these networks take in ONNX Runtime becomes the budgets of one search by (error, latency). Then pruned networks and
the best subnet under each budget, with its inherited weights, are tuned for `--tune` epochs on one schedule, the same
batches in the same order. The search sees one half of the validation images; figures are taken on the other half and on
both. All files of all seeds are timed in one interleaved session. Differences are searched minus pruned by a paired
test of the files, seeds averaged. `--keep` holds all that was done, to go on from.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from int8_search import Setting, prepare, search, show
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn

from tutelage.bench.protocol.measure import measure
from tutelage.distill.evaluation.paired import FileFigures, compare_files, file_figures, mean_figures
from tutelage.pipeline.stages.training import TrainInputs, fit, network_input, schedule_part
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.quant.export.onnx_export import export_onnx
from tutelage.quant.prune.prune import Importance, count_params, macs, prune, prune_to
from tutelage.quant.run import run_onnx
from tutelage.records import Arch, Student
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.supernet import build_arch, extract

WEIGHTS, MODEL = "weights.safetensors", "model.onnx"


@dataclass(frozen=True)
class Net:
    """One trained network: the road it came by, the budget it was to meet, and what it costs."""

    road: str
    seed: int
    budget_ms: float
    folder: Path
    params: int
    macs: float
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.road}-{self.seed}-{self.budget_ms:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parent", default="EEEA-Net-C2", help="a preset of the searched space's family, or `largest`")
    parser.add_argument("--epochs", type=int, default=8, help="of the parent and of the supernet")
    parser.add_argument("--tune", type=int, default=4, help="epochs of the pruned networks and of the subnets")
    parser.add_argument("--shares", type=float, nargs="+", default=(0.2, 0.4, 0.65), help="of the parent's MACs")
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--importance", choices=get_args(Importance), default="magnitude")
    parser.add_argument("--tolerance", type=float, default=0.1, help="of the timings; more where the host is busy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pruning-") as scratch:
        folder = options.keep or Path(scratch)
        settings, nets = [], []
        for seed in range(options.seeds):
            setting = prepare(
                folder,
                options.data,
                threads=options.threads,
                tolerance=options.tolerance,
                changes=(f"supernet.epochs={options.epochs}",),
                seed=seed,
            )
            settings.append(setting)
            nets += both_roads(setting, seed, options)
        report(settings[0], nets)


def both_roads(setting: Setting, seed: int, options: argparse.Namespace) -> list[Net]:
    """Train the parent, prune it, search under the latencies that came out, and tune what both roads give."""
    ctx, space = setting.ctx, setting.supernet.space
    side = space.resolutions[0]
    shape = (2, ctx.channels, side, side)
    arch = space.largest() if options.parent == "largest" else place(PRESETS[options.parent], space, side)
    parent = distilled(
        setting, "parent", 0.0, options.epochs, lambda: fresh(setting, arch), {"arch": arch.to_dict()}, shape
    )
    ratios, budgets = pruned_ratios(setting, parent, arch, shape, options)
    found = search(setting, "fp32", seed, options.evaluations, ctx.workspace.path)
    predicted = setting.device.model.predict([row.arch for row in found.evaluated])[0]
    errors = np.array([next(iter(row.measured.values())) for row in found.evaluated])
    nets = [parent]
    for ratio, budget in zip(ratios, budgets, strict=True):
        cut = {"parent": parent.folder.name, "ratio": ratio, "importance": options.importance}
        nets.append(
            distilled(
                setting, "pruned", budget, options.tune,
                lambda ratio=ratio: pruned(setting, parent, arch, ratio, shape, options.importance), cut, shape,
            )
        )  # fmt: skip
        within = np.flatnonzero(predicted <= budget)
        best = within[np.lexsort((predicted[within], errors[within]))[0]] if len(within) else int(predicted.argmin())
        chosen = found.evaluated[best].arch
        inherited = {"supernet": setting.supernet.part.weights.sha256, "arch": chosen.to_dict()}
        nets.append(
            distilled(
                setting, "searched", budget, options.tune,
                lambda chosen=chosen: extract(setting.supernet.load(ctx), chosen), inherited, shape,
            )
        )  # fmt: skip
    return nets


def fresh(setting: Setting, arch: Arch) -> nn.Module:
    ctx = setting.ctx
    return build_arch(arch, ctx.num_classes, ctx.channels, seed=ctx.seed("student"))


def pruned(
    setting: Setting, parent: Net, arch: Arch, ratio: float, shape: tuple[int, ...], importance: Any
) -> nn.Module:
    """Cut the trained parent by a ratio, as it was cut when the ratio was found."""
    return prune(trained(setting, parent, arch), shape, ratio, importance=importance, batch=weighing(setting))


def trained(setting: Setting, parent: Net, arch: Arch) -> nn.Module:
    model = fresh(setting, arch)
    model.load_state_dict(load_file(parent.folder / WEIGHTS))
    return model.eval()


def weighing(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Give training images by which channels are weighed where gradients are asked for."""
    ctx = setting.ctx
    return ctx.split("train", None, np.arange(ctx.recipe.distill.batch_size))


def pruned_ratios(
    setting: Setting, parent: Net, arch: Arch, shape: tuple[int, ...], options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Find the ratios that leave the asked shares of MACs, and time what is left: milliseconds as the model tells them.

    Time does not depend on weights, so it is known before tuning.
    """
    ctx = setting.ctx

    def work(folder: Path) -> dict[str, Any]:
        model = trained(setting, parent, arch)
        whole, files, ratios = macs(model, shape), {}, []
        for share in sorted(options.shares):
            cut, pruned = prune_to(
                model, shape, share * whole, importance=options.importance, batch=weighing(setting)
            )  # fmt: skip
            ratios.append(pruned.ratio)
            files[str(share)] = folder / f"{share}.onnx"
            export_onnx(cut, files[str(share)], (1, *shape[1:]))
        ms = timed(setting, files)
        return {"ratios": ratios, "ms": [ms[name] for name in files]}

    inputs = {"parent": parent.folder.name, "shares": sorted(options.shares), "importance": options.importance}
    found = ctx.workspace.stage("prune", inputs, work).result
    return found["ratios"], found["ms"]


def distilled(
    setting: Setting,
    road: str,
    budget: float,
    epochs: int,
    start: Callable[[], nn.Module],
    inputs: dict[str, Any],
    shape: tuple[int, ...],
) -> Net:
    """Train what `start` gives on the recipe's schedule for students, labels only, and file it as ONNX."""
    ctx = setting.ctx
    schedule = ctx.recipe.distill.model_copy(update={"epochs": epochs})
    seed, network = ctx.recipe.seed, network_input(Student(model=f"{road} {budget:.3f} ms", role="student"))
    training = TrainInputs(
        title=f"train {network.model}", versions={}, images=ctx.images_input, augment=ctx.augment_input,
        accelerator=ctx.accelerator_input(trains=True, compiles=True), network=network, start=None, freeze=False,
        layer_decay=None, head=1, statistics=1, schedule=schedule_part(schedule), distillation=None, seed=seed,
        role="student", repeat=0, place="distill",
    )  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        model, started = start(), time.process_time()
        fit(training, ctx, model, folder / CHECKPOINT)
        seconds = time.process_time() - started
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
        export_onnx(model, folder / MODEL, (1, *shape[1:]))
        return {"params": count_params(model), "macs": macs(model, shape), "seconds": seconds}

    stage = ctx.workspace.stage(road, {**training.key_values(), **inputs}, work)
    return Net(road, seed, budget, stage.folder, **stage.result)


def timed(setting: Setting, files: dict[str, Path]) -> dict[str, float]:
    """Time files in one session: milliseconds on the scale that the device's latency model was made on."""
    ctx, device = setting.ctx, setting.device
    side = setting.supernet.space.resolutions[0]
    found = measure(
        files,
        device.profile,
        (ctx.channels, side, side),
        tolerance=ctx.recipe.measure.tolerance,
        anchor_ms=device.model.anchor_ms,
        progress=lambda text, done, total: show("measure", done, total),
    )
    return {name: float(value.anchored_ms or value.p50_ms) for name, value in found.items()}


def report(setting: Setting, nets: Sequence[Net]) -> None:
    """Time every file of every seed together and print the figures, then the differences at each budget."""
    ctx = setting.ctx
    ms = timed(setting, {net.name: net.folder / MODEL for net in nets})
    seen = ctx.split("val")
    images = torch.cat([setting.unseen[0], seen[0]])
    labels = torch.cat([setting.unseen[1], seen[1]]).numpy()
    unseen = len(setting.unseen[1])
    logits = {
        net.name: run_onnx(net.folder / MODEL, images.numpy(), threads=ctx.threads).astype(np.float64) for net in nets
    }
    scores = {name: value[:, 1] - value[:, 0] for name, value in logits.items()}
    print(f"\n{unseen} validation images that no search saw, of {len(labels)}")
    print("seed | road | budget ms | ms | M MACs | M parameters | training s | unseen: AUC | error | all: AUC | error")
    for net in nets:
        cells = [
            f"{auc(scores[net.name][:size], labels[:size]):.4f} | {wrong(scores[net.name][:size], labels[:size]):.4f}"
            for size in (unseen, len(labels))
        ]
        budget = f"{net.budget_ms:.3f}" if net.budget_ms else "-"
        costs = f"{ms[net.name]:.3f} | {net.macs / 1e6:.2f} | {net.params / 1e6:.2f} | {net.seconds:.0f}"
        print(f"{net.seed} | {net.road} | {budget} | {costs} | {' | '.join(cells)}")
    places = sorted({net.budget_ms for net in nets if net.seed == 0 and net.budget_ms})
    print(
        "\nsearched minus pruned, means over seeds, unseen images; ms as a ratio; 95 % intervals over images: how the"
    )
    print("files at hand differ, not what another seed would give")
    print("budget (seed 0) ms | ms searched / pruned | AUC | accuracy")
    roads = {
        road: [sorted((n for n in nets if n.seed == seed and n.road == road), key=lambda n: n.budget_ms)
               for seed in sorted({net.seed for net in nets})]
        for road in ("pruned", "searched")
    }  # fmt: skip
    for place_, budget in enumerate(places):
        pairs = [(b[place_], a[place_]) for a, b in zip(roads["pruned"], roads["searched"], strict=True)]
        ratio = float(np.mean([ms[one.name] / ms[other.name] for one, other in pairs]))
        sides = [mean_figures([figures(scores[one.name][:unseen], labels[:unseen]) for one in side])
                 for side in zip(*pairs, strict=True)]  # fmt: skip
        cells = [test.text for test in compare_files(sides[0], sides[1], num_seeds=len(pairs)).values()]
        print(f"{budget:.3f} | {ratio:.3f} | {' | '.join(cells)}")


def auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(roc_auc_score(labels, scores))


def wrong(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(((scores > 0) != (labels == 1)).mean())


def figures(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> FileFigures:
    """Give AUC and accuracy of scores `(n,)`, positive for the second class, with what a paired test needs."""
    second = 1 / (1 + np.exp(-scores))
    return file_figures(np.stack([1 - second, second], 1), labels)


if __name__ == "__main__":
    main()
