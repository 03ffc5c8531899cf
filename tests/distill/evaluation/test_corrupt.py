"""Corrupted test images: hand formulas, the same pixels in any batch, worse with each severity."""

import numpy as np
import pytest

from tutelage.corruptions import CORRUPTIONS, SEVERITIES
from tutelage.distill.evaluation.corrupt import _APPLIED, corrupt


def images(channels: int = 1, num: int = 6, side: int = 48) -> np.ndarray:
    """Smooth pictures with an edge, of middling gray."""
    y, x = np.mgrid[:side, :side] / side
    waves = [0.5 + 0.3 * np.sin(7 * x + n) * np.cos(5 * y) + 0.15 * (x > 0.5) for n in range(num)]
    return np.repeat((np.stack(waves) * 255).astype(np.uint8)[..., None], channels, axis=3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_changed_alike_in_any_batch_and_the_more_the_worse(name: str, channels: int) -> None:
    whole, places = images(channels), np.arange(6)
    off = []
    for severity in SEVERITIES:
        found = corrupt(whole, name, severity, places)
        assert (found.shape, found.dtype) == (whole.shape, np.uint8)
        parts = [corrupt(whole[n : n + 2], name, severity, places[n : n + 2]) for n in (0, 2, 4)]
        assert (np.concatenate(parts) == found).all()
        off.append(float(np.abs(found.astype(float) - whole).mean()))
    assert 0 < off[0] < off[-1]


def test_every_kind_that_can_be_asked_for_is_there() -> None:
    assert list(_APPLIED) == list(CORRUPTIONS)


def test_pixels_are_those_of_the_formulas() -> None:
    gray = np.full((1, 16, 16, 1), 100, dtype=np.uint8)
    place = np.zeros(1, dtype=np.int64)
    assert (corrupt(gray, "brightness_up", 2, place) == 100 + 51).all()
    assert (corrupt(gray, "brightness_down", 5, place) == 0).all()
    for name in ("gaussian_blur", "pixelate", "contrast_down"):
        assert (corrupt(gray, name, 5, place) == 100).all(), name
    half = gray.copy()
    half[0, :8] = 200
    low = corrupt(half, "contrast_down", 3, place)  # a fifth of the contrast about the mean of 150
    assert sorted(np.unique(low)) == [140, 160]
    wide = np.full((1, 300, 300, 1), 100, dtype=np.uint8)
    noise = corrupt(wide, "gaussian_noise", 2, place).astype(float)
    assert abs(noise.mean() - 100) < 0.5
    assert abs(noise.std() - 0.12 * 255) < 0.5
    speckle = corrupt(wide, "speckle_noise", 2, place).astype(float)
    assert abs(speckle.std() - 0.2 * 100) < 0.5
    photons = corrupt(wide, "shot_noise", 1, place).astype(float)
    assert abs(photons.std() - 255 * np.sqrt(100 / 255 / 60)) < 0.5
    hit = corrupt(wide, "impulse_noise", 5, place)
    assert abs((hit != 100).mean() - 0.27) < 0.01
    assert set(np.unique(hit)) == {0, 100, 255}
    assert len(np.unique(corrupt(images(), "pixelate", 5, np.arange(6))[0], axis=0)) <= 12  # of its 48 lines


def test_no_image_gives_none() -> None:
    none = np.empty((0, 8, 8, 1), dtype=np.uint8)
    assert corrupt(none, "jpeg", 1, np.empty(0, dtype=np.int64)).shape == none.shape
