"""Charts in a real headless Chromium: the range, zooming, names, marks by family, the budget, further charts, cards."""

import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.leaderboard import page as page_folder
from tutelage.leaderboard.best import Ballot, Candidate, ballots, best_students
from tutelage.leaderboard.names import family_of
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.page.verdicts import decide
from tutelage.records import Comparison, Row

from ..study import study_rows

NODE = """
const { script, data, budgets } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const find = new Function("DATA", "budgets", `${script}
  return budgets.map((among) => chooseBest(DATA.ballots[0], among));`);
console.log(JSON.stringify(find(data, budgets)));
"""
# Names and what they must not touch: [left, top, right, bottom] each, and the points of the stair.
NAMES = """[...document.querySelectorAll('#chart-0 .name')].map((one) => {
  const box = one.getBBox();
  return [box.x, box.y, box.x + box.width, box.y + box.height];
})"""
STAIR = """document.querySelector('#chart-0 path.front').getAttribute('d').slice(1).split('L').map((one) => one.split(',').map(Number))"""  # noqa: E501 - a script
LEVELS = "[...document.querySelectorAll('#chart-0 .tick[text-anchor=end]')].map((one) => Number(one.textContent))"


def on_validation(first: Row, second: Row) -> tuple[Comparison, ...]:
    """A test whose interval is .004 wide to either side of the difference on validation images."""
    value = first.details["validation"]["auc"] - second.details["validation"]["auc"]
    p = float(np.exp(-((value / 0.002) ** 2) / 2))
    return (
        Comparison(claim="file", figure="auc", difference=value, low=value - 0.004, high=value + 0.004, p=p,
                   margin=0.01, num_seeds=1, num_groups=600),
    )  # fmt: skip


def until(page, is_so: Callable[[], bool]) -> None:
    """Wait for a drawing of the next frames; the page's policy forbids playwright's own waiting for a script."""
    for _ in range(500):
        if is_so():
            return
        page.wait_for_timeout(20)
    raise AssertionError("the page never came to show it")


@pytest.fixture(scope="module")
def study() -> list[Row]:
    """The study with one network that failed and is the smallest of all, so that it is on both fronts."""
    rows = study_rows()
    failed = {"auc": 0.5, "auc_lo": 0.46, "auc_hi": 0.54, "accuracy": 0.4, "accuracy_lo": 0.37, "accuracy_hi": 0.43}
    return [
        *rows,
        rows[-1].model_copy(update={"model": "shufflenet_v2", "latency_p50_ms": 0.2, "size_bytes": 9, **failed}),
    ]


@pytest.mark.parametrize(
    ("model", "space", "family"),
    [
        ("resnet50.tv_in1k", "", "resnet"), ("resnet18", "", "resnet"), ("tf_efficientnet_b0", "", "efficientnet"),
        ("mobilenetv3_small_100", "", "mobilenetv3"), ("deit_tiny_patch16_224", "", "deit"),
        ("EEEA-Net-C1", "", "EEEA-Net"),
        ("densenet121", "", "densenet"), ("ofa-ef2781", "ofa_mbv3_w1.2_stem1", "ofa_mbv3"), ("net <- vit", "", "net"),
        ("7", "", "7"),
    ],
)  # fmt: skip
def test_families_are_named_by_space_or_by_the_first_word(model, space, family):
    assert family_of(model, space) == family


def voters(seed: int) -> list[Row]:
    """Students of a few names, schemes, sizes and teachers, some of which tie."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, teacher, scheme in itertools.product("abc", ("", "t", "u"), ("fp32", "int8")):
        auc = round(0.95 + float(rng.integers(0, 8)) * 0.003, 4)
        details = {"validation": {"auc": auc}, "how": {"file": {"path": "m"}}}
        size = int(rng.integers(1, 4)) * 10**6
        ms = float(rng.integers(1, 4))
        rows.append(
            Row(model=name, teacher=teacher, scheme=scheme, role="student", dataset="d", device="x", auc=auc,
                size_bytes=size, latency_p50_ms=ms, details=details)
        )  # fmt: skip
    return rows


@pytest.mark.parametrize("tested", [True, False])
def test_the_best_within_a_budget_is_chosen_by_the_one_rule_in_python_and_on_the_page(tested):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: apt-get install nodejs")
    rows = voters(1)
    verdicts = decide(rows, on_validation if tested else None)
    (ballot,) = verdicts.ballots
    assert ballot.rows[ballot.choose()] == best_students(rows, on_validation if tested else None)[0].key
    text = page_text(rows, "t", verdicts=verdicts)
    data = json.loads(re.search(r'id="data" data-packed="">(.*?)</script>', text, re.S)[1])
    rng = np.random.default_rng(0)
    budgets = [
        sorted(rng.choice(len(rows), int(size), replace=False).tolist()) for size in rng.integers(1, len(rows), 40)
    ]
    script = (Path(page_folder.__file__).parent / "page_best.js").read_text()
    given = json.dumps({"script": script, "data": data, "budgets": budgets})
    done = subprocess.run([node, "-e", NODE], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == [ballot.choose(among) for among in budgets]
    assert len(set(found)) > 2
    # Had each distilled student competed, whether it has gained or not, others would have been chosen.
    free = replace(ballot, candidates=tuple(replace(one, control=None) for one in ballot.candidates))
    assert found != [free.choose(among) for among in budgets]


def test_a_ballot_holds_tests_of_the_first_only_and_bounds_the_rest_by_the_margin():
    rows = voters(1)
    (ballot,) = ballots(rows, on_validation, most_tested=3)
    assert isinstance(ballot, Ballot)
    assert (len(ballot.rows), ballot.num_tested, len(ballot.equal)) == (18, 3, 9)
    assert [one.quality for one in ballot.candidates] == sorted(
        (one.quality for one in ballot.candidates), reverse=True
    )
    assert all(isinstance(one, Candidate) for one in ballot.candidates)
    assert ballot.choose([11]) == 11


@pytest.mark.slow
def test_one_failed_network_does_not_set_the_range_and_is_told_at_the_edge(open_page, study):
    page = open_page(study)
    assert min(page.evaluate(LEVELS)) > 0.8
    count = re.fullmatch(r"Outside this range, as arrowheads at its edge: (\d) below.", page.inner_text("#outside-0"))
    heads = [path.get_attribute("d").count("M") for path in page.locator("#chart-0 .edge").all()]
    assert count
    assert 1 <= int(count[1]) == sum(heads) < 6
    page.focus("#chart-0 svg")
    page.keyboard.press("Home")
    assert "shufflenet_v2" in page.inner_text("#tip")
    for _ in range(12):
        page.keyboard.press("-")
    assert page.inner_text("#outside-0") == ""
    assert min(page.evaluate(LEVELS)) <= 0.5


@pytest.mark.slow
def test_a_chart_is_zoomed_and_moved_by_wheel_drag_keys_and_buttons_and_the_link_keeps_it(open_page, study):
    page = open_page(study)
    usual = page.evaluate(LEVELS)
    box = page.locator("#chart-0 svg").bounding_box()
    page.mouse.move(box["x"] + 250, box["y"] + 150)
    page.mouse.wheel(0, -400)
    until(page, lambda: page.evaluate(LEVELS) != usual)
    page.wait_for_url(re.compile("v0="))
    zoomed = page.evaluate(LEVELS)
    assert max(zoomed) - min(zoomed) < max(usual) - min(usual)
    again = open_page(study, link="#" + page.url.split("#")[1])
    assert again.evaluate(LEVELS) == zoomed
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 230, steps=4)
    page.mouse.up()
    until(page, lambda: page.evaluate(LEVELS) != zoomed)
    assert max(page.evaluate(LEVELS)) > max(zoomed)  # dragged down: what lies above comes into view
    assert page.locator(".pin").count() == 0  # a drag is no click
    page.locator("#chart-0 .zoom button", has_text="Reset").click()
    assert page.evaluate(LEVELS) == usual
    page.focus("#chart-0 svg")
    page.keyboard.press("+")
    assert page.evaluate(LEVELS) != usual
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("0")
    assert page.evaluate(LEVELS) == usual


@pytest.mark.slow
def test_two_fingers_zoom(open_page, study):
    page = open_page(study)
    usual = page.evaluate(LEVELS)
    page.evaluate("""() => {
      const svg = document.querySelector('#chart-0 svg'), box = svg.getBoundingClientRect();
      const send = (kind, id, x) => svg.dispatchEvent(new PointerEvent(kind, { pointerId: id, pointerType: 'touch', clientX: box.x + x, clientY: box.y + 150, bubbles: true }));
      svg.setPointerCapture = () => {};
      send('pointerdown', 1, 200); send('pointerdown', 2, 260);
      send('pointermove', 1, 150); send('pointermove', 2, 310);
      send('pointerup', 1, 150); send('pointerup', 2, 310);
    }""")  # noqa: E501 - a script
    until(page, lambda: page.evaluate(LEVELS) != usual)
    found = page.evaluate(LEVELS)
    assert max(found) - min(found) < max(usual) - min(usual)


@pytest.mark.slow
def test_names_stand_beside_their_marks_without_lines_and_never_on_the_stair(open_page, study, demo):
    num_names = 0
    for rows, width in itertools.product((study, demo[0]), (900, 1300)):
        page = open_page(rows, width, link="#whiskers=none")
        names, stair = page.evaluate(NAMES), page.evaluate(STAIR)
        num_names += len(names)
        assert page.locator("#chart-0 .leader").count() == 0
        for left, top, right, bottom in names:
            for (x1, y1), (x2, y2) in itertools.pairwise(stair):
                part = np.linspace(0, 1, 200)
                x, y = x1 + (x2 - x1) * part, y1 + (y2 - y1) * part
                assert not ((left < x) & (x < right) & (top < y) & (y < bottom)).any()
    assert num_names >= 4


@pytest.mark.slow
def test_a_budget_is_typed_dragged_and_set_by_keys_and_names_the_best_that_keeps_it(open_page, study):
    verdicts = decide(study, on_validation)
    page = open_page(study, verdicts=verdicts)
    page.fill("#most-0", "0.5")
    page.keyboard.press("Tab")
    until(page, lambda: "rows fit" in page.inner_text("#budget"))
    (ballot,) = verdicts.ballots
    by_id = {row.key: row for row in study}

    def best(limit: float) -> Row:
        return by_id[
            ballot.rows[ballot.choose([n for n, key in enumerate(ballot.rows) if by_id[key].latency_p50_ms <= limit])]
        ]

    highest = next(by_id[key] for key in ballot.rows if by_id[key].latency_p50_ms <= 0.5)
    assert best(0.5).scheme != highest.scheme == "fp32"  # as good as int8 and 3.5 times its size
    assert f"Best student that fits: {best(0.5).model} int8" in page.inner_text("#budget")
    assert f"{sum(row.latency_p50_ms <= 0.5 for row in study)} of {len(study)} rows fit" in page.inner_text("#budget")
    assert page.locator("#chart-0 .limit-name").text_content().startswith("best: ")
    page.wait_for_url(re.compile("most=latency_p50_ms"))
    again = open_page(study, verdicts=verdicts, link="#" + page.url.split("#")[1])
    assert again.inner_text("#budget") == page.inner_text("#budget")
    slider = page.locator("#chart-0 [role=slider]")
    assert slider.get_attribute("aria-valuetext") == "at most 0.500 ms"
    slider.focus()
    page.keyboard.press("PageUp")
    until(page, lambda: slider.get_attribute("aria-valuetext") == "at most 0.600 ms")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "slider"
    grip = page.locator("#chart-0 .grip").bounding_box()
    page.mouse.move(grip["x"] + 8, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(grip["x"] + 120, grip["y"] + 5, steps=4)
    page.mouse.up()
    until(page, lambda: float(page.input_value("#most-0")) > 0.7)
    page.fill("#most-1", "0.000001")
    page.keyboard.press("Tab")
    until(page, lambda: ": 0 of" in page.inner_text("#budget"))
    page.locator("#budget button", has_text="No budget").click()
    until(page, lambda: "Budget: type" in page.inner_text("#budget"))


@pytest.mark.slow
def test_without_a_student_measured_here_the_highest_is_not_called_best(open_page, study):
    page = open_page([row for row in study if row.role != "student"], link="#most=latency_p50_ms:1")
    text = page.inner_text("#budget")
    assert "No student measured here fits; highest AUC that fits: EEEA-Net-C2" in text
    assert "Best" not in text


@pytest.mark.slow
def test_marks_by_family_time_sizes_and_further_charts(open_page, study):
    rows = []
    for n, row in enumerate(study):
        ms = row.latency_p50_ms
        details = {**row.details, "predicted_ms": [0.9 * ms, ms, 1.1 * ms]}
        rows.append(row.model_copy(update={"created": f"2026-11-{1 + n:02d}T10:00:00Z", "details": details}))
    page = open_page(rows)
    page.select_option("#marks", "family")
    legend = page.inner_text("#legend")
    assert all(family in legend for family in ("ofa_mbv3", "densenet", "deit", "mobilenetv3"))
    page.select_option("#x-0", "created_at")
    assert page.locator("#chart-0 .axis").first.text_content() == "filed on"
    assert page.locator("#chart-0 .tick[text-anchor=middle]").first.text_content().startswith("2026-11-")
    assert page.locator("#chart-0 path.front").count() == 1
    assert page.locator("#log-0").is_hidden()
    page.select_option("#size", "large")
    assert page.locator("#chart-0 svg").get_attribute("height") == "640"
    words = {"parallel": "rows have all of", "datasets": "1 data set on host-ort", "predicted": "mean error 0.0 %"}
    for view, said in words.items():
        page.select_option("#view", view)
        assert said in page.inner_text("#view-card .hint")
        page.focus("#view-card svg")
        page.keyboard.press("ArrowRight")
        assert page.locator("#tip").is_visible()
        page.keyboard.press("Escape")
    assert "view=predicted" in page.url
    places = [
        [
            tuple(map(float, spot))
            for spot in re.findall(r"([\d.]+),([\d.]+)", page.get_attribute(f"#view-card .{name}", "d"))
        ]
        for name in ("diagonal", "band")
    ]
    (start, end), (first, below, right, last, above, left) = places
    assert (first, last) == (start, end)
    slope = (end[1] - start[1]) / (end[0] - start[0])
    for low, high in (
        (below, right),
        (left, above),
    ):  # 10 % is as far from the diagonal everywhere, on logarithmic axes
        assert (high[1] - low[1]) / (high[0] - low[0]) == pytest.approx(slope, rel=0.01)
    assert start[1] - left[1] == pytest.approx(
        -slope * (below[0] - start[0]) * math.log(1.1) / math.log(1 / 0.9), rel=0.02
    )
    with page.expect_download() as saved:
        page.select_option("#chart-1 .saver", "svg")
    text = Path(saved.value.path()).read_text()
    assert text.startswith("<svg")
    assert 'stroke="rgb' in text
    with page.expect_download() as saved:
        page.select_option("#chart-1 .saver", "1200")
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")


def boxes_of(page, selector: str) -> Sequence[dict[str, float]]:
    return [one.bounding_box() for one in page.locator(selector).all() if one.is_visible()]


@pytest.mark.slow
def test_a_phone_shows_cards_and_a_desk_every_usual_column(open_page, study):
    page = open_page(study, 390)
    assert page.locator("#table thead").is_hidden()
    first = page.locator("#table tbody tr").first
    for label in ("AUC", "latency p50 (ms)", "size (MB)"):
        (box,) = boxes_of(page, f"#table tbody tr:first-child td[data-label='{label}']")
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert first.locator(".title").is_visible()
    assert page.evaluate(
        "document.getElementById('scroller').scrollWidth <= document.getElementById('scroller').clientWidth"
    )
    page.select_option("#order", "latency_p50_ms:up")
    assert "shufflenet_v2" in page.locator("#table tbody .title").first.inner_text()
    wide = open_page(study, 1400)
    assert wide.inner_text("#hidden-columns") == ""
    narrow = open_page(study, 800)
    assert re.match(r"\d columns? to the right \(.*\): scroll sideways", narrow.inner_text("#hidden-columns"))


@pytest.mark.slow
def test_the_title_the_verdicts_of_distillation_and_the_meaning_of_figures_are_in_words(open_page, study):
    rows = [
        row.model_copy(update={"details": {**row.details, "explanation": {"insertion_auc": 0.81, "odd": 3.2}}})
        for row in study
    ]
    page = open_page(rows, verdicts=decide(rows, on_validation))
    about = page.inner_text("#about")
    assert "pneumoniamnist: 624 test images" in about
    assert "host-ort-28px" in about
    assert "filed 2026-11-20" in about
    assert "torch 2.10" in about
    distilled = sum(bool(row.teacher) and row.role == "student" for row in rows)
    headline = page.inner_text("#headline")
    assert f"What distillation did: of {distilled} distilled files" in headline
    assert f"Chosen of {sum(row.role == 'student' for row in rows)} students." in headline
    page.click("#headline button")
    card = page.locator(".pin").first.inner_text()
    assert "insertion" in card
    assert "Area under" in card or "confidence" in card
    assert "odd" not in card
    assert page.locator(".terms dt").all_inner_texts()[:3] == [
        "Chart front",
        "By the intervals surely, maybe, not",
        "Overall front",
    ]
