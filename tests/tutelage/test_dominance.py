"""Fronts and what points beat, by sorting, against a comparison of every pair."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.dominance import beaten, undominated

figure = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, np.inf, np.nan])
tie = st.sampled_from([-0.5, 0.0, 0.5, 1.5])


@st.composite
def drawn(draw):
    """Costs with ties and missing figures, their bars, and other points, of one to four objectives."""
    width = draw(st.integers(1, 4))
    costs = draw(st.lists(st.lists(figure, min_size=width, max_size=width), max_size=20))
    points = draw(st.lists(st.lists(figure, min_size=width, max_size=width), max_size=20))
    less = draw(st.lists(tie, min_size=width, max_size=width))
    shape = (-1, width)
    costs = np.array(costs, dtype=float).reshape(shape)
    return costs, costs - np.array(less), np.array(points, dtype=float).reshape(shape)


def pair_by_pair(points, costs, bars, own=None):
    flags = []
    for place, (cost, bar) in enumerate(zip(costs, bars, strict=True)):
        others = [point for other, point in enumerate(points) if own is None or own[place] != other]
        flags.append(any((point <= cost).all() and (point < bar).any() for point in others))
    return flags


@given(drawn())
@settings(max_examples=400, deadline=None)
def test_points_beat_what_a_comparison_of_every_pair_says(one):
    costs, bars, points = one
    assert beaten(points, costs, bars).tolist() == pair_by_pair(points, costs, bars)
    own = np.arange(len(costs))
    assert beaten(costs, bars, bars, own).tolist() == pair_by_pair(costs, bars, bars, own)


@given(drawn())
@settings(max_examples=400, deadline=None)
def test_a_front_is_what_a_comparison_of_every_pair_says(one):
    costs, bars, _ = one
    for by in (bars, costs):
        out = pair_by_pair(costs, costs, by)
        there = (~np.isnan(costs).any(axis=1)).tolist()
        expected = [is_there and not is_out for is_there, is_out in zip(there, out, strict=True)]
        assert undominated(costs, by).tolist() == expected


def test_a_large_front_is_that_of_a_comparison_of_every_pair():
    """Of rows that the few strong points leave: most of them are on the front."""
    rng = np.random.default_rng(0)
    for width in (2, 3):
        costs = rng.integers(0, 60, (900, width)).astype(float)
        costs[:, -1] = 120 - costs[:, :-1].sum(axis=1) + rng.integers(0, 4, 900)
        bars = costs - np.array([0.0, 2.0, 1.0])[:width]
        for by in (bars, costs):
            out = ((costs[:, None] <= costs).all(axis=2) & (costs[:, None] < by).any(axis=2)).any(axis=0)
            assert (undominated(costs, by) == ~out).all()
        assert 50 < out.sum() < 850
