"""The page of a real study in a real headless Chromium: headline, sureness, gains, cards, print, packed data, live."""

import re
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from tutelage.leaderboard import pareto
from tutelage.leaderboard.page import data as page_data
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
from tutelage.records import Row
from tutelage.search.space import SPACES

from ..study import study_rows, study_verdicts

pytestmark = pytest.mark.slow
ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"
NAMELESS = """[...document.querySelectorAll('button, input, select, summary, img, svg[role]')].filter((one) => {
  const name = one.labels?.[0]?.textContent || one.getAttribute('aria-label') || one.getAttribute('alt');
  return !(name || one.textContent).trim();
}).map((one) => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def study():
    return study_rows()


def test_the_headline_shows_the_student_and_the_verdict_that_python_chose(open_page, study):
    page = open_page(study, verdicts=study_verdicts(study))
    text = page.inner_text("#headline")
    # By validation all students are within .01, so the smallest file wins, and of those of one size the control.
    assert "Best student by validation: ofa-ef2781 int8 against teacher densenet121" in text
    assert re.search(r"12×\s*faster", text)  # 4.01 / 0.33 ms
    assert "lost [−0.016, −0.008], p < 0.001" in text  # .957 and .969: their intervals overlap, which is no verdict
    page.click("#headline button")
    assert page.locator(".pin").count() == 2
    versus = page.inner_text(".versus")
    assert "AUC, pneumonia" in versus
    assert "× less" in versus
    assert "equivalent within 0.01 [−0.007, +0.001]" in versus
    assert "overlap" not in versus
    assert page.locator("#headline .warning").count() == 0
    poor = [row.model_copy(update={"auc_lo": 0.48}) if row.role == "student" else row for row in study]
    warned = open_page(poor, verdicts=study_verdicts(poor)).inner_text("#headline .warning")
    assert warned.startswith("Warning: ofa-ef2781 int8-ptq is no better than guessing: test AUC 0.957 [0.480, ")


def test_pinned_the_other_way_round_the_verdict_is_turned(open_page, study):
    teacher, control = (
        next(row for row in study if row.model == model and not row.teacher and row.scheme == scheme)
        for model, scheme in (("densenet121", "fp32"), ("ofa-ef2781", "int8-ptq"))
    )
    page = open_page(study, verdicts=study_verdicts(study), link=f"#pins={control.key},{teacher.key}")
    assert "gained [+0.008, +0.016], p < 0.001" in page.inner_text(".versus")
    assert page.locator(".versus .better", has_text="+1.2 points ▲").count() == 1


@pytest.mark.parametrize(("source", "words"), [("measured", "leaderboard compare"), ("imported", "imported row")])
def test_a_pair_without_a_test_is_not_tested_and_not_a_tie(open_page, study, source, words):
    other = study[2].model_copy(update={"model": "theirs", "source": source, "details": {}})
    page = open_page(
        [*study, other], verdicts=study_verdicts([*study, other]), link=f"#pins={study[0].key},{other.key}"
    )
    versus = page.inner_text(".versus")
    assert versus.count("not tested") == 2  # AUC and accuracy
    assert words in versus
    assert page.locator(".versus .better", has_text="points").count() == 0
    assert page.locator(".versus .worse", has_text="points").count() == 0


def test_a_latency_within_a_tie_is_no_gain(open_page, study):
    near = study[4].model_copy(update={"model": "near", "latency_p50_ms": study[4].latency_p50_ms * 1.02})
    page = open_page([*study, near], link=f"#pins={study[4].key},{near.key}")
    latency = page.locator(".versus tr", has_text="latency p50").inner_text()
    assert "a tie" in latency
    assert "▼" not in latency
    assert page.locator("#headline").is_hidden()  # no verdicts were given: no student is called the best


def test_what_the_page_calls_sure_and_maybe_is_what_the_fronts_say(open_page, study):
    wide = {"latency_p50_ms_lo": 0.2, "latency_p50_ms_hi": 0.7}  # one latency is known badly
    study = [
        row.model_copy(update={"details": {**row.details, **wide}}) if place == 4 else row
        for place, row in enumerate(study)
    ]
    page = open_page(study)
    words = {"sure": "surely", "maybe": "maybe", "no": "not"}
    pair = ("latency_p50_ms", "auc")
    said = zip(study, pareto.front(study, pair), pareto.front_with_intervals(study, pair), strict=True)
    expected = sorted(
        (row.latency_p50_ms, f"{'on' if on else 'not on'} the chart front; by the intervals {words[verdict]}")
        for row, on, verdict in said
    )
    page.focus("#chart-0 svg")
    found = []
    for _ in study:
        page.keyboard.press("ArrowRight")
        tip = page.inner_text("#tip")
        latency = float(re.search(r"latency p50\s+([\d.]+) ms", tip)[1])
        found.append((latency, re.search(r"latency p50: ([^·\n]+)", tip)[1].strip()))
    assert sorted(found) == expected
    assert page.locator("#chart-0 path.floor").count() == 1
    page.select_option("#whiskers", "none")
    assert page.locator("#chart-0 path.floor").count() == 0


def test_a_card_says_what_beats_its_row_and_shows_its_network(open_page, study):
    poor = next(row for row in study if row.model == "mobilenetv2_100" and row.scheme == "fp32")
    small = next(row for row in study if "+" in row.teacher and row.role == "student" and row.scheme != "fp32")
    page = open_page(study, link=f"#pins={poor.key},{small.key}")
    cards = page.locator(".pin")
    assert "not on the chart front; by the intervals not; by the figures dominated by" in cards.nth(0).inner_text()
    text = cards.nth(1).inner_text()
    assert "gain of teacher" in text
    assert "inconclusive (+0.009" in text
    assert "Where its fp32 network looks" in text
    assert cards.nth(1).locator("img").count() == 4
    assert cards.nth(1).locator("svg[role=img] rect").count() == sum(small.arch.d)
    assert "without teacher" in text
    assert "brier" not in text  # folded away
    cards.nth(1).locator("summary").click()
    assert "brier" in cards.nth(1).inner_text()
    assert "/home/someone" not in page.content()
    assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "mbconv_micro_w0.5", "resnet18_w0.5", "ofa_resnet50"])
def test_blocks_are_drawn_by_the_stages_of_their_space(open_page, name):
    space = SPACES[name]
    row = Row(model="net", role="student", dataset="d", auc=0.9, latency_p50_ms=1.0, arch=space.largest())
    page = open_page([row], link=f"#row={row.key}")
    drawing = page.locator("svg[role=img][aria-label^='Blocks']")
    words = drawing.locator("text").all_text_contents()
    stages = [word for word in words if word.startswith("stage")]
    assert stages == [f"stage {number + 1}" for number in range(len(space.family.stages))]
    assert drawing.locator("rect").count() == len(space.slots)
    least = row.model_copy(update={"arch": space.smallest()})
    drawing = open_page([least], link=f"#row={least.key}").locator("svg[role=img][aria-label^='Blocks']")
    spots = drawing.evaluate(
        "(svg) => [...svg.querySelectorAll('text')].filter((one) => one.textContent.startsWith('stage'))"
        ".map((one) => { const box = one.getBBox(); return [box.x, box.x + box.width]; })"
    )
    assert len(spots) == len(stages)
    assert all(right < left for (_, right), (left, _) in pairwise(spots)), "the names of two stages overlap"


def test_gains_and_figures_of_details_are_columns(open_page, study):
    page = open_page(study)
    page.click('[data-sort="gain"]')
    gains = [row.details["gain_over_control"]["auc"] for row in study if row.teacher]
    first = page.locator("#table tbody tr").first.inner_text()
    assert f"+{max(gains):.3f}" in first
    page.click("#chooser summary")
    page.check('#columns input[value="explained_insertion_auc"]')
    assert page.locator("thead th").last.inner_text() == "explanation: insertion auc"
    assert "0.81" in page.locator("#table tbody tr").first.inner_text()
    assert "explained_insertion_auc" in page.url
    page.fill("#query", "gain_auc>0.008")
    page.wait_for_url(re.compile("gain_auc"))
    assert page.locator("#table tbody tr").count() == sum(gain > 0.008 for gain in gains)


def test_axes_are_chosen_energy_among_them_and_the_link_keeps_them(open_page, study):
    rows = [row.model_copy(update={"energy_mj": row.latency_p50_ms * 3}) for row in study]
    page = open_page(rows)
    page.select_option("#x-1", "energy_mj")
    page.uncheck("#log-1")
    assert page.locator("#chart-1 .axis").first.text_content() == "energy (mJ)"
    assert "x1=energy_mj%3Alinear" in page.url
    again = open_page(rows, link="#" + page.url.split("#")[1], verdicts=study_verdicts(rows))
    assert again.locator("#x-1").input_value() == "energy_mj"
    assert not again.locator("#log-1").is_checked()
    assert "less energy" in again.inner_text("#headline")


def test_it_prints_without_its_controls_and_with_every_row(open_page, study):
    page = open_page(study, verdicts=study_verdicts(study))
    page.click("#headline button")
    ARTIFACTS.mkdir(exist_ok=True)
    paper = page.pdf(path=ARTIFACTS / "page.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    page.emulate_media(media="print")
    shown = "(one) => [...document.querySelectorAll(one)].filter((node) => node.getClientRects().length).length"
    assert page.evaluate(shown, "select, input, #theme, .pin-button, .no-print") == 0
    assert page.evaluate(shown, "#table tbody tr") == len(study)
    assert page.evaluate("getComputedStyle(document.getElementById('scroller')).overflowY") == "visible"


def test_large_data_are_packed_and_open_all_the_same(open_page, study, monkeypatch):
    monkeypatch.setattr(page_data, "_PACK_BYTES", 1000)
    page = open_page(study)
    page.wait_for_selector("#table tbody tr")
    assert page.get_attribute("#data", "data-packed") == "gzip"
    assert page.locator("#table tbody tr").count() == len(study)


@pytest.mark.parametrize(
    ("width", "theme"), [(390, "dark"), pytest.param(820, "light", marks=pytest.mark.long), (1400, "light")]
)
def test_a_study_is_readable_at_any_width(open_page, study, width, theme):
    page = open_page(study, width, theme, verdicts=study_verdicts(study))
    page.click("#headline button")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"study_{width}_{theme}.png", full_page=True)


def test_a_served_page_follows_the_store_and_asks_nobody_else(browser, tmp_path, study):
    store = Store(tmp_path / "leaderboard.db")
    store.add(study)
    server = make_server(tmp_path / "leaderboard.db")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    home = f"http://127.0.0.1:{server.server_address[1]}/"
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(home + "#sort=size_bytes:up")
        assert f"{len(study)} of {len(study)} rows" in page.inner_text("#count")
        store.add([study[0].model_copy(update={"model": "new"})])
        page.locator("#count", has_text=f"{len(study) + 1} of {len(study) + 1} rows").wait_for()
        assert "sort=size_bytes%3Aup" in page.url
        assert {url.split("#")[0] for url in asked if not url.startswith("data:")} == {home, home + "events"}
    finally:
        page.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_rows_of_two_devices_are_never_drawn_together(open_page, study):
    other = [row.model_copy(update={"device": "phone", "latency_p50_ms": row.latency_p50_ms * 9}) for row in study[:6]]
    page = open_page([*study, *other, Row(model="x", role="student", dataset="other", device="phone", auc=0.99)])
    assert page.inner_text("#count").startswith("22 of 22 rows on pneumoniamnist, host-ort-28px")
    page.select_option("#device", "phone")
    assert page.inner_text("#count").startswith("6 of 6 rows on pneumoniamnist, phone")
