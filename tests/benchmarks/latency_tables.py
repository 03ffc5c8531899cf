"""Print how well latency models do on the public GPU table: `python tests/benchmarks/latency_tables.py DATA_DIR`.

5000 OFA-MobileNetV3 subnets measured on two GPUs (HELP, Lee et al. 2021). Training subnets are chosen by design from
1000 random ones; the model is tested on all the rest; figures are means over 5 draws and both GPUs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from tutelage.bench.latency.features import count_features, design
from tutelage.bench.latency.model import LatencyModel
from tutelage.records import Arch

GPUS = ("2080ti", "titan_rtx")
POOL = 1000


@dataclass(frozen=True)
class Score:
    """Held-out figures of one setting; `mape` in percent, `coverage` of the 90 % intervals as a share."""

    spearman: float
    kendall: float
    mape: float
    coverage: float


def read_table(folder: Path) -> tuple[list[Arch], dict[str, np.ndarray]]:
    """Read the archs and the measured milliseconds, one array a GPU and batch size."""
    with np.load(folder / "latency" / "ofa_mbv3_w1.0_gpus.npz") as table:
        archs = [
            Arch(space="ofa_mbv3_w1.0", ks=ks.tolist(), e=e.tolist(), d=d.tolist(), r=int(r))
            for ks, e, d, r in zip(table["ks"], table["e"], table["d"], table["r"], strict=True)
        ]
        times = {name: table[name].astype(float) for name in table.files if name.endswith("_ms")}
    return archs, times


def score(
    archs: list[Arch], times: dict[str, np.ndarray], batch: int, num: int, by_design: bool = True, draws: int = 5
) -> Score:
    """Fit on `num` subnets and test on the rest; means over draws and GPUs."""
    features, groups = count_features(archs, 1000, 3)
    scores = []
    for draw in range(draws):
        pool = np.random.default_rng(draw).choice(len(archs), POOL, replace=False)
        train = pool[design(features[pool], groups, num)] if by_design else pool[:num]
        rest = np.setdiff1d(np.arange(len(archs)), train)
        for gpu in GPUS:
            ms = times[f"{gpu}_batch{batch}_ms"]
            model = LatencyModel.fit([archs[i] for i in train], ms[train])
            mean, low, high = model.predict([archs[i] for i in rest])
            true = ms[rest]
            scores.append(
                (
                    spearmanr(mean, true).statistic,
                    kendalltau(mean, true).statistic,
                    100 * np.mean(np.abs(mean / true - 1)),
                    np.mean((low <= true) & (true <= high)),
                )
            )
    return Score(*np.mean(scores, axis=0))


def main() -> None:
    archs, times = read_table(Path(sys.argv[1]))
    print("| batch | training subnets | chosen | Spearman | Kendall | MAPE % | 90 % interval covers |")
    print("|---|---|---|---|---|---|---|")
    for batch in (1, 32, 64):
        for num in (20, 50):
            for by_design in (True, False):
                s = score(archs, times, batch, num, by_design)
                how = "by design" if by_design else "at random"
                figures = f"{s.spearman:.3f} | {s.kendall:.3f} | {s.mape:.2f} | {s.coverage:.1%}"
                print(f"| {batch} | {num} | {how} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
