"""The page as text, and in a real headless Chromium where there is one."""

import base64
import gzip
import hashlib
import json
import math
import re
import urllib.parse
from pathlib import Path

import pytest

from tutelage.leaderboard.page import bodies
from tutelage.leaderboard.page import data as page_data
from tutelage.leaderboard.page.build import build_page, page_text
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"
EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
# Where the upright texts of the first chart stand: [left, top, right, bottom] each.
BOXES = """[...document.querySelectorAll('#chart-0 text:not(.axis)')].map((text) => {
  const box = text.getBBox();
  return [box.x, box.y, box.x + box.width, box.y + box.height];
})"""
# Texts whose contrast is below WCAG AA (4.5:1 for small text), by the colours the browser computed.
FAINT = """() => {
  const bend = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => bend(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  const texts = 'h1,h2,h3,p,label,td,th,button,select,summary,dt,dd,li,code,.tick,.axis,.name,.interval,.on';
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [more, less] = [light(ink), light(ground(element))].sort((a, b) => b - a);
    if ((more + 0.05) / (less + 0.05) < 4.5) faint.push([element.tagName, element.textContent.slice(0, 20), ink]);
  }
  return faint;
}"""


def data_of(page):
    packed, text = re.search(r'id="data" data-packed="(.*?)">(.*?)</script>', page, re.S).groups()
    return json.loads(gzip.decompress(base64.b64decode(text)) if packed else text)


def decoded(column, size):
    codes = column["codes"]
    codes = range(size) if codes is None else codes or [0] * size
    return [column["texts"][code] for code in codes]


def test_the_data_hold_every_row_and_null_for_what_was_not_measured(demo):
    rows = [*demo[0], Row(model="bare", role="baseline", dataset="d")]
    data = data_of(page_text(rows, "t"))
    assert data["count"] == len(rows)
    for name in ("model", "row_id", "recipe", "source"):
        expected = [row.key if name == "row_id" else getattr(row, name) for row in rows]
        assert decoded(data["words"][name], len(rows)) == expected
    assert data["figures"]["auc"] == [row.auc for row in rows]
    assert data["figures"]["latency_p50_ms"] == [row.latency_p50_ms for row in rows]
    assert "energy_mj" not in data["figures"]
    assert data["details"]["0"] == {"per_class": rows[0].details["per_class"]}


def test_recipes_and_predictions_stay_out_of_the_page_and_nan_becomes_empty():
    details = {
        "how": {"recipe": {"data": "/home/me/data"}},
        "predictions": "p.npz",
        "ece": math.nan,
        "kept": [1.5, math.inf],
    }
    page = page_text([Row(model="m", role="student", dataset="d", details=details)], "t")
    assert data_of(page)["details"] == {"0": {"ece": None, "kept": [1.5, None]}}
    assert "/home/me" not in page
    assert "p.npz" not in page


def test_details_stop_at_their_limits_with_fronts_first(monkeypatch):
    monkeypatch.setattr(bodies, "_MOST_DETAILED", 3)
    rows = [
        Row(model=str(n), role="student", dataset="d", auc=n / 10, latency_p50_ms=n, details={"n": n})
        for n in range(1, 9)
    ]
    rows.append(Row(model="beaten", role="student", dataset="d", auc=0.79, latency_p50_ms=9, details={"n": 0}))
    data = data_of(page_text(rows, "t"))
    assert (data["count"], data["detailed"]) == (9, 3)
    assert sorted(body["n"] for body in data["details"].values()) == [6, 7, 8]
    monkeypatch.setattr(bodies, "_MOST_DETAIL_BYTES", 10)
    assert data_of(page_text(rows, "t"))["detailed"] == 1


def test_a_store_gives_the_same_page_as_its_rows(tmp_path, demo):
    store = Store(tmp_path / "leaderboard.db")
    store.add(*demo)
    quick = page_text(store.frame(columns=page_data.page_columns()), "t", details=store.details)
    assert data_of(quick) | {"made": ""} == data_of(page_text(demo[0], "t")) | {"made": ""}


def test_rounding_keeps_six_digits_of_any_size():
    import pandas as pd

    values = pd.Series([0.123456789, 1234567.89, 9.99999999, 0.0, -0.000123456789, None], dtype="float64")
    assert page_data._numbers(values) == [0.123457, 1234570.0, 10.0, 0.0, -0.000123457, None]
    assert page_data._numbers(pd.Series([None], dtype="float64")) is None


def test_names_never_end_the_data_or_the_title():
    row = Row(model=EVIL, role="student", dataset="d", details={EVIL: "<!--<script>"})
    page = page_text([row], f"@DATA@ {EVIL}")
    assert page.count("</script>") == 2
    assert page.count("<img") == 0
    assert data_of(page)["words"]["model"]["texts"] == [EVIL]
    assert EVIL in data_of(page)["details"]["0"]
    assert page.count("@DATA@") == 2  # the title and the heading keep what the user wrote


def test_the_policy_lets_exactly_this_script_run_and_nothing_be_fetched(demo):
    page = page_text(demo[0], "t")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_the_page_itself_is_small(demo):
    assert len(page_text([], "t").encode()) < 219_000  # less than half of a photograph
    with pytest.raises(InputError, match="cannot be written"):
        build_page(demo[0], Path("/proc/none/page.html"), "t")


def models(page):
    return page.locator("#table tbody .title").all_inner_texts()


@pytest.mark.slow
def test_it_renders_sorts_filters_and_keeps_one_group(open_page, demo):
    page = open_page(demo[0])
    group = [row for row in demo[0] if row.dataset == "pneumoniamnist" and row.device == "host-ort"]
    best_first = sorted(group, key=lambda row: -row.auc)
    assert models(page)[0] == best_first[0].model
    assert len(models(page)) == len(group)
    page.click('[data-sort="latency_p50_ms"]')
    assert models(page)[0] == min(group, key=lambda row: row.latency_p50_ms).model
    assert page.locator('th[aria-sort="ascending"]').inner_text().startswith("latency p50")
    page.click('[data-sort="latency_p50_ms"]')
    assert models(page)[0] == max(group, key=lambda row: row.latency_p50_ms).model
    page.fill("#query", "int8 latency_p50_ms<0.5ms")
    page.wait_for_url(re.compile("int8"))
    kept = [row for row in group if "int8" in row.scheme and row.latency_p50_ms < 0.5]
    assert sorted(models(page)) == sorted(row.model for row in kept)
    page.fill("#query", "nonsense<5")
    page.wait_for_selector("#query.invalid")
    assert "no column 'nonsense'" in page.inner_text("#query-hint")
    page.fill("#query", "")
    page.select_option("#device", "host-openvino")
    page.check("#all-groups")
    assert page.locator("#count").inner_text().startswith("28 of 28 rows on pneumoniamnist, host-openvino")
    assert len(models(page)) == len(demo[0])


@pytest.mark.slow
def test_the_drawn_front_is_the_front(open_page, demo):
    from tutelage.leaderboard.pareto import front

    group = [row for row in demo[0] if row.dataset == "pneumoniamnist" and row.device == "host-ort"]
    page = open_page(demo[0])
    expected = [sum(front(group, (cost, "auc"))) for cost in ("latency_p50_ms", "size_bytes")]
    assert page.inner_text("#count").endswith(f"on the chart fronts: {expected[0]} and {expected[1]}")


@pytest.mark.slow
def test_two_rows_are_pinned_by_mouse_and_keys_and_the_link_keeps_them(open_page, demo):
    page = open_page(demo[0])
    page.locator("#table tbody tr").nth(1).locator("button").click()
    assert page.locator(".pin").count() == 1
    page.focus("#chart-0 svg")
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".pin").count() == 2
    assert page.locator(".versus tbody tr").count() >= 8
    assert page.locator(".pin svg[role=img]").count() >= 1
    assert "kernel" in page.locator(".pin svg[role=img]").first.get_attribute("aria-label")
    pinned = page.locator(".pin h3").first.inner_text()
    again = open_page(demo[0], link="#" + urllib.parse.urlsplit(page.url).fragment)
    assert again.locator(".pin").count() == 2
    assert again.locator(".pin h3").first.inner_text() == pinned
    again.locator(".pin button").first.click()
    assert again.locator(".pin").count() == 1


@pytest.mark.slow
def test_pointing_shows_everything_and_clicking_pins(open_page, demo):
    page = open_page(demo[0])
    box = page.locator("#chart-1 svg").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    for step in range(40):
        page.mouse.move(box["x"] + 60 + step * 12, box["y"] + 150)
        if page.locator("#tip").is_visible():
            break
    assert "AUC" in page.inner_text("#tip")
    assert "latency p50" in page.inner_text("#tip")
    page.mouse.down()
    page.mouse.up()
    assert page.locator(".pin").count() == 1


@pytest.mark.slow
def test_a_name_is_text_whatever_it_holds(open_page, demo):
    rows = [demo[0][0].model_copy(update={"model": EVIL, "teacher": EVIL, "details": {EVIL: [{"a": EVIL}]}})]
    page = open_page(rows)
    page.locator("#table tbody button").first.click()
    assert models(page) == [EVIL]
    assert EVIL in page.inner_text("#compare")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


@pytest.mark.slow
def test_odd_leaderboards_are_drawn(open_page):
    assert "no rows yet" in open_page([]).inner_text("#count")
    bare = open_page([Row(model="bare", role="baseline", dataset="d")])
    assert models(bare) == ["bare"]
    imported = Row(model="paper", role="baseline", dataset="d", accuracy=0.9, params=5_000_000, source="imported")
    ours = Row(
        model="ours", role="student", dataset="d", device="x", accuracy=0.8, params=9_000_000, latency_p50_ms=1.0
    )
    page = open_page([imported, ours], link="#x0=params")
    assert sorted(models(page)) == ["ours", "paper"]
    assert page.inner_text("#count").endswith(
        "on the chart fronts: 1 and 1"
    )  # the imported one beats it, and is not on it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (390, "dark"),
        (1400, "light"),
        *(pytest.param(*other, marks=pytest.mark.long) for other in ((390, "light"), (820, "light"), (820, "dark"))),
        pytest.param(1400, "dark", marks=pytest.mark.long),
    ],
)
def test_it_is_readable_at_any_width(open_page, demo, width, theme):
    page = open_page(demo[0], width, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out sideways
    names = page.evaluate(BOXES)
    assert names
    for place, a in enumerate(names):
        for b in names[place + 1 :]:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)
    assert page.evaluate(FAINT) == []
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"page_{width}_{theme}.png", full_page=True)


@pytest.mark.slow
def test_kin_that_share_one_model_name_are_reported_apart(open_page):
    alone = Row(model="net", role="student", dataset="d", device="x", auc=0.8, latency_p50_ms=1.0)
    distilled = alone.model_copy(update={"teacher": "vit", "control": "net", "auc": 0.85})
    small = distilled.model_copy(update={"scheme": "int8-ptq", "parent": "net", "latency_p50_ms": 0.5})
    page = open_page([alone, distilled, small], link=f"#pins={small.key}")
    assert page.inner_text(".pin h3") == "A net ← vit int8"
    family = page.locator(".pin h3:text-is('Family') + dl").inner_text()
    assert "without teacher" in family
    assert "net · AUC 0.800" in family
    assert "net ← vit · AUC 0.850" in family
