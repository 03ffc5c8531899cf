"""Compare accuracy predictors on the public ImageNet table: Kendall tau overall and inside bins of 20 M MACs.

    python tests/benchmarks/predictor_table.py --data DIR [--splits 5] [--points 100,200,400]

DIR holds `accuracy/*.csv` (see search_strategies.py). Each split draws the training points anew and tests on all the
rest. Beside ours stand MACs alone, a Gaussian process on one-hot genes (dot product + Matérn-5/2, scikit-learn) and
the MLP of the `ofa` package on its own encoding. Coverage is the share of true values inside the 90 % interval.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from search_strategies import SPACE, one_hot, read_table

from tutelage.records import Arch
from tutelage.search.costs.counts import count
from tutelage.search.predict import AccuracyPredictor

Floats = NDArray[np.float64]
# Gives mean and standard deviation (NaN where there is none) of the tested archs.
Predict = Callable[[Sequence[Arch], Floats, Sequence[Arch]], tuple[Floats, Floats]]

BIN_MACS = 20e6
LEAST_IN_BIN = 10
NORMAL_90 = 1.645
NUM_TIMED = 100_000
MLP_STEPS = 150


def tau_in_bins(predicted: Floats, truth: Floats, macs: Floats) -> float:
    """Give the mean tau inside bins of at least ten archs, weighted by their number."""
    bins = (macs // BIN_MACS).astype(int)
    groups = [bins == value for value in np.unique(bins) if (bins == value).sum() >= LEAST_IN_BIN]
    taus = [kendalltau(predicted[group], truth[group])[0] for group in groups]
    return float(np.average(taus, weights=[group.sum() for group in groups]))


def by_ours(train: Sequence[Arch], values: Floats, test: Sequence[Arch]) -> tuple[Floats, Floats]:
    return AccuracyPredictor().fit(train, values).predict(test)


def by_macs(train: Sequence[Arch], values: Floats, test: Sequence[Arch]) -> tuple[Floats, Floats]:
    return count(test).macs.astype(np.float64), np.full(len(test), np.nan)


def by_one_hot_process(train: Sequence[Arch], values: Floats, test: Sequence[Arch]) -> tuple[Floats, Floats]:
    """Fit by the marginal likelihood with restarts: from one start it ends in poor optima on some splits."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    kernel = ConstantKernel(0.01) * DotProduct() + ConstantKernel() * Matern(10.0, (0.5, 500.0), nu=2.5)
    process = GaussianProcessRegressor(
        kernel + WhiteKernel(0.01), normalize_y=True, n_restarts_optimizer=2, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is warned of and does no harm
        process.fit(one_hot(train), values)
    mean, std = process.predict(one_hot(test), return_std=True)
    return mean, std


def by_mlp_of_ofa(train: Sequence[Arch], values: Floats, test: Sequence[Arch]) -> tuple[Floats, Floats]:
    """Train the package's network by Adam, as its authors trained theirs; full batches, standardised targets."""
    import torch
    from ofa.nas.accuracy_predictor import AccuracyPredictor as Mlp
    from ofa.nas.accuracy_predictor import MobileNetArchEncoder

    torch.manual_seed(0)
    encoder = MobileNetArchEncoder(image_size_list=list(SPACE.resolutions))

    def encoded(archs: Sequence[Arch]) -> torch.Tensor:
        rows = [encoder.arch2feature({**arch.to_dict(), "image_size": arch.r}) for arch in archs]
        return torch.tensor(np.array(rows)).float()

    middle, spread = float(values.mean()), float(values.std())
    features, target = encoded(train), torch.tensor((values - middle) / spread).float()
    mlp = Mlp(encoder, device="cpu")
    optimizer = torch.optim.Adam(mlp.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(MLP_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(mlp(features), target).backward()
        optimizer.step()
    with torch.no_grad():
        mean = middle + spread * mlp(encoded(test)).numpy().astype(np.float64)
    return mean, np.full(len(test), np.nan)


PREDICTORS: dict[str, Predict] = {
    "ours": by_ours,
    "GP on one-hot": by_one_hot_process,
    "MLP of ofa": by_mlp_of_ofa,
    "MACs alone": by_macs,
}


def figures(predict: Predict, archs: Sequence[Arch], top1: Floats, points: int, splits: int) -> Floats:
    """Give (tau, tau inside bins, coverage) of each split."""
    macs = count(archs).macs.astype(np.float64)
    rows = []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(archs))
        train, test = order[:points], order[points:]
        mean, std = predict([archs[i] for i in train], top1[train], [archs[i] for i in test])
        truth = top1[test]
        covered = np.nan if np.isnan(std).any() else np.mean(np.abs(mean - truth) < NORMAL_90 * std)
        rows.append((kendalltau(mean, truth)[0], tau_in_bins(mean, truth, macs[test]), covered))
    return np.array(rows)


def seconds(archs: Sequence[Arch], top1: Floats, points: int) -> tuple[float, float]:
    """Time our fit on some points and 100,000 predictions, in seconds."""
    many = SPACE.decode(SPACE.random(NUM_TIMED, np.random.default_rng(0)))
    begun = time.perf_counter()
    model = AccuracyPredictor().fit(archs[:points], top1[:points])
    fitted = time.perf_counter()
    model.predict(many)
    return fitted - begun, time.perf_counter() - fitted


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds accuracy/*.csv")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--points", default="100,200,400", help="training points, comma-separated")
    options = parser.parse_args(arguments)
    archs, top1 = read_table(options.data)
    print(f"{len(archs)} archs; means over {options.splits} splits (least-most); tau / tau inside 20 M MACs / coverage")
    for points in map(int, options.points.split(",")):
        for name, predict in PREDICTORS.items():
            rows = figures(predict, archs, top1, points, options.splits)
            spans = [f"{c.mean():.3f} ({c.min():.3f}-{c.max():.3f})" for c in rows.T if not np.isnan(c).any()]
            print(f"{points:4} points  {name:14}" + "   ".join(spans), flush=True)
        fit, predicting = seconds(archs, top1, points)
        print(f"{points:4} points  ours: fit {fit:.2f} s, {NUM_TIMED:,} predictions {predicting:.2f} s", flush=True)


if __name__ == "__main__":
    main()
