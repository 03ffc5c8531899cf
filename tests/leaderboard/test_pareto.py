"""Fronts against a second, slower algorithm and against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.leaderboard import pareto
from tutelage.leaderboard.export import columns_of, frame
from tutelage.records import InputError, Row


def row(auc, latency, **more):
    return Row(**{"model": "m", "role": "student", "dataset": "d", "auc": auc, "latency_p50_ms": latency, **more})


def slow_front(points, margin=(0.0, 0.0)):
    """By definition: (quality up, cost down), pair by pair."""
    flags = []
    for quality, cost in points:
        if quality is None or cost is None:
            flags.append(False)
            continue
        flags.append(
            not any(
                q >= quality and c <= cost and (q > quality + margin[0] or c < cost - margin[1])
                for q, c in points
                if q is not None and c is not None
            )
        )
    return flags


grid = st.one_of(st.none(), st.integers(0, 6).map(float))
points = st.lists(st.tuples(grid, grid), max_size=25)


@pytest.mark.slow
@given(points=points)
@settings(max_examples=150, deadline=None)
def test_the_front_is_what_its_definition_says(points):
    rows = [row(*point) for point in points]
    assert pareto.front(rows, ("auc", "latency_p50_ms")) == slow_front(points)
    if rows:
        assert pareto.front(frame(rows), ("auc", "latency_p50_ms")) == slow_front(points)


@given(points=points, margin=st.tuples(st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 1.0, 2.5])))
@settings(max_examples=100, deadline=None)
def test_near_ties_stay_on_the_front(points, margin):
    rows = [row(*point) for point in points]
    epsilon = {"auc": margin[0], "latency_p50_ms": margin[1]}
    flags = pareto.front(rows, ("auc", "latency_p50_ms"), epsilon=epsilon)
    assert flags == slow_front(points, margin)
    exact = pareto.front(rows, ("auc", "latency_p50_ms"))
    assert all(near or not strict for near, strict in zip(flags, exact, strict=True))


@pytest.mark.parametrize("column", ["dataset", "device", "split", "batch", "threads", "source"])
def test_rows_of_different_ground_are_never_on_one_front(column):
    other = {"batch": 8, "threads": 2, "source": "imported"}.get(column, "other")
    good, bad = row(0.9, 1.0), row(0.8, 2.0)
    assert pareto.front([good, bad], ("auc", "latency_p50_ms")) == [True, False]
    assert pareto.front([good, bad.model_copy(update={column: other})], ("auc", "latency_p50_ms")) == [True, True]


def test_an_empty_figure_never_wins():
    rows = [row(None, 0.001), row(0.99, None), row(0.5, 9.0)]
    assert pareto.front(rows, ("auc", "latency_p50_ms")) == [False, False, True]
    assert pareto.on_front(rows) == [False, False, True]
    assert pareto.front([row(None, None)], ("auc",)) == [False]
    assert pareto.front([], ("auc",)) == []


def test_a_column_that_is_absent_is_empty_in_every_row():
    rows = [row(0.9, 1.0), row(0.8, 2.0)]
    columns = {name: values for name, values in columns_of(rows).items() if name != "latency_p50_ms"}
    for some in (columns, frame(rows).drop(columns="latency_p50_ms")):
        assert pareto.front(some, ("auc",)) == [True, False]
        assert pareto.front(some, ("auc", "latency_p50_ms")) == [False, False]
        assert pareto.front_with_intervals(some, ("auc", "latency_p50_ms")) == ["no", "no"]
    assert pareto.front(frame(rows)[:0], ("auc",)) == []


def test_the_default_front_uses_what_a_group_has():
    no_device = [Row(model=name, role="student", dataset="d", accuracy=acc) for name, acc in (("a", 0.8), ("b", 0.9))]
    assert pareto.on_front(no_device) == [False, True]
    with_size = [r.model_copy(update={"size_bytes": size}) for r, size in zip(no_device, (1, 2), strict=True)]
    assert pareto.on_front(with_size) == [True, True]
    assert pareto.on_front([Row(model="a", role="student", dataset="d")]) == [False]
    assert list(frame([]).columns)


def test_a_group_without_a_quality_has_no_front_and_leaves_the_others_theirs():
    bare = [Row(model="m", role="student", dataset=name, size_bytes=1) for name in ("a", "z")]
    assert pareto.on_front([bare[0], row(0.9, 1.0), row(0.8, 2.0), bare[1]]) == [False, True, False, False]


def test_directions_may_be_turned_and_unknown_objectives_are_refused():
    rows = [row(0.9, 1.0), row(0.8, 2.0)]
    assert pareto.front(rows, ("auc", "latency_p50_ms:max")) == [True, True]
    assert pareto.front(rows, {"auc": "min"}) == [False, True]
    assert pareto.parse_objectives("latency_p50_ms, auc") == {"latency_p50_ms": "min", "auc": "max"}
    assert pareto.parse_objectives("auc:min,latency_p50_ms:max") == {"auc": "min", "latency_p50_ms": "max"}
    assert pareto.front(rows, ("auc:min", "latency_p50_ms")) == [True, True]
    for wrong in ("speed", "auc:up", ""):
        with pytest.raises(InputError):
            pareto.parse_objectives(wrong)


def test_intervals_say_how_sure_a_place_on_the_front_is():
    def known(auc, half, latency):
        return row(auc, latency, auc_lo=auc - half, auc_hi=auc + half)

    objectives = ("auc", "latency_p50_ms")
    # The fastest cannot be beaten; the second's interval lies above the first's; the third's reaches the second's;
    # the fourth at its best is still below the second at its worst.
    rows = [known(0.80, 0.01, 1.0), known(0.90, 0.01, 2.0), known(0.895, 0.02, 3.0), known(0.85, 0.02, 4.0)]
    assert pareto.front_with_intervals(rows, objectives) == ["sure", "sure", "maybe", "no"]
    exact = [row(0.8, 1.0), row(0.9, 2.0), row(0.85, 3.0), row(None, 0.1)]
    assert pareto.front_with_intervals(exact, objectives) == ["sure", "sure", "no", "no"]


@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_without_intervals_the_front_is_sure(points):
    rows = [row(None, None, params=params, macs=macs) for params, macs in points]
    verdicts = pareto.front_with_intervals(rows, {"params": "max", "macs": "min"})
    assert [verdict == "sure" for verdict in verdicts] == slow_front(points)


OBJECTIVES = ("auc", "latency_p50_ms")


def test_a_difference_that_nobody_can_see_is_a_tie():
    for hardly_worse in (row(0.94995, 2.0, size_bytes=9), row(0.95, 2.08, size_bytes=9)):
        rows = [row(0.95, 2.0, size_bytes=9), hardly_worse]
        assert pareto.on_front(rows) == [True, True]
        assert pareto.front(rows, OBJECTIVES) == [True, False]
        assert pareto.front_with_intervals(rows, OBJECTIVES) == ["maybe", "maybe"]
        assert pareto.dominated_by(rows, 1, OBJECTIVES) == []
    rows = [row(0.95, 2.0, size_bytes=9), row(0.949, 2.2, size_bytes=9)]
    assert pareto.on_front(rows) == [True, False]
    assert pareto.front_with_intervals(rows, OBJECTIVES) == ["sure", "no"]
    assert [one.by for one in pareto.dominated_by(rows, 1, OBJECTIVES)] == [0]


def test_a_latency_that_is_known_badly_is_a_tie_further_apart():
    """2.0 and 2.3 ms are 15 % apart: a difference, unless one of them was measured with that much spread."""
    clear = [row(0.95, 2.0), row(0.90, 2.3)]
    assert pareto.front_with_intervals(clear, OBJECTIVES) == ["sure", "no"]
    bounds = {"latency_p50_ms_lo": 1.9, "latency_p50_ms_hi": 2.7}
    unclear = [clear[0], row(0.90, 2.3, details=bounds)]
    assert pareto.front_with_intervals(unclear, OBJECTIVES) == ["sure", "maybe"]
    columns = columns_of(unclear)
    assert pareto.front_with_intervals(columns, OBJECTIVES) == ["sure", "maybe"]
    assert pareto.front_with_intervals(frame(unclear), OBJECTIVES) == ["sure", "maybe"]


# AUC, how far its interval reaches down and up, ms, how far its interval reaches, all in steps that may tie or not.
measured = st.tuples(
    st.integers(0, 40), st.integers(0, 8), st.integers(0, 8), st.integers(0, 40), st.integers(0, 8), st.booleans()
)


def measured_row(drawn):
    auc, down, up, steps, spread, has_interval = drawn
    value, latency = 0.9 + auc / 4000, 1.02**steps
    more = {"auc_lo": value - down / 4000, "auc_hi": value + up / 4000} if has_interval else {}
    if has_interval:
        more["details"] = {
            "latency_p50_ms_lo": latency / 1.02**spread,
            "latency_p50_ms_hi": latency * 1.02**spread,
        }
    return row(value, latency, **more)


def spans_of(one):
    """The ends of AUC and latency, best first, by the definition: never narrower than .0005 and 5 %."""
    found = [
        [one.auc + 0.00025, one.auc - 0.00025],
        [one.latency_p50_ms / 1.05**0.5, one.latency_p50_ms * 1.05**0.5],
    ]
    if one.auc_hi is not None:
        found[0] = [max(found[0][0], one.auc_hi), min(found[0][1], one.auc_lo)]
        found[1] = [
            min(found[1][0], one.details["latency_p50_ms_lo"]),
            max(found[1][1], one.details["latency_p50_ms_hi"]),
        ]
    return found


@given(first=measured, second=measured)
@settings(max_examples=200, deadline=None)
def test_what_is_better_beyond_intervals_in_all_dominates_and_a_tie_never_does(first, second):
    rows = [measured_row(first), measured_row(second)]
    (auc_a, ms_a), (auc_b, ms_b) = map(spans_of, rows)
    verdicts = pareto.front_with_intervals(rows, OBJECTIVES)
    if auc_a[1] > auc_b[0] and ms_a[1] < ms_b[0]:
        assert verdicts == ["sure", "no"]
        assert pareto.front(rows, OBJECTIVES) == [True, False]
        assert [one.by for one in pareto.dominated_by(rows, 1, OBJECTIVES)] == [0]
    if auc_a[1] < auc_b[0] and auc_b[1] < auc_a[0] and ms_a[1] > ms_b[0] and ms_b[1] > ms_a[0]:
        assert "no" not in verdicts
        assert "sure" not in verdicts


@given(drawn=st.lists(measured, min_size=1, max_size=12), extra=measured)
@settings(max_examples=150, deadline=None)
def test_a_dominated_row_that_is_added_changes_no_front(drawn, extra):
    rows = [measured_row(one) for one in drawn]
    longer = [*rows, measured_row(extra)]
    verdicts, more = (pareto.front_with_intervals(some, OBJECTIVES) for some in (rows, longer))
    if more[-1] == "no":
        assert more[:-1] == verdicts
    sized = [[one.model_copy(update={"size_bytes": 5}) for one in some] for some in (rows, longer)]
    flags, more_flags = map(pareto.on_front, sized)
    if not more_flags[-1]:
        assert more_flags[:-1] == flags
    assert all(flag or verdict != "sure" for flag, verdict in zip(flags, verdicts, strict=True))
    assert not any(flag and verdict == "no" for flag, verdict in zip(flags, verdicts, strict=True))


def test_a_dominated_row_names_what_dominates_it_and_by_how_much():
    rows = [row(0.9, 2.0), row(0.95, 1.5), row(0.96, 1.0), row(0.9, 0.1, device="other")]
    reasons = pareto.dominated_by(rows, 0, ("auc", "latency_p50_ms"))
    assert [reason.by for reason in reasons] == [2, 1]
    assert reasons[0].gains == pytest.approx({"auc": 0.06, "latency_p50_ms": 1.0})
    assert pareto.dominated_by(rows, 2, ("auc", "latency_p50_ms")) == []
    assert pareto.dominated_by([row(None, 2.0), *rows], 0, ("auc", "latency_p50_ms")) == []
    # Equal on one objective is no worse.
    assert [reason.by for reason in pareto.dominated_by([row(0.9, 2.0), row(0.9, 1.0)], 0, OBJECTIVES)] == [1]
    # Those on the front come first, whatever their latency: .95 at .9 ms is dominated by .96 at .8 ms.
    more = [row(0.9, 2.0), row(0.95, 0.9), row(0.96, 0.8), row(0.97, 1.5)]
    assert [reason.by for reason in pareto.dominated_by(more, 0, ("latency_p50_ms", "auc"))] == [2, 3, 1]


def test_three_objectives_agree_with_pymoo():
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 30, (300, 3)).astype(float)
    rows = [row(auc, latency, size_bytes=int(size)) for auc, latency, size in drawn]
    flags = pareto.front(rows, ("auc", "latency_p50_ms", "size_bytes"))
    first = NonDominatedSorting().do(drawn * [-1, 1, 1], only_non_dominated_front=True)
    assert sorted(np.flatnonzero(flags)) == sorted(first)


def intervals_by_definition(rows, objectives):
    """The verdicts from their definition: every pair of rows is looked at."""
    spans = [
        [
            {
                "auc": (-spans_of(row)[0][0], -spans_of(row)[0][1]),
                "latency_p50_ms": tuple(spans_of(row)[1]),
                "params": (row.params, row.params),
            }[name]
            for name in objectives
        ]
        for row in rows
    ]

    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    best = [tuple(low for low, _ in span) for span in spans]
    worst = [tuple(high for _, high in span) for span in spans]
    found = []
    for place in range(len(rows)):
        others = [other for other in range(len(rows)) if other != place]
        if not any(beats(best[other], worst[place]) for other in others):
            found.append("sure")
        else:
            found.append("no" if any(beats(worst[other], best[place]) for other in others) else "maybe")
    return found


@given(
    st.lists(
        st.tuples(measured, st.integers(1, 3)),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_quick_verdicts_are_those_of_the_definition(drawn):
    rows = [
        measured_row(one).model_copy(update={"model": str(n), "params": params})
        for n, (one, params) in enumerate(drawn)
    ]
    objectives = ("auc", "latency_p50_ms", "params")
    assert pareto.front_with_intervals(rows, objectives) == intervals_by_definition(rows, objectives)
    columns = columns_of(rows)
    assert pareto.front_with_intervals(columns, objectives) == pareto.front_with_intervals(rows, objectives)
    assert pareto.on_front(columns) == pareto.on_front(rows)


def test_ties_are_read_in_the_units_of_their_figures():
    objectives = ("latency_p50_ms", "auc")
    assert pareto.parse_ties("0.005", objectives) == {"auc": 0.005}
    assert pareto.parse_ties("auc=1%, latency_p50_ms=20us", objectives) == {"auc": 0.01, "latency_p50_ms": 0.02}
    for text in ("much", "size_bytes=1MB", "auc=-1", "latency_p50_ms=50kB", "auc=5ms", "3", "auc=1", "0.1,auc=0.2"):
        with pytest.raises(InputError, match="--ties"):
            pareto.parse_ties(text, objectives)


def test_a_figure_is_named_once_in_a_front():
    with pytest.raises(InputError, match="auc is given twice"):
        pareto.parse_objectives("auc,latency_p50_ms,auc:min")
