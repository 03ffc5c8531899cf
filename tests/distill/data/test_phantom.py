"""The phantom: the same bits every time, lesions where the masks say, hard for a linear model."""

import numpy as np
import pytest

from tutelage.distill.data.registry import phantom
from tutelage.distill.data.sets.phantom import CLASSES, SLICES_PER_PATIENT, draw_slice


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, again, other = phantom(24, 48, 3), phantom(24, 48, 3), phantom(24, 48, 4)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.manifest == again.manifest != other.manifest
    assert (first.images != other.images).mean() > 0.5


def test_an_image_does_not_depend_on_how_many_were_asked_for() -> None:
    np.testing.assert_array_equal(phantom(16, 32, 0).images, phantom(40, 32, 0).images[:16])


def test_masks_are_empty_for_normal_slices_only() -> None:
    data = phantom(160, 64, 1)
    assert data.masks is not None
    covered = data.masks.reshape(len(data.masks), -1).sum(axis=1)
    assert (covered[data.labels == 0] == 0).all()
    assert (covered[data.labels > 0] > 0).all()
    assert set(np.unique(data.masks)) == {0, 1}


@pytest.mark.parametrize("kind", ["nodule", "consolidation", "ground-glass"])
def test_a_lesion_is_brighter_than_lung(kind: str) -> None:
    label = CLASSES.index(kind)
    inside, lung = [], []
    for patient in range(label, 80, len(CLASSES)):
        pixels, mask, found = draw_slice(patient * SLICES_PER_PATIENT, 64, 0)
        assert found == label
        inside.append(pixels[mask == 1].mean())
        lung.append(np.percentile(pixels[24:40, 12:52], 10))  # the darkest part of the chest's middle
    assert np.mean(inside) > np.mean(lung) + 25


def test_slices_of_a_patient_stay_in_one_split() -> None:
    data = phantom(400, 16, 0)
    for one in ("train", "val", "test"):
        for other in ("train", "val", "test"):
            if one != other:
                assert not set(data.groups[data.splits[one]]) & set(data.groups[data.splits[other]])
    assert sum(len(indices) for indices in data.splits.values()) == 400
    assert data.class_counts("test") == dict.fromkeys(CLASSES, 20)


@pytest.mark.slow
def test_a_linear_model_on_pixels_stays_under_70_percent() -> None:
    from sklearn.linear_model import LogisticRegression

    data = phantom(800, 32, 0)
    pixels = data.images.reshape(len(data.images), -1) / 255.0 - 0.3
    train, test = data.splits["train"], data.splits["test"]
    linear = LogisticRegression(C=1e-2, max_iter=25, tol=1e-2).fit(pixels[train], data.labels[train])
    assert linear.score(pixels[test], data.labels[test]) < 0.7
    assert linear.score(pixels[train], data.labels[train]) > 0.4  # it did learn: chance is .25
