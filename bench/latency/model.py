"""Predict milliseconds from an architecture, with an interval, after few measurements.

Measurements of one network are merged into one label, whose noise is that of the repeats (`labels.py`), and a network
is held out together with its repeats and with itself at other resolutions: an error is that of unseen architectures.

The model is linear in the features of `features.py`, fitted on relative error, or log-linear in the predictions of
other devices' models (`transfer.py`, `prior.py`): Bayesian ridge regression in which each group of features (whole net,
stages, ...) has a prior width of its own, set by the evidence, so that ten nets do not overfit and fifty use the
features of the stages. Noise is Student's t, so that one slow outlier does not bend the fit.

Intervals are cross-conformal (Vovk 2015): their half-width is a quantile of held-out errors in predicted standard
deviations, and each of those errors, like the model's stated one, comes from a fit that did not see the net, with
hyperparameters of its own. That guarantees no coverage for few nets: docs/measuring.md says what was measured. To them
a device that is measured here adds what its later sessions differ by (`sessions.py`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from tutelage.bench.protocol.anchors import ANCHOR_SET
from tutelage.files import write_json
from tutelage.records import Arch, InputError, bounded_text, parsed_json

from .evidence import COVERAGE, Floats, column_groups, held_out, quantile, robust_fit, stretch
from .features import block_features, count_features
from .labels import check_latencies, merge_repeats, number_architectures
from .prior import log_fit, log_held_out
from .sessions import Correction, SessionNoise, correction_of

FORMAT = 2
# Of a model with sources, in logs; those of format 3 were linear.
FORMAT_WITH_SOURCES = 4
# From so many nets on each stage may have a factor of its own; fewer only blur what the whole net's sum says.
_NETS_FOR_STAGES = 20
# How far beyond the sizes of its training nets a model on counts may predict, as a factor.
_REACH = 1.25


class _Fit(Protocol):
    def __call__(
        self,
        archs: Sequence[Arch],
        latency_ms: ArrayLike,
        *,
        blocks: Mapping[str, float] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        sources: Mapping[str, LatencyModel] | None = None,
    ) -> LatencyModel: ...


class _FitEither:
    """Let `LatencyModel.fit(...)` make a model, and `model.fit(...)` refit one; both return it."""

    def __get__(self, model: LatencyModel | None, kind: type[LatencyModel]) -> _Fit:
        return (kind() if model is None else model)._fit


class LatencyModel:
    """A fitted latency model of one device. `error` is its mean relative error on nets held out of the fit."""

    fit = _FitEither()

    def __init__(self) -> None:
        self.blocks: dict[str, float] = {}
        self.sources: dict[str, LatencyModel] = {}  # models of other devices whose predictions are the features
        self.num_classes, self.in_channels = 1000, 3
        self.spaces: tuple[str, ...] = ()
        self.resolutions: tuple[int, ...] = ()
        self.num_nets = 0
        self.error = math.nan
        self.held_out_errors: Floats = np.zeros(0)  # of each net that it was fitted on, relative; not saved
        self.error_se = math.nan  # standard error of `error`: it is large for few nets
        self.num_measurements = 0  # how many were merged into the labels of `num_nets` networks
        self.repeat_noise = math.nan  # relative standard deviation of repeats of one network; nan: there were none
        self.label_noise = math.nan  # relative standard error of the labels, 95 % of them within it; nan: unknown
        self.anchor_ms: float | None = None  # what the anchor nets took when the blocks were measured
        self.session: SessionNoise | None = None  # of later sessions; None: nothing is measured on this scale again
        self._scale = 1.0  # mean latency in ms: weights are relative to it
        self._center: Floats = np.zeros(0)
        self._spread: Floats = np.ones(0)
        self._weights: Floats = np.zeros(0)
        self._covariance: Floats = np.zeros((0, 0))
        self._noise = 0.0
        self._stretch = 1.0  # interval half-width in standard deviations at the default coverage

    def _fit(
        self,
        archs: Sequence[Arch],
        latency_ms: ArrayLike,
        *,
        blocks: Mapping[str, float] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        sources: Mapping[str, LatencyModel] | None = None,
    ) -> LatencyModel:
        """Fit on measured nets; `blocks` is a block table (key to ms). Raises InputError for what cannot be fitted.

        `sources` are models of other devices, by name: then their predictions are the prior (`prior.py`).
        An arch may be given several times: its times are merged, and the spread among them is the noise of its label.
        """
        check_latencies(latency_ms, len(archs))
        merged = merge_repeats(archs, latency_ms)
        archs, latency = merged.archs, check_latencies(merged.latency_ms, len(merged.archs))
        architectures = number_architectures(archs)
        self.num_measurements, self.repeat_noise = merged.num_measurements, merged.repeat_noise
        repeated = merged.num_measurements > len(archs)
        self.label_noise = float(np.percentile(merged.label_noise, 95)) if repeated else math.nan
        self.blocks, self.num_classes, self.in_channels = dict(blocks or {}), num_classes, in_channels
        self.sources = dict(sources or {})
        assert not (self.blocks and self.sources), "the features are a block table's or other devices' predictions"
        self.spaces = tuple(sorted({arch.space for arch in archs}))
        self.resolutions = tuple(sorted({arch.r for arch in archs}))
        self.num_nets = len(archs)
        features, groups = self._features(archs)
        self._scale = float(np.exp(np.log(latency).mean()) if self.sources else latency.mean())
        self._center = np.asarray(features.mean(axis=0), dtype=np.float64)
        spread: Floats = np.asarray(features.std(axis=0), dtype=np.float64)
        spread[spread <= 1e-9 * np.abs(self._center)] = np.inf  # constant in training: not used
        spread[: len(self.sources)] = 1.0  # logs: a slope of 1 is the source's own
        self._spread = spread
        design, target = self._design(features), latency / self._scale
        if self.sources:
            target, num = np.log(target), len(self.sources)
            self._weights, self._covariance, self._noise = log_fit(design, target, num, merged.label_noise)
            errors, scores = log_held_out(design, target, num, architectures, merged.label_noise)
        else:
            width_of = column_groups(groups)
            self._weights, self._covariance, self._noise = robust_fit(design, target, width_of, merged.label_noise)
            errors, scores = held_out(design, target, width_of, architectures, merged.label_noise)
        self.error, self.held_out_errors = float(np.mean(errors)), errors
        # Errors of one architecture at several resolutions are one observation.
        own = np.array([errors[architectures == number].mean() for number in range(architectures.max() + 1)])
        self.error_se = float(np.std(own, ddof=1) / math.sqrt(len(own)))
        self._stretch = stretch(scores)
        return self

    def predict(self, archs: Sequence[Arch], coverage: float = COVERAGE) -> tuple[Floats, Floats, Floats]:
        """Predict `(mean, low, high)` in ms, each `(archs,)`; `coverage` is the interval's probability.

        Raises InputError for an arch of a space or resolution that the model was not fitted on.
        """
        if not self.num_nets:
            raise InputError("this latency model is not fitted: call fit, or load one")
        if not 0 < coverage < 1:
            raise InputError(f"coverage must lie between 0 and 1, got {coverage}")
        if not archs:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        middle, half = self._of_session(archs)
        half *= quantile(coverage)
        if self.session is not None:  # and what a later session adds, whatever the network
            later = self.session.half_width(coverage)
            half = np.hypot(half, later if self.sources else later * middle)
        if self.sources:
            return (
                self._scale * np.exp(middle),
                self._scale * np.exp(middle - half),
                self._scale * np.exp(middle + half),
            )
        mean, half = middle * self._scale, half * self._scale
        return mean, np.maximum(mean - half, 0.0), mean + half

    def _of_session(self, archs: Sequence[Arch]) -> tuple[Floats, Floats]:
        """Give means and deviations `(archs,)`, in logs or in the scale, of times as in the sessions of the fit."""
        self._check(archs)
        design = self._design(self._features(archs)[0])
        middle = design @ self._weights if self.sources else np.maximum(design @ self._weights, 1e-6)
        noise = self._noise if self.sources else self._noise * middle  # of logs it is relative already
        variance = ((design @ self._covariance) * design).sum(axis=1) + noise**2
        return middle, np.sqrt(variance) * self._stretch / quantile(COVERAGE)

    def correction(self, archs: Sequence[Arch], measured_ms: ArrayLike) -> Correction:
        """Give the factor by which a session's times, on this model's scale, differ from the predictions."""
        middle, deviation = self._of_session(archs)
        relative = deviation if self.sources else deviation / middle
        session = self.session or SessionNoise()
        return correction_of(self.predict(archs)[0], np.hypot(relative, session.own), measured_ms, session.common)

    def rescaled(self, factor: float, anchor_ms: float | None) -> LatencyModel:
        """Copy the model with all its times multiplied by a factor, on the scale of these anchors."""
        model = copy.copy(self)
        model._scale, model.anchor_ms = self._scale * factor, anchor_ms
        return model

    def widen(self, noise: float) -> None:
        """Add a relative error that the training labels have in common, so that no held-out error shows it."""
        self._noise = math.hypot(self._noise, noise)
        self._stretch = max(self._stretch, quantile(COVERAGE))

    def covers(self, arch: Arch) -> bool:
        """Say whether `predict` takes this arch: its space and its resolution are those of the training set."""
        try:
            self._check([arch])
        except InputError:
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """Give the model as JSON-able values."""
        return {
            "format": FORMAT_WITH_SOURCES if self.sources else FORMAT,
            "spaces": list(self.spaces),
            "resolutions": list(self.resolutions),
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "num_nets": self.num_nets,
            "error": self.error,
            "error_se": self.error_se,
            "num_measurements": self.num_measurements,
            "repeat_noise": None if math.isnan(self.repeat_noise) else self.repeat_noise,
            "anchor_ms": self.anchor_ms,
            "anchor_set": ANCHOR_SET,
            "session_noise": None if self.session is None else vars(self.session),
            "scale_ms": self._scale,
            "noise": self._noise,
            "stretch": self._stretch,
            "center": self._center.tolist(),
            "spread": [None if math.isinf(value) else value for value in self._spread.tolist()],
            "weights": self._weights.tolist(),
            "covariance": self._covariance.tolist(),
            "blocks_ms": self.blocks,
            **({"sources": {name: model.to_dict() for name, model in self.sources.items()}} if self.sources else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a model back from what `to_dict` gave; raise InputError for another format."""
        expected = FORMAT_WITH_SOURCES if data.get("sources") else FORMAT
        if data.get("format") != expected:
            raise InputError(f"latency model format {data.get('format')!r} is not {expected}: add the device again")
        model = cls()
        model.sources = {name: cls.from_dict(source) for name, source in data.get("sources", {}).items()}
        model.spaces, model.resolutions = tuple(data["spaces"]), tuple(data["resolutions"])
        model.num_classes, model.in_channels = data["num_classes"], data["in_channels"]
        model.num_nets, model.error = data["num_nets"], data["error"]
        model.anchor_ms = data["anchor_ms"] if data.get("anchor_set") == ANCHOR_SET else None
        session = data.get("session_noise")
        if session is not None:
            model.session = SessionNoise(**session)
        elif model.anchor_ms is not None and "session_noise" not in data:  # of an older version, measured by us
            model.session = SessionNoise()
        model.error_se = data.get("error_se", math.nan)
        model.num_measurements = data.get("num_measurements", model.num_nets)
        repeat_noise = data.get("repeat_noise")
        model.repeat_noise = math.nan if repeat_noise is None else float(repeat_noise)
        model._scale, model._noise, model._stretch = data["scale_ms"], data["noise"], data["stretch"]
        model._center = np.array(data["center"])
        model._spread = np.array([np.inf if value is None else value for value in data["spread"]])
        model._weights, model._covariance = np.array(data["weights"]), np.array(data["covariance"])
        model.blocks = dict(data["blocks_ms"])
        return model

    def save(self, path: Path) -> None:
        """Write the model as JSON, whole or not at all."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved model; raise InputError for a file that is not there or not one."""
        try:
            return cls.from_dict(parsed_json(bounded_text(path)))
        except OSError as error:
            raise InputError(f"cannot read latency model {path}: {error.strerror}; add the device again") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is not a latency model ({error}): add the device again") from error

    def _features(self, archs: Sequence[Arch]) -> tuple[Floats, list[str]]:
        if self.sources:
            columns = [np.log(source.predict(archs)[0] / source._scale) for source in self.sources.values()]
            counts, groups = count_features(archs, self.num_classes, self.in_channels)
            return np.column_stack([*columns, counts]), [*self.sources, *groups]
        if self.blocks:
            stages = self.num_nets >= _NETS_FOR_STAGES
            return block_features(archs, self.blocks, self.num_classes, self.in_channels, stages)
        return count_features(archs, self.num_classes, self.in_channels)

    def _design(self, features: Floats) -> Floats:
        """Standardise and add the intercept; a column that was constant in training is left out (0)."""
        columns = (features - self._center) / self._spread
        return np.hstack([np.ones((len(columns), 1)), columns])

    def _check(self, archs: Sequence[Arch]) -> None:
        for space, r in dict.fromkeys((arch.space, arch.r) for arch in archs):
            self._check_place(space, r)

    def _check_place(self, space: str, r: int) -> None:
        if space not in self.spaces:
            raise InputError(f"no latency model for space {space}: it covers {', '.join(self.spaces)}")
        known = r in self.resolutions
        # From three sizes on, a model on counts has learned what a pixel costs, a block table never has.
        if not self.blocks and len(self.resolutions) >= 3:
            known = self.resolutions[0] / _REACH <= r <= self.resolutions[-1] * _REACH
        if not known:
            sizes = ", ".join(map(str, self.resolutions))
            raise InputError(f"no latency model at {r} px: it covers {sizes}; add the device at {r} px")
        for source in self.sources.values():
            source._check_place(space, r)
