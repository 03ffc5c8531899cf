"""Pictures: every format is written, nothing overlaps, the same rows give the same bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from tutelage.leaderboard import pareto
from tutelage.leaderboard.names import MOST_LETTERS, short_title
from tutelage.leaderboard.plots import curves
from tutelage.leaderboard.plots.front import pareto_plot
from tutelage.leaderboard.plots.labels import place_labels
from tutelage.leaderboard.plots.search import _front, axis_words, search_front_plot, search_trials_plot
from tutelage.records import InputError, Row

HEADS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def group(demo):
    return [row for row in demo[0] if row.dataset == "cxr3" and row.device == "host-ort"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", HEADS)
def test_a_pareto_plot_is_a_real_file_and_the_same_each_time(tmp_path, group, ending):
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    pareto_plot(group, paths)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(HEADS[ending])
    assert first == second
    if ending == ".png":
        assert Image.open(paths[0]).width >= 1400  # two panels of 3.4 inches at 220 dots an inch


@pytest.mark.parametrize(("num_marks", "seed"), [(12, 0), (12, 1), (12, 2), (12, 3), (5, 0), (5, 2)])  # 5: with room
def test_labels_cover_no_mark_or_limit_and_not_each_other_and_are_nearest_to_their_own_mark(num_marks, seed):
    rng = np.random.default_rng(seed)
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    x, y = np.sort(rng.uniform(0, 1, num_marks)), np.sort(rng.uniform(0, 1, num_marks))
    panel.plot(x, y, "o", markersize=5)
    panel.step(x, y, where="post")
    panel.plot(x[:2], y[:2], "*", markersize=14)
    limits = (0.3, 0.7) if num_marks == 12 else (0.5,)
    for limit in limits:
        panel.axvline(limit)
    for place in range(num_marks):
        panel.annotate(f"network {place}", (x[place], y[place]), fontsize=6.5)
    figure.canvas.draw()
    place_labels(panel)
    figure.canvas.draw()
    shown = [child for child in panel.get_children() if isinstance(child, Annotation) and child.get_visible()]
    boxes = [super(Annotation, label).get_window_extent() for label in shown]
    assert len(boxes) >= 4
    marks = panel.transData.transform(np.stack([x, y], axis=1))
    for place, box in enumerate(boxes):
        assert not any(box.contains(*mark) for mark in marks)
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        across = panel.transData.transform([(limit, 0.0) for limit in limits])[:, 0]
        # Where it is crowded a label on a limit is better than none.
        assert num_marks == 12 or not any(box.x0 < x < box.x1 for x in across)
        gaps = np.hypot(*(marks - np.clip(marks, box.min, box.max)).T)
        assert (gaps[:2] >= 7).all()  # half of a star, in pixels at 72 dots an inch
        own = np.flatnonzero((x == shown[place].xy[0]) & (y == shown[place].xy[1]))
        assert shown[place].arrow_patch is not None or gaps.argmin() == own


@pytest.mark.parametrize("cost", ["latency_p50_ms", "size_bytes"])
def test_a_front_is_shown_where_it_lives_with_names_without_lines(tmp_path, group, monkeypatch, cost):
    """One network that failed, the cheapest of all and so on the front, neither sets the range nor is left out."""
    drawn: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (drawn.append(self), real(self, *args, **more)))
    failed = {"model": "failed", "auc": 0.5, "auc_lo": 0.45, "auc_hi": 0.55, "latency_p50_ms": 0.01, "size_bytes": 9}
    pareto_plot([*group, group[0].model_copy(update=failed)], tmp_path / "a.png", x=cost)
    (panel,) = drawn[0].axes
    assert panel.get_ylim()[0] > 0.8
    assert any(text.get_text().endswith(" below") for text in panel.texts)
    shown = [child for child in panel.get_children() if isinstance(child, Annotation) and child.get_visible()]
    assert all(label.arrow_patch is None and "failed" not in label.get_text() for label in shown)


def test_only_what_lies_below_the_axis_is_marked_below_it():
    """A row below the usual range may lie in the room at the axis's edge, where its own mark is drawn."""
    from tutelage.leaderboard.plots.ranges import mark_below

    panel = Figure().subplots()
    mark_below(panel, [(1.0, 0.947), (2.0, 0.5), (3.0, 0.98)], 0.95, 0.99)
    assert panel.get_ylim()[0] < 0.947
    assert [line.get_xdata().tolist() for line in panel.lines] == [[2.0]]
    assert [text.get_text() for text in panel.texts] == ["1 below"]


def test_the_usual_range_holds_the_front_and_most_rows():
    from tutelage.leaderboard.plots.ranges import usual_range

    assert usual_range([0.5, 0.95, 0.96, 0.97], [0.5, 0.96, 0.97]) == (pytest.approx(0.925), 0.97)
    assert usual_range([0.94, 0.95, 0.96], [0.96]) == (0.94, 0.96)  # nothing is far below
    assert usual_range([0.9, 1.0, 1.0, 1.0], [1.0]) == (0.97, 1.0)
    assert usual_range([0.7], []) == (0.7, 0.7)


@pytest.mark.parametrize("draw", ["pareto", "arrows"])
def test_nothing_sticks_out_of_a_picture_of_column_width(tmp_path, group, monkeypatch, draw):
    """The legend lies inside a single panel's figure, 3.4 inches wide, which constrained layout does not see to."""
    drawn: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (drawn.append(self), real(self, *args, **more)))
    if draw == "pareto":
        pareto_plot(group, tmp_path / "a.png", x="latency_p50_ms")
    else:
        curves.arrows_plot(group, tmp_path / "a.png")
    (figure,) = drawn
    assert figure.get_figwidth() == pytest.approx(3.4)
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0
    assert box.x1 <= whole.x1
    assert box.y0 >= whole.y0


def test_a_large_leaderboard_is_drawn_by_an_even_share_and_whole_fronts():
    from tutelage.leaderboard.export import frame
    from tutelage.leaderboard.plots.front import chosen_ids

    rng = np.random.default_rng(0)
    rows = [
        Row(
            **{"model": str(n), "role": "student", "dataset": "d"},
            auc=float(rng.uniform(0.5, 1)),
            latency_p50_ms=float(rng.uniform(1, 9)),
        )
        for n in range(4500)
    ]
    found = frame(rows)
    chosen = set(chosen_ids(found))
    assert 1500 <= len(chosen) < 2100
    front = pareto.front(found, ("latency_p50_ms", "auc"))
    assert {row.key for row, flag in zip(rows, front, strict=True) if flag} <= chosen
    assert chosen_ids(found[:7]) == [row.key for row in rows[:7]]


def test_a_title_is_no_formula(tmp_path, group):
    pareto_plot(group, tmp_path / "p.svg", title=r"$\no formula$")
    assert (tmp_path / "p.svg").stat().st_size > 0


def test_what_cannot_be_drawn_is_reported(tmp_path, group):
    out = tmp_path / "a.png"
    for draw, words in (
        (lambda: pareto_plot([], out), "nothing to draw"),
        (lambda: pareto_plot(group, out, x="speed"), "speed"),
        (lambda: pareto_plot(group[:2], tmp_path / "a.xyz"), "cannot be drawn"),
        (lambda: curves.arrows_plot(group[:1], out), "no arrow"),
        (lambda: curves.predicted_plot([1.0], [1.0, 2.0], out), "one length"),
        (lambda: curves.predicted_plot([1.0, math.nan], [1.0, 2.0], out), "not finite"),
        (lambda: curves.hypervolume_plot({}, out), "nothing to draw"),
    ):
        with pytest.raises(InputError, match=words):
            draw()


def test_predictions_that_are_all_alike_have_no_rank(tmp_path):
    path = tmp_path / "predicted.svg"
    curves.predicted_plot([0.5, 0.5], [0.3, 0.31], path)
    assert "2 networks, mean error 64.0 %<" in path.read_text()
    curves.predicted_plot([1.0, 2.0], [1.0, 2.0], path)
    assert "2 networks, mean error 0.0 %, Kendall's tau 1.00<" in path.read_text().replace("&#x27;", "'")


@pytest.mark.slow
def test_every_picture_is_drawn(tmp_path, group):
    curves.arrows_plot(group, tmp_path / "arrows.png")
    curves.predicted_plot([1.0, 2.1, 2.9], [1.0, 2.0, 3.0], tmp_path / "predicted.png")
    curves.hypervolume_plot({"random": [(10, 0.5), (20, 0.6)], "nsga2": [(10, 0.6)]}, tmp_path / "volume.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_arrows_join_twin_to_student_and_student_to_int8(group):
    pairs = {(start.model, end.model) for start, end in curves._steps(group)}
    assert ("student-a alone", "student-a <- deit_tiny") in pairs
    assert ("student-a <- deit_tiny", "student-a <- deit_tiny int8") in pairs
    assert ("student-a alone", "student-a <- deit_tiny int8") not in pairs
    assert isinstance(group[0], Row)


def test_arrows_find_kin_that_share_one_model_name():
    alone = Row(model="net", role="student", dataset="d", auc=0.8)
    distilled = alone.model_copy(update={"teacher": "vit", "control": "net"})
    small = distilled.model_copy(update={"scheme": "int8-ptq", "parent": "net"})
    assert curves._steps([alone, distilled, small]) == [(alone, distilled), (distilled, small)]


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_front_of_a_search_is_what_nothing_kept_beats(seed):
    rng = np.random.default_rng(seed)
    cost, error = rng.integers(0, 8, 20) / 2.0, rng.integers(0, 8, 20) / 10
    kept = rng.random(20) < 0.7
    front = _front(cost, error, kept)
    assert all(np.diff(cost[front]) > 0)
    assert all(np.diff(error[front]) < 0)
    on = {(cost[place], error[place]) for place in front}
    for place in np.flatnonzero(kept):
        beaten = (
            kept & (cost <= cost[place]) & (error <= error[place]) & ((cost < cost[place]) | (error < error[place]))
        )
        assert ((cost[place], error[place]) in on) == (not beaten.any())


def test_a_search_is_drawn_with_its_budget(tmp_path):
    rng = np.random.default_rng(0)
    ms = rng.uniform(0.5, 3, 40)
    errors = 0.3 - 0.05 * ms + rng.uniform(0, 0.05, 40)
    path = tmp_path / "front.png"
    costs = {"latency_ms@host": ms, "size_bytes": ms * 4e6}
    search_front_plot(errors, costs, path, within=ms < 2, finalists=[int(ms.argmin())], bounds={"latency_ms@host": 2.0})
    assert Image.open(path).width >= 1400
    plain, marked = path.read_bytes(), tmp_path / "marked.png"
    search_front_plot(
        errors, costs, marked, within=ms < 2, winners={int(ms.argmin()): "ofa-abc"}, slices={"latency_ms@host": [1.0]},
        bounds={"latency_ms@host": 2.0},
    )  # fmt: skip
    assert marked.read_bytes() != plain
    decided = {"resolution": 0.6, "depth of stage 1": 0.1}
    search_trials_plot(errors, costs, trials := tmp_path / "trials.svg", decided)
    text = trials.read_text()
    assert all(word in text for word in ("order of evaluation", "resolution", "depth of stage 1", "fall of R"))
    search_trials_plot(errors, costs, trials, {})
    assert "no importance on file" in trials.read_text()
    for draw in (lambda: search_front_plot([], {}, path, within=[]), lambda: search_trials_plot([], {}, path, {})):
        with pytest.raises(InputError, match="no architecture was evaluated"):
            draw()


def test_a_search_says_in_words_what_its_axes_and_marks_are(tmp_path):
    costs = {"latency_ms@box": [1.0, 2.0], "latency_ms@box:int8": [1.0, 2.0], "macs": [1e6, 2e6]}
    path = tmp_path / "front.svg"
    search_front_plot([0.2, 0.1], costs, path, within=[True, True], winners={1: "ofa-abc"})
    text = path.read_text()
    for words in (
        "predicted latency on box (ms)", "predicted latency on box in int8 (ms)", "MACs (M)",
        "validation error, as observed", "evaluated, as observed", "winner, as observed (table: mean of its posterior)",
    ):  # fmt: skip
        assert words in text
    assert "latency_ms" not in text
    assert axis_words("auc@int8") == ("validation AUC in int8", 1.0)
    assert axis_words("peak_ram_bytes") == ("peak ram (MB)", 1e6)


def test_a_front_of_one_network_says_that_it_has_no_line(tmp_path):
    common = {"dataset": "d", "device": "box", "role": "student"}
    best = Row(model="a", auc=0.9, latency_p50_ms=1.0, size_bytes=10, **common)
    other = Row(model="b", auc=0.8, latency_p50_ms=2.0, size_bytes=20, **common)
    said = "Pareto front: one network, the large mark"
    for rows, one in (([best, other], True), ([best, other.model_copy(update={"auc": 0.95})], False)):
        pareto_plot(rows, tmp_path / "front.svg")
        assert (said in (tmp_path / "front.svg").read_text()) is one


@pytest.mark.parametrize("change", [{"recipe": "another"}, {"source": "imported"}])
def test_no_arrow_between_trainings_of_others(tmp_path: Path, change: dict[str, str]):
    """A control of another recipe, or an imported one, is not what the student was trained without a teacher."""
    control, student = ({"model": "m", "teacher": name, "control": "m" * bool(name)} for name in ("", "t"))
    fields = {"role": "student", "dataset": "d", "device": "x", "scheme": "fp32", "auc": 0.9, "latency_p50_ms": 1.0}
    rows = [Row(**fields, **control), Row(**fields, **student)]
    curves.arrows_plot(rows, tmp_path / "a.png")
    with pytest.raises(InputError, match="no arrow"):
        curves.arrows_plot([rows[0].model_copy(update=change), rows[1]], tmp_path / "b.png")


@pytest.mark.parametrize(
    ("model", "teacher", "scheme", "expected"),
    [
        ("ofa-3a99f3", "densenet121+deit_small", "int8-ptq", "ofa-3a99f3 ← 2 teachers int8"),
        ("tf_efficientnetv2_b0.in21k_ft_in1k", "a+b+c", "int8-qat", "tf_effici…in1k ← 3 teachers int8"),
        ("resnet18", "convnextv2_tiny.fcmae_ft_in22k_in1k", "fp32", "resnet18 ← convnextv2_tiny…in1k"),
        ("a" * 40, "", "fp32", f"{'a' * 16}…{'a' * 15}"),
        ("resnet18 int8", "", "int8-ptq", "resnet18 int8"),
    ],
)
def test_a_name_in_a_picture_keeps_its_teachers_and_precision_whole(model, teacher, scheme, expected):
    assert short_title(model, teacher, scheme) == expected
    assert len(expected) <= MOST_LETTERS
