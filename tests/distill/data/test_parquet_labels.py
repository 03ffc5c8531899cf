"""The labels of parquet files as the hub stores image sets: columns, lists, names, and what is not labelled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distill.data.parquet_files import NAMES, feature, hub_layout, load, write
from tutelage.distill.data.check import check_path
from tutelage.records import InputError


def test_lists_of_labels_are_multi_label(tmp_path: Path) -> None:
    lists = [[0, 2], [1], []] * 12
    file = write(tmp_path / "train.parquet", lists, features={"label": feature(many=True)})
    data = load(file)
    assert (data.multi_label, data.class_names) == (True, ("cat", "dog", "ant"))
    assert data.labels[:3].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    words = write(tmp_path / "words.parquet", [["b", "a"], ["a"], ["c"]] * 12)
    assert load(words).labels[:3].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    gap = write(tmp_path / "gap.parquet", [None, *lists], features={"label": feature(many=True)})
    with pytest.raises(InputError, match=r"gap\.parquet/image/0: .* holds None, which is not known"):
        load(gap)
    assert len(load(gap, options={"unknown": "drop"}).images) == 36
    odd = write(tmp_path / "odd.parquet", [[7], *lists], features={"label": feature(many=True)})
    with pytest.raises(InputError, match=r"label 7 has no name"):
        load(odd)


@pytest.mark.parametrize("gap", [-1, None])
def test_rows_that_are_not_labelled_are_refused_or_dropped_and_said(tmp_path: Path, gap: int | None) -> None:
    hub_layout(tmp_path)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [gap] * 6 + [0, 1, 2] * 2, first=48,
          features={"label": feature()})  # fmt: skip
    with pytest.raises(InputError, match=r"test-00000-of-00001\.parquet/image/0: label '' is missing or NaN"):
        load(tmp_path)
    data = load(tmp_path, options={"unknown": "drop"})
    assert len(data.indices("test")) == 6
    assert "6 images whose label is not known are left out" in data.notes
    assert any("unknown to drop" in problem for problem in check_path(tmp_path).problems)


def test_a_column_of_labels_is_asked_for_where_there_are_two(tmp_path: Path) -> None:
    features = {"fine_label": feature(), "coarse_label": feature(["pet", "pest"])}
    more = {"coarse_label": [0, 0, 1] * 12}
    file = write(tmp_path / "train.parquet", [0, 1, 2] * 12, features=features, more=more, label="fine_label")
    with pytest.raises(InputError, match=r"the columns of labels fine_label, coarse_label: name one, data\.options"):
        load(file)
    assert load(file, options={"label": "coarse_label"}).class_names == ("pet", "pest")
    with pytest.raises(InputError, match="has no column 'colour'; it has fine_label, coarse_label"):
        load(file, options={"label": "colour"})


def test_vectors_of_zeros_and_ones_are_columns_and_other_lists_are_labels(tmp_path: Path) -> None:
    hot = [[float(place == n % 3) for place in range(3)] for n in range(36)]
    data = load(write(tmp_path / "hot.parquet", hot, features={"label": feature(many=True)}))
    assert (data.multi_label, data.class_names, data.labels[:4].tolist()) == (
        False,
        ("cat", "dog", "ant"),
        [0, 1, 2, 0],
    )
    several = load(write(tmp_path / "several.parquet", [[1, 1, 0], [0, 0, 1], [0, 0, 0]] * 12))
    assert (several.class_names, several.labels[0].tolist()) == (("label 0", "label 1", "label 2"), [1, 1, 0])
    two = load(write(tmp_path / "two.parquet", [[1, 0], [0, 1]] * 18))
    assert (two.multi_label, two.labels[:2].tolist()) == (False, [0, 1])
    codes = load(write(tmp_path / "codes.parquet", [[10, 2], [2], [9]] * 12))
    assert (codes.class_names, codes.labels[0].tolist()) == (("2", "9", "10"), [1, 0, 1])
    for gap in (-1, None):
        unknown = write(tmp_path / "unknown.parquet", [[gap, 1, 0], *[[1, 0, 1], [0, 1, 1]] * 12])
        with pytest.raises(InputError, match=r"label 0 is .*labels must be 0 or 1; set the option unknown"):
            load(unknown)
        kept = load(unknown, options={"unknown": "ignore"})
        assert np.isnan(kept.labels[0]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0.1, 0.9], [0.8, 0.2]], r"image/0: .* holds 0\.1 in a list: .*are they scores"),
        ([[{"box": 1}], [{"box": 2}]], r"image/0: .* holds lists of dict"),
        ([[1, -1, 2], [0, 2, 3]], r"image/0: .* which is not known"),
    ],
)
def test_lists_that_hold_no_labels_are_refused(tmp_path: Path, labels: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "train.parquet", labels * 12))


def test_files_must_name_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 12, features={"label": feature()})
    test = write(tmp_path / "test.parquet", [0, 1] * 6, first=50, features={"label": feature(NAMES[:2])})
    assert load(tmp_path).class_names == ("cat", "dog", "ant")
    write(test, [0, 1] * 6, first=50, features={"label": feature(["dog", "cat"])})
    with pytest.raises(InputError, match=r"test\.parquet names the code 0 of label 'dog', and other files .* 'cat'"):
        load(tmp_path)
    write(test, [0, 1] * 6, first=50, features={"label": feature(["cat", "cat"])})
    with pytest.raises(InputError, match="names the code 1 of label 'cat'"):
        load(tmp_path)
    with pytest.raises(InputError, match="the name 'cat' of label stands for several codes"):
        load(test)


def test_a_test_split_without_a_column_of_labels_is_dropped_or_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 12, features={"label": feature()})
    write(tmp_path / "test.parquet", [0, 1] * 6, first=50, label="id")
    with pytest.raises(InputError, match=r"test\.parquet/image/0: label '' is missing"):
        load(tmp_path)
    assert len(load(tmp_path, options={"unknown": "drop"}).images) == 36
