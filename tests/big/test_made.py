"""Collections made at a small fraction are read as the real ones are, with their patients and frequencies of labels."""

from pathlib import Path

import numpy as np
import pytest

from tests.big.made import CHESTXRAY14, CHESTXRAY14_TEST, CHESTXRAY14_TRAIN_VAL, Size, make, placed, visits
from tutelage.distill.data.check import check_path
from tutelage.distill.data.registry import load_dataset


def test_chestxray14_has_the_published_numbers_of_images_patients_and_labels() -> None:
    rng = np.random.default_rng(0)
    for size in (CHESTXRAY14_TRAIN_VAL, CHESTXRAY14_TEST):
        drawn = visits(size, rng)
        assert (len(drawn), drawn.sum(), drawn.min()) == (size.patients, size.images, 1)
        assert drawn.max() > 3 * drawn.mean()
    held = placed(list(CHESTXRAY14.values()), 112_120, 51_759, rng)
    assert held.any(1).sum() == 51_759
    # A label that falls twice on one image counts once.
    np.testing.assert_allclose(held.sum(0), list(CHESTXRAY14.values()), rtol=0.15)
    assert Size(100, 10).times(0.01) == Size(4, 4)


@pytest.mark.parametrize(
    ("name", "fraction", "num", "options"),
    [
        ("chestxray14", 0.001, 113, {}),
        ("chexpert", 0.0005, 116, {"valid_as": "extra"}),
        ("padchest", 0.001, 161, {}),
    ],
)
def test_a_made_collection_is_read_as_the_real_one_is(
    tmp_path: Path, name: str, fraction: float, num: int, options: dict[str, str]
) -> None:
    root = tmp_path / name
    assert make(name, root, fraction=fraction, px=24, drawings=5) == num
    checked = check_path(root)
    assert (checked.kind, checked.problems, checked.duplicates) == (name, (), ())
    data = load_dataset(name, path=root, size=16, options=options, cache=tmp_path / "cache")
    assert data.multi_label
    assert data.images.std() > 10  # drawings, not black
    if name == "padchest":
        assert 80 < len(data.images) < num  # views from the side are left out
    else:
        assert len(data.images) == num
    assert len(set(data.groups.tolist())) < len(data.images)
    parts = [set(data.groups[places]) for places in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts))
    if name == "chestxray14":
        assert len(data.splits["test"]) == 26
        assert 0.1 < data.labels[:, data.class_names.index("Infiltration")].mean() < 0.25
