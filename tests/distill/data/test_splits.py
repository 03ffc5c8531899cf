"""Splits against a second implementation in loops, connected components, and what each refuses."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tutelage.distill.data.dataset import Request
from tutelage.distill.data.splits import (
    assign_groups,
    drop_straddlers,
    limit_images,
    limit_request,
    make_splits,
    merge_groups,
    one_hot,
    straddling_groups,
)
from tutelage.records import InputError

REQUEST = Request("made", None, 8)
RNG = np.random.default_rng
Strings = NDArray[np.str_]


def _words(*words: str) -> Strings:
    return np.array(words, dtype="<U5")


def _images(num: int, num_groups: int, seed: int = 0) -> tuple[NDArray[np.int64], Strings]:
    """Labels of three classes, the last a rare one, and groups of about `num / num_groups` images."""
    rng = RNG(seed)
    labels = rng.choice(3, num, p=[0.6, 0.3, 0.1])
    labels[:3] = 0, 1, 2
    return labels, rng.integers(0, num_groups, num).astype(np.str_)


def _assigned(kinds: list[list[float]], groups: list[str], shares: list[float], rng: np.random.Generator) -> list[int]:
    """Do what `assign_groups` says, one group and one kind at a time."""
    names = sorted(set(groups))
    columns = len(kinds[0]) + 1  # and the images themselves
    rows = [[*row, 1.0] for row in kinds]
    total = [max(1.0, sum(row[k] for row in rows)) for k in range(columns)]
    fraction = {
        name: [sum(row[k] for row, own in zip(rows, groups, strict=True) if own == name) / total[k]
               for k in range(columns)]
        for name in names
    }  # fmt: skip
    drawn = [names[i] for i in rng.permutation(len(names))]
    drawn.sort(key=lambda name: -round(sum(fraction[name]), 9))
    lacking = [[share] * columns for share in shares]
    part_of = {}
    for name in drawn:
        needs = [sum(a * b for a, b in zip(part, fraction[name], strict=True)) for part in lacking]
        part = max(range(len(shares)), key=lambda i: (round(needs[i], 9), -i))
        part_of[name] = part
        lacking[part] = [a - b for a, b in zip(lacking[part], fraction[name], strict=True)]
    return [part_of[group] for group in groups]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_groups_are_assigned_as_by_loops(seed: int) -> None:
    # Group sizes and classes differ, so that no two groups weigh the same but for the last bit of a float.
    labels, groups = _images(60, 9, seed)
    kinds, shares = one_hot(labels), [0.5, 0.3, 0.2]
    found = assign_groups(kinds, groups, shares, RNG(seed))
    assert found.tolist() == _assigned(kinds.tolist(), groups.tolist(), shares, RNG(seed))
    assert len({(group, part) for group, part in zip(groups, found, strict=True)}) == len(set(groups.tolist()))


def test_equal_groups_are_taken_in_a_drawn_order_to_the_emptiest_part() -> None:
    groups = np.arange(40).astype(np.str_)
    kinds = np.ones((40, 1))
    parts = assign_groups(kinds, groups, [0.25, 0.75], RNG(3))
    assert np.bincount(parts).tolist() == [10, 30]
    assert parts.tolist() == assign_groups(kinds, groups, [0.25, 0.75], RNG(3)).tolist()
    assert parts.tolist() != assign_groups(kinds, groups, [0.25, 0.75], RNG(4)).tolist()
    assert assign_groups(np.zeros((0, 2)), groups[:0], [0.5, 0.5], RNG(0)).tolist() == []
    # Of two parts that lack as much, the first; a kind that nobody has divides by no zero.
    assert assign_groups(np.zeros((2, 1)), _words("a", "b"), [0.5, 0.5], RNG(0)).tolist() in ([0, 1], [1, 0])


def test_a_set_without_splits_gets_all_three_as_asked() -> None:
    labels = np.repeat([0, 1], [900, 100])
    splits = make_splits(labels, np.arange(1000).astype(np.str_), np.full(1000, ""), REQUEST)
    assert list(splits) == ["train", "val", "test"]
    # Both fractions are of the whole set and hold in each class, but for a pull of the largest part: what it lacks of
    # all images weighs beside what it lacks of a class.
    for name, fraction in (("train", 0.65), ("val", 0.15), ("test", 0.2)):
        assert len(splits[name]) == pytest.approx(1000 * fraction, abs=4)
        assert labels[splits[name]].sum() == pytest.approx(100 * fraction, abs=6)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1000))


def test_the_draw_belongs_to_the_seed() -> None:
    """Rows of a leaderboard name it, so every version must find the same images."""
    labels, groups = _images(200, 40)
    kinds, rng = one_hot(labels).tolist(), RNG([5, 7])
    splits = make_splits(labels, groups, np.full(200, ""), replace(REQUEST, seed=5))
    test = np.array(_assigned(kinds, groups.tolist(), [0.8, 0.2], rng)) == 1
    np.testing.assert_array_equal(splits["test"], np.flatnonzero(test))
    rest = np.flatnonzero(~test)
    fraction = 0.15 * 200 / len(rest)
    parts = _assigned([kinds[i] for i in rest], groups[rest].tolist(), [1 - fraction, fraction], rng)
    np.testing.assert_array_equal(splits["val"], rest[np.array(parts) == 1])
    other = make_splits(labels, groups, np.full(200, ""), replace(REQUEST, seed=6))
    assert set(other["test"]) != set(splits["test"])


def test_groups_stay_whole_but_where_a_leak_is_asked_for() -> None:
    labels, groups = _images(300, 30)
    given_splits = np.full(300, "")

    def straddling(request: Request) -> int:
        splits = make_splits(labels, groups, given_splits, request)
        places = [{*groups[chosen]} for chosen in splits.values()]
        return sum(len(a & b) for i, a in enumerate(places) for b in places[:i])

    assert straddling(REQUEST) == 0
    assert straddling(replace(REQUEST, fold=1)) == 0
    assert straddling(replace(REQUEST, leaky=True)) > 20


def test_folds_part_the_set_and_each_has_its_own_validation() -> None:
    labels, groups = _images(200, 60)
    tests = []
    for fold in range(4):
        request = replace(REQUEST, fold=fold, folds=4)
        splits = make_splits(labels, groups, np.full(200, ""), request)
        tests.append(splits["test"])
        assert len(splits["test"]) == pytest.approx(50, abs=4)
        assert len(splits["val"]) == pytest.approx(30, abs=4)
    assert sorted(np.concatenate(tests)) == list(range(200))


def test_an_official_test_split_is_kept_and_validation_comes_from_train() -> None:
    labels, groups = np.repeat([0, 1], 100), np.arange(200).astype(np.str_)
    column = np.array(["train", "test", "", "extra"] * 50, dtype="<U5")
    splits = make_splits(labels, groups, column, replace(REQUEST, val_fraction=0.2))
    assert list(splits) == ["train", "val", "test", "extra"]
    for name in ("test", "extra"):
        np.testing.assert_array_equal(splits[name], np.flatnonzero(column == name))
    assert len(splits["val"]) == 20  # of the 100 that are neither test nor extra
    assert {*column[splits["val"]]} == {*column[splits["train"]]} == {"train", ""}
    with pytest.raises(InputError, match="data set made has an official test split: leave out fold=0"):
        make_splits(labels, groups, column, replace(REQUEST, fold=0))


def test_an_official_validation_split_is_kept() -> None:
    labels, groups = np.zeros(100, np.int64), np.arange(100).astype(np.str_)
    column = np.array(["train"] * 60 + ["val"] * 20 + [""] * 20, dtype="<U5")
    splits = make_splits(labels, groups, column, REQUEST)
    np.testing.assert_array_equal(splits["val"], np.arange(60, 80))
    assert len(splits["test"]) == 16  # a fifth of those without a place, and of train
    assert len(splits["train"]) == 64
    whole = make_splits(labels, groups, np.full(100, "train"), REQUEST)
    assert [len(whole[name]) for name in ("train", "val", "test")] == [65, 15, 20]


def test_a_fraction_of_nothing_makes_no_split() -> None:
    labels, groups = np.zeros(50, np.int64), np.arange(50).astype(np.str_)
    no_val = make_splits(labels, groups, np.full(50, ""), replace(REQUEST, val_fraction=0.0))
    assert [len(no_val[name]) for name in ("train", "val", "test")] == [40, 0, 10]
    no_test = make_splits(labels, groups, np.full(50, ""), replace(REQUEST, test_fraction=0.0, val_fraction=0.1))
    assert [len(no_test[name]) for name in ("train", "val", "test")] == [45, 5, 0]
    # A validation split as large as asked for would leave less than itself to train on: half of the rest is the most.
    large = make_splits(labels, groups, np.full(50, ""), replace(REQUEST, test_fraction=0.2, val_fraction=0.6))
    assert [len(large[name]) for name in ("train", "val", "test")] == [20, 20, 10]
    nothing = make_splits(labels[:0], groups[:0], np.full(0, ""), REQUEST)
    assert [len(chosen) for chosen in nothing.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_fraction": -0.1}, "val_fraction must be at least 0 and below 1, got -0.1"),
        ({"val_fraction": 1.0}, "val_fraction must be at least 0 and below 1, got 1.0"),
        ({"test_fraction": 1.0, "val_fraction": 0.0}, "test_fraction must be at least 0 and below 1"),
        ({"test_fraction": 0.5, "val_fraction": 0.5}, "must leave room for train, got 1.0"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"fold": 5}, r"fold 5 is not one of 0\.\.4"),
        ({"fold": -1}, r"fold -1 is not one of 0\.\.4"),
    ],
)
def test_fractions_and_folds_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    labels, groups = np.zeros(20, np.int64), np.arange(20).astype(np.str_)
    with pytest.raises(InputError, match=message):
        make_splits(labels, groups, np.full(20, ""), replace(REQUEST, **change))


def test_the_smallest_and_the_largest_that_can_be_are_taken() -> None:
    labels, groups = np.zeros(20, np.int64), np.arange(20).astype(np.str_)
    for change, num_test in (({"folds": 2, "fold": 0}, 10), ({"folds": 2, "fold": 1}, 10), ({"fold": 4}, 4)):
        splits = make_splits(labels, groups, np.full(20, ""), replace(REQUEST, **change))
        assert len(splits["test"]) == num_test


def test_an_image_whose_key_stands_in_a_later_split_is_dropped() -> None:
    keys = np.array([1, 2, 3, 2, 5, 3, 7, 7])
    splits = {name: np.array(chosen) for name, chosen in (("train", [0, 1, 2, 6]), ("val", [3, 4]), ("test", [5, 7]))}
    kept, num_dropped = drop_straddlers(keys, splits)
    assert {name: chosen.tolist() for name, chosen in kept.items()} == {"train": [0], "val": [3, 4], "test": [5, 7]}
    assert list(kept) == ["train", "val", "test"]
    assert num_dropped == 3
    # One that was itself dropped still keeps its copies out of earlier splits.
    twice = {"train": np.array([0]), "val": np.array([1]), "test": np.array([2])}
    assert drop_straddlers(np.array([9, 9, 9]), twice)[1] == 2


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=25))
@settings(max_examples=50, deadline=None)
def test_groups_that_share_a_key_are_connected_components(pairs: list[tuple[int, int]]) -> None:
    groups, keys = np.array([f"g{a:02d}" for a, _ in pairs]), np.array([b for _, b in pairs])
    merged = merge_groups(groups, keys)
    graph = coo_array((np.ones(len(pairs)), ([a for a, _ in pairs], [13 + b for _, b in pairs])), shape=(26, 26))
    component = connected_components(graph, directed=False)[1]
    for i, (a, _) in enumerate(pairs):
        members = [groups[j] for j, (other, _) in enumerate(pairs) if component[other] == component[a]]
        assert merged[i] == min(members)


def test_a_long_chain_of_copies_is_one_group() -> None:
    names = [f"g{i}" for i in range(1, 8)]
    groups = np.array([name for name in names for _ in (0, 1)])
    keys = np.array([i + j for i in range(7) for j in (0, 1)])
    for order in (np.arange(14), np.arange(14)[::-1]):
        assert set(merge_groups(groups[order], keys[order])) == {"g1"}


def test_groups_of_more_than_one_given_split_are_named() -> None:
    groups, column = _words("b", "b", "a", "a", "c", "c", "d"), _words("train", "test", "test", "val", "", "train", "")
    assert straddling_groups(groups, column) == ["a", "b"]


def test_a_limit_fills_all_cells_at_one_pace_as_by_loops() -> None:
    rng = RNG(1)
    labels, column = rng.choice(3, 90, p=[0.7, 0.2, 0.1]), rng.choice(["train", "test", ""], 90)
    cells = [(split, str(label)) for split, label in zip(column.tolist(), labels.tolist(), strict=True)]
    sizes = Counter(cells)
    for limit in (len(sizes), 30, 89):
        chosen = limit_images(labels, column, limit, seed=4)
        seen: Counter[tuple[str, str]] = Counter()
        ranked = []
        for place, image in enumerate(RNG([4, 11]).permutation(90)):
            cell = cells[image]
            ranked.append((seen[cell] / sizes[cell], place, image))
            seen[cell] += 1
        assert chosen.tolist() == sorted(image for _, _, image in sorted(ranked)[:limit])
        assert {cells[i] for i in chosen} == set(sizes)  # at least one of each
        kept = Counter(cells[i] for i in chosen)
        assert all(kept[cell] <= math.ceil(size * limit / 90) + 1 for cell, size in sizes.items())
    assert limit_images(labels, column, 90, 0).tolist() == list(range(90))
    assert limit_images(labels, column, 500, 0).tolist() == list(range(90))
    assert len(limit_images(labels, column, 1, 0)) == 1
    with pytest.raises(InputError, match="limit must be at least 1 image, got 0"):
        limit_images(labels, column, 0, 0)


def test_a_limit_may_leave_the_own_test_split_whole() -> None:
    labels, column = np.arange(60) % 3, np.repeat(["train", "val", "test"], 20)
    request = Request("set", None, 32, limit=12, whole_test=True)
    chosen = limit_request(labels, column, request)
    assert Counter(column[chosen].tolist()) == {"train": 6, "val": 6, "test": 20}
    assert limit_request(labels, column, replace(request, whole_test=False)).tolist() == (
        limit_images(labels, column, 12, 0).tolist()
    )
    with pytest.raises(InputError, match="whole_test: data set set has no test split of its own here: leave it out"):
        limit_request(labels[:40], column[:40], request)


def test_labels_as_columns_of_counts() -> None:
    assert one_hot(np.array([0, 2, 1])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert one_hot(np.array([[1, 0], [np.nan, 1]])).tolist() == [[1, 0], [0, 1]]
    assert one_hot(np.array([], dtype=np.int64)).shape == (0, 1)
