"""Search once under a FLOPs budget and once a device under its latency budget, then measure who keeps the budgets.

    python tests/benchmarks/budget_fronts.py --data DIR --workspace DIR [--resolution 160]
        [--runtimes onnxruntime,openvino]

All searches have the same strategy, seed and number of evaluations. Accuracy is a surrogate's: kernel ridge on the
public ImageNet table of `--data` (accuracy/*.csv, 224 px), nothing is trained here. Latency is real: models are made
and winners measured on this host, one thread, with random weights. A device's budget is what nets at the FLOPs budget
typically take on it (the median of the model's predictions), as one who budgets in FLOPs would expect.
What is done is kept in `--workspace`, so a run that was stopped goes on. Leaves budget-fronts.png and .json there.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latency_host import export, export_block
from search_strategies import Surrogate, read_table

from tutelage.bench.latency.calibrate import calibrate, combine_sessions, measure_nets
from tutelage.bench.latency.model import LatencyModel
from tutelage.records import Arch, DeviceProfile
from tutelage.search.costs.counts import count
from tutelage.search.loop import Objective, search
from tutelage.search.spaces.space import Space, find_space

SPACE = "ofa_mbv3_w1.0"
# The FLOPs budget: this share of the way from the smallest to the largest subnet.
BUDGET_SHARE = 0.35
# Random nets within this share of the FLOPs budget say what it typically is in ms.
NEAR = 0.05
SESSIONS = 2
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}


def latency_model(runtime: str, space: Space, folder: Path, minutes: float) -> LatencyModel:
    """Make the runtime's latency model, or read the one that an earlier run left."""
    path = folder / f"{runtime}.latency.json"
    if not path.exists():
        found = calibrate(
            DeviceProfile(name="here", runtime=runtime), space, num_classes=1000, in_channels=3, export=export,
            export_block=export_block, minutes=minutes, num_nets=10, max_nets=16, kept=folder / "converted",
        )  # fmt: skip
        found.model.save(path)
        print(f"{runtime}: model of {len(found.nets)} nets in {found.seconds:.0f} s, leave-one-out error "
              f"{found.model.error:.2%}, label noise {found.label_noise:.2%}", flush=True)  # fmt: skip
    return LatencyModel.load(path)


def find_winners(
    path: Path, space: Space, surrogate: Surrogate, evaluations: int, seed: int, **bound: Any
) -> list[Arch]:
    """Run one search over error and one cost, under a bound on that cost; returns the finalists, and keeps them."""
    if path.exists():
        return [Arch.from_dict(row) for row in json.loads(path.read_text())]
    (name, (limit, predict)), *_ = bound.items()
    objectives = [Objective(name, "min", predict), Objective("error", "min", surrogate.error, cheap=False)]
    result = search(space, objectives, {name: limit}, evaluations=evaluations, seed=seed, num_finalists=12)
    archs = [result.evaluated[index].arch for index in result.finalists]
    path.write_text(json.dumps([arch.to_dict() for arch in archs]))
    print(f"{path.stem}: {len(archs)} winners of {len(result.evaluated)} evaluations", flush=True)
    return archs


def typical_ms(space: Space, model: LatencyModel, macs: float) -> float:
    """Give the median predicted latency of random nets whose MACs are near the budget."""
    archs = space.decode(space.random(4000, np.random.default_rng(0)))
    cost = count(archs).macs
    near = [arch for arch, macs_of in zip(archs, cost, strict=True) if abs(macs_of / macs - 1) <= NEAR]
    return float(np.median(model.predict(near)[0]))


def measured_ms(runtime: str, archs: Sequence[Arch], folder: Path) -> list[float]:
    """Measure nets in two interleaved sessions, freshly loaded in each; keeps the result by arch."""
    path = folder / f"{runtime}.measured.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    if any(arch.id not in known for arch in archs):
        sessions = []
        for seed in range(SESSIONS):
            order = np.random.default_rng(seed).permutation(len(archs))
            _, ms = measure_nets(
                DeviceProfile(name="here", runtime=runtime), [archs[index] for index in order],
                in_channels=3, export=export, seed=seed, kept=folder / "converted",
            )  # fmt: skip
            sessions.append({archs[index].id: float(np.log(value)) for index, value in zip(order, ms, strict=True)})
        known, noise = combine_sessions(sessions)
        print(
            f"{runtime}: {len(archs)} winners measured, label noise {np.median(list(noise.values())):.2%}", flush=True
        )
        path.write_text(json.dumps(known))
    return [known[arch.id] for arch in archs]


def draw(fronts: list[dict[str, Any]], path: Path, note: str) -> None:
    """Draw the measured fronts side by side: what the FLOPs search found, what the device's own search found."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from tutelage.leaderboard.plots.front import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(fronts), figsize=(2.35 * len(fronts), 3.1), sharey=True, squeeze=False)
        for axis, front in zip(axes[0], fronts, strict=True):
            for key, colour, marker, label in (
                ("flops", "#D55E00", "s", "searched under FLOPs"),
                ("latency", "#0072B2", "o", "searched under ms"),
            ):
                ms, top1 = np.array(front[key]["ms"]), np.array(front[key]["top1"])
                over = ms > front["budget_ms"]
                axis.scatter(ms[~over], top1[~over], s=14, c=colour, marker=marker, label=label)
                axis.scatter(ms[over], top1[over], s=14, facecolors="none", edgecolors=colour, marker=marker)
            axis.axvline(front["budget_ms"], color="#444444", linewidth=0.8, linestyle="--")
            axis.set_title(
                f"{front['title']}\n{front['broke']} of {front['winners']} break {front['budget_ms']:.2f} ms"
            )
            axis.set_xlabel("latency, measured (ms)")
        axes[0][0].set_ylabel("ImageNet top-1, surrogate (%)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, bbox_to_anchor=(0.5, 0.1))
        lines = textwrap.wrap(note, 30 * len(fronts))
        figure.text(0.5, 0.01, "\n".join(lines), fontsize=6, color="#444444", ha="center", va="bottom")
        figure.tight_layout(rect=(0, 0.17, 1, 1))
        figure.savefig(path)
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds accuracy/*.csv")
    parser.add_argument("--workspace", type=Path, default=Path("tutelage-workspace/budget-fronts"))
    parser.add_argument("--resolution", dest="side", type=int, default=160)
    parser.add_argument("--runtimes", default="onnxruntime,openvino,litert", help="comma-separated")
    parser.add_argument("--evaluations", type=int, default=200, help="of every search")
    parser.add_argument("--minutes", type=float, default=3.0, help="for each latency model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-after", choices=["models", "winners"], help="leave the rest to a later run")
    options = parser.parse_args(arguments)
    folder = options.workspace
    folder.mkdir(parents=True, exist_ok=True)
    space = find_space(SPACE).with_resolutions((options.side,))
    surrogate = Surrogate(*read_table(options.data))
    low, high = (float(value) for value in count([space.smallest(), space.largest()]).macs)
    macs = low + BUDGET_SHARE * (high - low)
    runtimes = options.runtimes.split(",")
    models = {runtime: latency_model(runtime, space, folder, options.minutes) for runtime in runtimes}
    if options.stop_after == "models":
        return
    by_flops = find_winners(
        folder / "flops.winners.json", space, surrogate, options.evaluations, options.seed, macs=(macs, None)
    )
    fronts = []
    for runtime, model in models.items():
        budget = typical_ms(space, model, macs)

        def upper(archs: Sequence[Arch], model: LatencyModel = model) -> np.ndarray:
            return model.predict(archs)[2]

        own = find_winners(
            folder / f"{runtime}.winners.json",
            space,
            surrogate,
            options.evaluations,
            options.seed,
            latency_ms=(budget, upper),
        )
        if options.stop_after == "winners":
            continue
        both = list(dict.fromkeys([*by_flops, *own]))
        ms = dict(zip(both, measured_ms(runtime, both, folder), strict=True))
        front: dict[str, Any] = {"runtime": runtime, "title": TITLES.get(runtime, runtime), "budget_ms": budget}
        for key, archs in (("flops", by_flops), ("latency", own)):
            front[key] = {"ms": [ms[arch] for arch in archs], "top1": (100 - surrogate.error(archs)).tolist(),
                          "macs": count(archs).macs.tolist(), "archs": [arch.to_dict() for arch in archs]}  # fmt: skip
        front["winners"], front["broke"] = len(by_flops), int(sum(ms[arch] > budget for arch in by_flops))
        front["own_broke"] = int(sum(ms[arch] > budget for arch in own))
        predicted = model.predict(both)[0]
        front["error"] = float(np.mean(np.abs(predicted / np.array([ms[arch] for arch in both]) - 1)))
        fronts.append(front)
    if not fronts:
        return
    note = (f"{options.side} px, 1 thread, batch 1; budget {macs / 1e6:.0f} M MACs and its typical latency; "
            f"{options.evaluations} evaluations each; hollow: over the budget; top-1 by a surrogate of the public "
            "224 px table")  # fmt: skip
    (folder / "budget-fronts.json").write_text(json.dumps({"macs": macs, "fronts": fronts}, indent=1))
    draw(fronts, folder / "budget-fronts.png", note)
    print(note)
    print("| device | budget ms | FLOPs winners that break it | its own winners that break it "
          "| best top-1 within it: FLOPs / ms | model's error on the winners |\n|---|---|---|---|---|---|")  # fmt: skip
    for front in fronts:
        best = []
        for key in ("flops", "latency"):
            kept = [t for t, ms in zip(front[key]["top1"], front[key]["ms"], strict=True) if ms <= front["budget_ms"]]
            best.append(f"{max(kept):.2f}" if kept else "none")
        print(f"| {front['title']} | {front['budget_ms']:.2f} | {front['broke']} of {front['winners']} "
              f"| {front['own_broke']} of {len(front['latency']['ms'])} | {' / '.join(best)} "
              f"| {front['error']:.1%} |")  # fmt: skip


if __name__ == "__main__":
    main()
