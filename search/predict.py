"""Predict the accuracy of an architecture, with an honest uncertainty, from a few hundred scored ones.

`AccuracyPredictor` is a Gaussian process (Rasmussen & Williams 2006): dot-product kernels plus one Matérn-5/2 over
groups of features, each group with a scale of its own found by the marginal likelihood.

Its intervals are the posterior's, widened where leave-one-out residuals (their eq. 5.12) are larger than it says. They
are not conformal and come with no guarantee: hyperparameters and feature scales are those of the fit that saw the
architecture left out. What they cover was measured on the public ImageNet table (842 subnets, 8 random training sets,
4 of 400): mean +- 1.645 std holds 91, 92, 88, 90 and 90 % of the unseen after 20, 50, 100, 200 and 400, single sets
79 to 98 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tutelage.records import Arch, InputError

from .encoding import Fields, Floats, choices_of, featurise, fields_of

# Rows predicted at once: 10,000 x 400 training points x 8 bytes are 32 MB a kernel matrix.
_CHUNK = 10_000
# Prior of the log hyperparameters (Matérn scales, Matérn height, dot-product heights, noise), each with this deviation:
# it keeps 20 points from choosing an absurd scale and is invisible at 400.
_PRIOR = {"scale": -1.0, "matern": -1.0, "dot": 0.0, "noise": -4.0}
_PRIOR_DEVIATION = 3.0
# Leave-one-out residuals scale the interval; this many imaginary well-calibrated points keep small samples calm.
_CALM_POINTS = 30
_NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True)
class _Fit:
    """A factorised posterior: standardised training features by group, Cholesky factor and weights."""

    groups: tuple[Floats, ...]
    factor: Floats  # lower Cholesky factor of K + noise, (n, n)
    weights: Floats  # (n,)
    log_theta: Floats
    widen: float
    noise: Floats  # (n,) variance of each score about its arch's true value

    @property
    def residual(self) -> float:
        """Give the variance of true values about the smooth function; the fitted noise where no noise was given."""
        return float(np.exp(self.log_theta[-1]))


class AccuracyPredictor:
    """Gaussian process on architectures: `fit(archs, accuracy)`, then `predict(archs) -> mean, std`.

    `accuracy` may be any score in any unit (percent, a fraction, an error); the same unit comes back. `std` is that of
    a new measurement, noise included: `mean ± 1.645 std` aims at 90 % of them (the module says what it was seen to
    cover). Where the standard errors of the scores are given, it is that of a new architecture's true value.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        self.num_classes = num_classes
        self.in_channels = in_channels
        self._fields: Fields | None = None
        self._values: Floats = np.zeros(0)
        self._space = ""
        self.archs: tuple[Arch, ...] = ()
        self._known = False

    def fit(
        self,
        archs: Sequence[Arch],
        accuracy: Sequence[float] | NDArray[np.floating],
        std_error: Sequence[float] | NDArray[np.floating] | None = None,
    ) -> Self:
        """Fit on scored archs; an arch given several times counts once, with the mean of its scores.

        `std_error` is that of each score, 0 of an exact one; None: unknown, all that the smooth function leaves is
        noise, and its size is found with the other scales.
        """
        values = np.asarray(accuracy, dtype=np.float64)
        if len(archs) != len(values) or values.ndim != 1:
            raise InputError(f"{len(archs)} archs but scores of shape {values.shape}: give one score an arch")
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(f"score {bad[0]} is {values[bad[0]]}: leave out archs without a finite score")
        groups: dict[Arch, list[int]] = {}
        for row, arch in enumerate(archs):
            groups.setdefault(arch, []).append(row)
        if len(groups) < 2:
            raise InputError(f"{len(groups)} distinct archs are too few to fit a predictor: give at least 2")
        self._space = archs[0].space
        self.archs = tuple(groups)
        self._fields = fields_of(self.archs, self.num_classes, self.in_channels)
        self._values = np.array([values[rows].mean() for rows in groups.values()])
        self._prepare()
        known = None
        if std_error is not None:
            variances = np.square(_checked(std_error, len(values)))
            known = np.array([variances[rows].mean() / len(rows) for rows in groups.values()]) / self._spread**2
        # Two threads of BLAS wait for each other on matrices this small: 2.3 s against .8 s for 400 points.
        with threadpool_limits(1, user_api="blas"):
            scales = _find_scales(self._train, self._standard, known)
            self._fit = _factorise(self._train, self._standard, scales, known)
        self._known = known is not None
        return self

    def posterior(self) -> tuple[Floats, Floats]:
        """Give mean and standard deviation of the true score of each fitted arch, in the order of `archs`.

        Of scores y with noise D and K the covariance of the true values, the mean is K (K + D)^-1 y = y - D w and the
        variance D - D (K + D)^-1 D: an exact score is kept, a noisy one is drawn to those of similar architectures.
        """
        from scipy.linalg import cho_solve

        self._need_fit()
        noise = self._fit.noise
        precision = np.diag(cho_solve((self._fit.factor, True), np.eye(len(noise))))
        mean: Floats = self._middle + self._spread * (self._standard - noise * self._fit.weights)
        variance = np.maximum(noise - np.square(noise) * precision, 0)
        return mean, np.sqrt(variance) * self._fit.widen * self._spread

    def predict(self, archs: Sequence[Arch]) -> tuple[Floats, Floats]:
        """Give mean and standard deviation (n,) each, in the unit of `fit`."""
        means, stds = [np.zeros(0)], [np.zeros(0)]
        for start in range(0, len(archs), _CHUNK):
            groups = self._features(archs[start : start + _CHUNK])
            mean, solved = self._project(groups)
            own = _diagonal(groups, self._fit.log_theta) - np.einsum("ij,ij->j", solved, solved)
            variance = np.maximum(own, 0) + np.exp(self._fit.log_theta[-1])
            means.append(mean)
            stds.append(np.sqrt(variance) * self._fit.widen * self._spread)
        return np.concatenate(means), np.concatenate(stds)

    def sample(
        self,
        archs: Sequence[Arch],
        num_draws: int,
        rng: np.random.Generator,
        fitted: Sequence[int] | NDArray[np.int64] = (),
    ) -> Floats:
        """Draw functions from the joint posterior, (draws, fitted + archs): what batches are chosen with.

        Noise is left out. `fitted` are places in `self.archs`: the true values of those come first in each draw, with
        what is their own beside the smooth function; where no standard errors were given, that is taken for noise.
        """
        rows = np.asarray(fitted, dtype=np.int64)
        own = self._fit.residual if self._known else 0.0
        groups = tuple(group[rows] for group in self._train)
        if len(archs):
            groups = tuple(np.concatenate(parts) for parts in zip(groups, self._features(archs), strict=True))
        mean, solved = self._project(groups, rows, own)
        covariance = _kernel(groups, groups, self._fit.log_theta) - solved.T @ solved
        covariance[np.arange(len(rows)), np.arange(len(rows))] += own
        jitter = 1e-6 * max(float(np.trace(covariance)) / max(len(covariance), 1), 1e-6)
        factor = np.linalg.cholesky(covariance + jitter * np.eye(len(covariance)))
        noise = rng.standard_normal((num_draws, len(covariance)))
        draws: Floats = mean + noise @ factor.T * self._fit.widen * self._spread
        return draws

    def _need_fit(self) -> Fields:
        if self._fields is None:
            raise InputError("this predictor has seen no scores: call fit(archs, accuracy) first")
        return self._fields

    def _prepare(self) -> None:
        """Learn the codes and scales of the training points."""
        fields = self._need_fit()
        self._choices = choices_of(fields)
        raw = featurise(fields, self._choices)
        self._shift = tuple(group.mean(axis=0) for group in raw)
        self._scale = tuple(np.where(group.std(axis=0) > 1e-12, group.std(axis=0), np.inf) for group in raw)
        self._train = tuple((g - m) / s for g, m, s in zip(raw, self._shift, self._scale, strict=True))
        self._middle = float(self._values.mean())
        std = float(self._values.std())
        self._spread = std if std > 1e-12 else 1.0
        self._standard = (self._values - self._middle) / self._spread

    def _features(self, archs: Sequence[Arch]) -> tuple[Floats, ...]:
        self._need_fit()
        if archs and archs[0].space != self._space:
            raise InputError(f"this predictor knows {self._space}, not {archs[0].space}: fit one for that space")
        raw = featurise(fields_of(archs, self.num_classes, self.in_channels), self._choices)
        return tuple((g - m) / s for g, m, s in zip(raw, self._shift, self._scale, strict=True))

    def _project(
        self, groups: tuple[Floats, ...], fitted: NDArray[np.int64] | None = None, own: float = 0.0
    ) -> tuple[Floats, Floats]:
        """Give the posterior mean (n,) and L^-1 k(train, new), (train, n).

        The first of the new ones are the training points `fitted`, which have the variance `own` in common with
        themselves beside the smooth function.
        """
        from scipy.linalg import solve_triangular

        cross = _kernel(self._train, groups, self._fit.log_theta)
        if fitted is not None and own:
            cross[fitted, np.arange(len(fitted))] += own
        solved: Floats = solve_triangular(self._fit.factor, cross, lower=True, check_finite=False)
        mean: Floats = self._middle + self._spread * (self._fit.weights @ cross)
        return mean, solved


def _checked(std_error: Sequence[float] | NDArray[np.floating], number: int) -> Floats:
    """Give standard errors as an array, one a score, none negative or unknown."""
    given = np.asarray(std_error, dtype=np.float64)
    if given.shape != (number,) or not (np.isfinite(given) & (given >= 0)).all():
        raise InputError(f"standard errors {given} of {number} scores: give one of 0 or more for each, or None")
    return given


def _split(log_theta: Floats, num_groups: int) -> tuple[Floats, float, Floats, float]:
    """Give (Matérn scale a group, Matérn height, dot-product height a group, noise variance)."""
    theta = np.exp(log_theta)
    return theta[:num_groups], float(theta[num_groups]), theta[num_groups + 1 : -1], float(theta[-1])


def _stack(groups: Sequence[Floats], weights: Floats) -> Floats:
    """Put groups side by side so that one matrix product sums them by weight, each by its mean over columns."""
    scaled = [g * np.sqrt(w / max(g.shape[1], 1)) for g, w in zip(groups, weights, strict=True)]
    return np.concatenate(scaled, axis=1)


def _squared_distance(left: Floats, right: Floats) -> Floats:
    product = left @ right.T
    total: Floats = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)[None] - 2 * product
    return np.maximum(total, 0, out=total)


def _kernel(left: Sequence[Floats], right: Sequence[Floats], log_theta: Floats) -> Floats:
    scales, height, dots, _ = _split(log_theta, len(left))
    root = np.sqrt(5 * _squared_distance(_stack(left, scales), _stack(right, scales)))
    linear: Floats = _stack(left, dots) @ _stack(right, dots).T
    linear += 1.0 + height * (1 + root + np.square(root) / 3) * np.exp(-root)
    return linear


def _diagonal(groups: Sequence[Floats], log_theta: Floats) -> Floats:
    _, height, dots, _ = _split(log_theta, len(groups))
    own: Floats = np.square(_stack(groups, dots)).sum(axis=1) + 1.0 + height
    return own


def _find_scales(groups: Sequence[Floats], values: Floats, known: Floats | None = None) -> Floats:
    """Maximise the marginal likelihood (Rasmussen & Williams eq. 5.8, 5.9) over the log hyperparameters.

    `known` is the noise variance of each value, beside which the fitted one is that of the true values.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve
    from scipy.optimize import minimize

    n, k = len(values), len(groups)
    unit = np.ones(1)
    stacked = [_stack([group], unit) for group in groups]
    distances = [_squared_distance(group, group) for group in stacked]
    products = [group @ group.T for group in stacked]
    fixed = np.diag(known) if known is not None else np.zeros((n, n))
    prior = np.array([_PRIOR["scale"]] * k + [_PRIOR["matern"]] + [_PRIOR["dot"]] * k + [_PRIOR["noise"]])

    def loss(log_theta: Floats) -> tuple[float, Floats]:
        """Give minus the log marginal likelihood with its prior, but for constants, and its gradient."""
        scales, height, dots, noise = _split(log_theta, k)
        root = np.sqrt(5 * sum(s * d for s, d in zip(scales, distances, strict=True)))
        decay = np.exp(-root)
        matern = height * (1 + root + np.square(root) / 3) * decay
        full = 1.0 + matern + sum(h * p for h, p in zip(dots, products, strict=True)) + noise * np.eye(n) + fixed
        offset = (log_theta - prior) / _PRIOR_DEVIATION
        try:
            factor = cho_factor(full, lower=True, check_finite=False)
        except LinAlgError:
            return 1e10, np.zeros_like(log_theta)
        weights = cho_solve(factor, values)
        gap = 0.5 * (cho_solve(factor, np.eye(n)) - np.outer(weights, weights))
        slope = gap * (-5 / 6 * height * (1 + root) * decay)  # d Matérn / d squared distance
        gradient = [s * np.vdot(slope, d) for s, d in zip(scales, distances, strict=True)]
        gradient += [np.vdot(gap, matern)]
        gradient += [h * np.vdot(gap, p) for h, p in zip(dots, products, strict=True)]
        gradient += [noise * np.trace(gap)]
        value = 0.5 * values @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * offset @ offset
        return float(value), np.array(gradient) + offset / _PRIOR_DEVIATION

    bounds = [(-12.0, 8.0)] * (2 * k + 1) + [(-12.0, 2.0)]
    fitted = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    best: Floats = np.asarray(fitted.x, dtype=np.float64)
    return best


def _factorise(groups: tuple[Floats, ...], values: Floats, log_theta: Floats, known: Floats | None = None) -> _Fit:
    """Factor the kernel matrix and learn from leave-one-out residuals how much the intervals must widen.

    `log_theta` was fitted on all points, the one left out among them, so the residuals are a little too small.
    """
    from scipy.linalg import cho_solve

    n = len(values)
    residual: Floats = np.full(n, float(np.exp(log_theta[-1])))
    # A residual of true values counts as part of them where the noise is known, else as the noise.
    noise: Floats = residual if known is None else known
    total = residual if known is None else residual + known
    covariance = _kernel(groups, groups, log_theta) + np.diag(total)
    factor: Floats = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    weights = cho_solve((factor, True), values)
    precision = np.diag(cho_solve((factor, True), np.eye(n)))
    surprise = np.abs(weights) / np.sqrt(precision)  # |y - mean without i| / std without i
    seen = float(np.quantile(surprise, 0.9)) / _NORMAL_90
    widen = max(1.0, (n * seen + _CALM_POINTS) / (n + _CALM_POINTS))
    return _Fit(groups, factor, weights, log_theta, widen, noise)
