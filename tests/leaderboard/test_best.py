"""The best student is chosen on validation data by one rule: equivalent, then bytes, latency, control first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.leaderboard.best import Candidate, best_student, best_students, best_teacher, choose, quality_of
from tutelage.records import Comparison, Row

FILE = {"how": {"file": {"path": "artifacts/model.onnx", "sha256": "0"}}}


def student(model, auc, size=100, latency=1.0, teacher="", **more):
    """A row whose test AUC runs the other way: it must have no say."""
    details = {**FILE, "validation": {"auc": auc, "accuracy": auc}, **more.pop("details", {})}
    fields = {"role": "student", "dataset": "d", "auc": 1 - auc, "device": "x", **more}
    return Row(model=model, teacher=teacher, size_bytes=size, latency_p50_ms=latency, details=details, **fields)


def compared(verdict, figure="auc"):
    """A comparison whose interval makes the verdict what it is called."""
    low, high = {"equivalent": (-0.002, 0.001), "inconclusive": (-0.03, 0.02), "lost": (-0.05, -0.02)}[verdict]
    p = 0.001 if verdict == "lost" else 0.5
    return Comparison(
        claim="file", figure=figure, difference=(low + high) / 2, low=low, high=high, p=p,
        margin=0.01, num_seeds=1, num_groups=50,
    )  # fmt: skip


def test_int8_of_the_same_quality_wins_over_fp32_three_times_its_size():
    rows = [student("fp32", 0.9640, 300), student("int8", 0.9637, 100, scheme="int8-ptq")]
    assert best_student(rows).model == "int8"
    assert best_student(rows, lambda first, second: [compared("equivalent")]).model == "int8"
    # A test that cannot say so, or says otherwise, outweighs two figures that happen to be near.
    for verdict in ("inconclusive", "lost"):
        assert best_student(rows, lambda first, second, verdict=verdict: [compared(verdict)]).model == "fp32"
    assert best_student(rows, lambda first, second: [compared("lost", "accuracy")]).model == "int8"


def test_a_control_that_is_better_wins_over_the_distilled():
    rows = [student("distilled", 0.941, 50, 0.5, teacher="t"), student("control", 0.964, 100, 1.0)]
    assert best_student(rows).model == "control"


@pytest.mark.parametrize(
    ("difference", "p", "others", "wins"),
    [(0.02, 0.2, 0, "control"), (0.02, 0.03, 0, "distilled"), (0.02, 0.03, 1, "control"), (0.004, 0.001, 0, "control")],
)
def test_a_distilled_student_that_has_not_surely_gained_leaves_its_control_the_best(difference, p, others, wins):
    """The highest validation figure alone is noise; each further choice of teachers is a further test (Bonferroni)."""
    rows = [student("s", 0.964, teacher=""), student("s", 0.964 + difference, teacher="t", latency=0.5)]
    rows += [student("s", 0.9, teacher=f"u{number}") for number in range(others)]
    tested = compared("inconclusive").model_dump(exclude={"verdict"})

    def test(first, second):
        gap = first.details["validation"]["auc"] - second.details["validation"]["auc"]
        half = abs(gap) * 2 if p >= 0.05 else abs(gap) / 2
        return [Comparison(**tested | {"difference": gap, "low": gap - half, "high": gap + half, "p": p})]

    best = best_student(rows, test)
    assert best.teacher == ("t" if wins == "distilled" else "")


def test_of_equal_bytes_the_control_wins_within_the_margin_and_loses_beyond_it():
    rows = [student("distilled", 0.970, teacher="t", latency=0.99), student("control", 0.964)]
    assert best_student(rows).model == "control"  # 1 % of latency and some bytes are no difference
    assert best_student([rows[0], student("control", 0.964, 101)]).model == "control"
    assert best_student([rows[0], student("control", 0.95)]).model == "distilled"
    assert best_student(rows, margin=0.005).model == "distilled"


def test_the_margin_itself_still_is_equivalent():
    assert best_student([student("fp32", 0.964, 300), student("int8", 0.954, 100)]).model == "int8"


def test_after_bytes_the_latency_decides_unless_it_is_a_tie():
    rows = [student("slow", 0.96, latency=1.2), student("quick", 0.955, latency=1.0, teacher="t")]
    assert best_student(rows).model == "quick"
    wide = {"latency_p50_ms_lo": 0.9, "latency_p50_ms_hi": 1.3}
    assert best_student([rows[0], student("quick", 0.955, teacher="t", details=wide)]).model == "slow"


def test_only_what_can_be_deployed_competes():
    good = student("good", 0.9)
    others = [
        student("no file", 0.99, details={"how": {}}),
        student("imported", 0.99, source="imported"),
        student("teacher", 0.99, role="teacher"),
        student("baseline", 0.99, role="baseline"),
        student("not validated", 0.99, details={"validation": {}}),
    ]
    assert best_student([*others, good]).model == "good"
    assert best_student(others) is None


def test_rows_of_older_data_and_of_other_devices_do_not_compete():
    old = student("old data", 0.99, created="2026-01-01T00:00:00Z", manifest="old")
    here = student("here", 0.90, created="2026-02-01T00:00:00Z")
    there = student("there", 0.90, 10, device="y", created="2026-02-01T00:00:01Z")
    assert best_student([old, here, there]).model == "here"
    assert [row.model for row in best_students([old, here, there])] == ["here", "there", "old data"]


def test_newer_data_without_a_figure_leave_the_older_their_best():
    bare = student("bare", 0.9, created="2026-02-01T00:00:00Z", details={"validation": {}}, manifest="new")
    older = student("older", 0.8, created="2026-01-01T00:00:00Z")
    assert [row.model for row in best_students([bare, older])] == ["older"]


def test_a_figure_of_0_is_a_figure():
    assert best_student([student("large", 0.005, 300), student("small", 0.0, 100)]).model == "small"


def test_without_auc_accuracy_chooses():
    rows = [student(name, auc, details={"validation": {"accuracy": auc}}) for name, auc in (("a", 0.7), ("b", 0.8))]
    assert best_student(rows).model == "b"


def test_the_best_teacher_is_the_one_as_trained():
    rows = [student(name, auc, role="teacher", scheme=scheme) for name, auc, scheme in
            (("a", 0.8, "fp32"), ("b", 0.9, "fp32"), ("b8", 0.95, "int8-ptq"))]  # fmt: skip
    assert best_teacher(rows).model == "b"
    assert best_teacher([student("s", 0.9)]) is None


figures = st.tuples(st.integers(0, 30), st.integers(1, 4), st.integers(1, 4), st.booleans())


@given(drawn=st.lists(figures, min_size=1, max_size=8), seed=st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_choice_is_within_the_margin_and_no_order_changes_what_it_costs(drawn, seed):
    candidates = [Candidate(0.9 + q / 1000, size, (ms, ms), distilled) for q, size, ms, distilled in drawn]
    chosen = candidates[choose(candidates, lambda place, best: None)]
    near = [one for one in candidates if max(c.quality for c in candidates) - one.quality <= 0.01 + 1e-9]
    key = [(one.size_bytes, one.latency_ms, one.is_distilled, -one.quality) for one in near]
    assert (chosen.size_bytes, chosen.latency_ms, chosen.is_distilled, -chosen.quality) == min(key)
    seed.shuffle(candidates)
    assert candidates[choose(candidates, lambda place, best: None)] == chosen
    best = choose(candidates, lambda place, best: False)
    assert candidates[best].quality == max(one.quality for one in candidates)


def test_there_must_be_a_candidate():
    with pytest.raises(ValueError, match="no candidate"):
        choose([], lambda place, best: None)


def validated(**figures):
    return student("m", 0.5, details={"validation": figures})


def test_the_figure_that_every_row_has_chooses_before_one_that_some_have():
    assert quality_of([validated(auc=0.9, accuracy=0.8), validated(accuracy=0.7)]) == "accuracy"
    assert quality_of([validated(auc=0.9, accuracy=0.8), validated(auc=0.7)]) == "auc"
    assert quality_of([validated(auc=0.9), validated()]) == "auc"
    assert quality_of([validated(auc="high"), validated(accuracy=None)]) is None
    assert quality_of([]) is None
    assert quality_of([student("m", 0.5, details={"validation": "none"})]) is None


def test_a_best_teacher_without_fp32_or_without_validation():
    quantised = [student(name, auc, role="teacher", scheme="int8-ptq") for name, auc in (("a", 0.8), ("b", 0.9))]
    assert best_teacher(quantised).model == "b"
    assert best_teacher([student("i", 0.95, role="teacher", source="imported"), *quantised]).model == "b"
    bare = [student(name, 0.5, role="teacher", details={"validation": {}}) for name in ("first", "second")]
    assert best_teacher(bare).model == "first"


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([Candidate(0.9, None, None), Candidate(0.9, 100, None)], 1),  # a size that is known comes first,
        ([Candidate(0.9, 100, None), Candidate(0.9, 100, (1, 2))], 1),  # and a latency
        ([Candidate(0.9, 101, (1, 1)), Candidate(0.9, 100, (2, 2))], 0),  # 1 % of bytes is a tie,
        ([Candidate(0.9, 101.5, (1, 1)), Candidate(0.9, 100, (2, 2))], 1),  # more is not
        ([Candidate(0.9, 100, (1, 2), True), Candidate(0.9, 100, (2, 3))], 1),  # spans that meet are a tie
        ([Candidate(0.9, 100, (1, 2), True), Candidate(0.9, 100, (2.1, 3))], 0),
        ([Candidate(0.9, 100, None), Candidate(0.901, 100, None)], 1),  # of what costs the same, the better,
        ([Candidate(0.9, 100, None), Candidate(0.9, 100, None)], 0),  # then the first
    ],
)
def test_which_cost_decides(candidates, expected):
    assert choose(candidates, lambda place, best: True) == expected


def test_others_are_compared_with_the_cheapest_of_the_best():
    asked = []
    candidates = [Candidate(0.9, 300, None), Candidate(0.9, 100, None), Candidate(0.8, 50, None)]
    assert choose(candidates, lambda place, best: asked.append((place, best)) or False) == 1
    assert asked == [(0, 1), (2, 1)]
    asked.clear()
    candidates = [Candidate(0.9, 100, None, True), Candidate(0.9, 101, None), Candidate(0.8, 50, None)]
    assert choose(candidates, lambda place, best: asked.append((place, best)) or False) == 1
    assert asked == [(0, 1), (2, 1)]  # of what costs the same, with the control


def test_how_a_file_was_made_must_be_on_record():
    assert best_student([student("m", 0.9, details={"how": "by hand"})]) is None


def test_the_margin_is_that_of_the_rows_recipes_and_the_narrowest_of_several():
    def by_margins(first, second, test=None):
        rows = [student("fp32", 0.964, 300), student("int8", 0.949, 100)]
        for row, margin in zip(rows, (first, second), strict=True):
            row.details["how"] = {**row.details["how"], "recipe": {"measure": {"margin": margin}}}
        return best_student(rows, test).model

    assert by_margins(None, None) == "fp32"  # .015 apart, and .01 is the default
    assert by_margins(0.02, 0.02) == by_margins(0.02, None) == "int8"
    assert by_margins(0.02, 0.012) == "fp32"

    def test(first, second):  # a test of a margin of its own: its interval counts, not its verdict
        return [compared("equivalent").model_copy(update={"low": -0.018, "high": 0.002})]

    assert by_margins(0.02, 0.02, test) == "int8"
    assert by_margins(0.02, 0.012, test) == by_margins(None, None, test) == "fp32"
