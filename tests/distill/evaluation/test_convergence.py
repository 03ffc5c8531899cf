"""Whether a training had converged: flat, saturating, annealed and rising curves, with noise of known size."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.distill.evaluation.convergence import still_rising

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def said(*values: float | None, accuracy: float = 0.5, stopped_early: bool = False) -> str:
    history = [{"val_auc": value, "val_accuracy": accuracy + place / 10} for place, value in enumerate(values)]
    return still_rising(history, stopped_early=stopped_early)


def rate(curve: Curve, epochs: int, noise: float, repeats: int = 300) -> float:
    """Give how often a curve over time 0..1 with noise of an epoch's own is said to rise."""
    rng = np.random.default_rng(epochs)
    mean = curve(np.linspace(0, 1, epochs))
    return float(np.mean([bool(said(*(mean + rng.normal(0, noise, epochs)))) for _ in range(repeats)]))


def test_it_says_figure_epochs_and_values() -> None:
    rising = said(0.5, 0.5, 0.55, 0.57, 0.6, 0.64)
    assert rising == "validation still rising when training ended: AUC 0.570 to 0.640 in the last 3 of 6 epochs"
    assert said(None, 0.9, 0.9, 0.9).startswith("validation still rising when training ended: accuracy 0.600 to 0.800")
    assert said(0.5, 0.6, 0.7, 0.8, stopped_early=True) == ""


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        ((0.6,), False),  # one epoch says nothing
        ((0.6, 0.61), True),
        ((0.6, 0.604), False),  # less than half a point
        ((0.6, 0.7, 0.65), False),  # the best was not the last
        ((0.6, 0.7, 0.71), True),
        ((0.8, 0.9, 0.9, 0.9), False),
        ((0.6, 0.7, 0.8, 0.9), True),
        ((0.9, 0.8, 0.7, 0.6), False),
        ((0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.89, 0.9, 0.9, 0.9), False),
    ],
)
def test_short_trainings(values: tuple[float, ...], rises: bool) -> None:
    assert bool(said(*values)) is rises


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("epochs", [4, 5, 8, 10, 20, 60])
def test_a_flat_curve_is_seldom_taken_for_rising(epochs: int, noise: float) -> None:
    assert rate(lambda t: np.full_like(t, 0.9), epochs, noise) <= (0.06 if epochs < 10 else 0.03)


@pytest.mark.parametrize("epochs", [5, 10, 20, 60])
def test_a_curve_that_has_come_to_its_end_is_not_rising(epochs: int) -> None:
    assert rate(lambda t: 0.9 - 0.4 * np.exp(-12 * t), epochs, 0.005) <= 0.04


@pytest.mark.parametrize("epochs", [4, 6, 10, 20])
def test_a_rising_curve_is_found(epochs: int) -> None:
    assert rate(lambda t: 0.5 + 0.3 * t, epochs, 0.005) >= 0.95
    assert rate(lambda t: 0.9 - 0.4 * np.exp(-1.25 * t), epochs, 0.005) >= 0.95


def test_what_a_cosine_schedule_gains_while_the_rate_falls_is_no_rise_at_its_end() -> None:
    def annealed(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.85 + 0.05 * (1 - 0.5 * (1 + np.cos(np.pi * t)))

    assert rate(annealed, 200, 0.001) <= 0.02
    assert rate(lambda t: 0.85 + 0.1 * t, 200, 0.001) == 1.0
