"""Architectures against devices on the page: the same cells as in Python, opened, in the link, at any width."""

import csv
import io

import pytest

from tutelage.leaderboard.comparisons.matrix import matrices, to_csv
from tutelage.leaderboard.store import Store
from tutelage.records import Row

from ..study import study_rows

pytestmark = pytest.mark.slow
EVIL = "<script>document.title='gone'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The study on its host and, in part, on a phone where one file failed, one is pending and one is predicted."""
    study = study_rows()
    said = (
        {"failed": f"refused: {EVIL}"},
        {"state": "evaluated"},
        {"latency": "predicted", "predicted_ms": [1, 1.2, 2]},
    )
    phone = {"device": EVIL, "runtime": "litert", "runtime_version": "1.4.0"}
    others = [
        one.model_copy(
            update={
                **phone,
                "latency_p50_ms": None if place < 3 else round(one.latency_p50_ms * 3, 4),
                "details": said[place] if place < 3 else {},
            }
        )
        for place, one in enumerate([study[0], study[12], study[16], *study[2:8]])
    ]
    imported = study[18].model_copy(
        update={"model": f"theirs {EVIL}", "arch": None, "source": "imported", "details": {}}
    )
    return [*study, *others, imported]


def test_the_page_gives_the_cells_that_python_gives(open_page, rows, tmp_path):
    page = open_page(rows, link="#layout=matrix&figure=latency_p50_ms")
    with page.expect_download() as download:
        page.click("#matrix-save")
    mine = list(csv.reader(io.StringIO(download.value.path().read_text())))
    store = Store(tmp_path / "leaderboard.db")
    store.add(rows)
    theirs = list(csv.reader(io.StringIO(to_csv(matrices(store, "latency_p50_ms", is_open=True)))))
    assert mine == theirs
    states = {cell.split(":")[0] for line in theirs[1:] for cell in line[5::2]}
    assert states == {"measured", "imported", "failed", "pending", "predicted", "never"}


def test_a_line_opens_and_the_link_keeps_the_figure_and_nothing_is_markup(open_page, rows):
    page = open_page(rows)
    page.select_option("#layout", "matrix")
    assert page.locator("#scroller").is_hidden()
    before = page.locator("#matrix tbody tr").count()
    page.locator("#matrix tr", has_text="ofa-ef2781").locator("button").click()
    assert page.locator("#matrix tbody tr").count() == before + 8
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.select_option("#figure", "size_bytes")
    assert "layout=matrix" in page.url
    again = open_page(rows, link="#" + page.url.split("#")[1])
    assert again.locator("#figure").input_value() == "size_bytes"
    assert "<script>" in again.inner_text("#matrix thead")
    assert again.locator("#matrix img, #matrix script").count() == 0
    again.fill("#query", "role=teacher")
    again.locator("#matrix-words", has_text="2 architectures on").wait_for()
    again.select_option("#layout", "rows")
    assert again.locator("#matrix").is_hidden()
    assert again.locator("#table tbody tr").count() == 4


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1400, "light")])
def test_no_device_is_cut_in_silence(open_page, rows, width, theme):
    many = [one.model_copy(update={"device": f"board-of-a-name-{n}"}) for n in range(12) for one in rows[:4]]
    page = open_page([*rows, *many], width, theme, link="#layout=matrix")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.evaluate("document.getElementById('matrix').getBoundingClientRect().right")
    ends = page.evaluate(
        "[...document.querySelectorAll('#matrix thead th')].map((one) => one.getBoundingClientRect().right)"
    )
    cut = sum(end > right + 1 for end in ends)
    assert cut > 0
    assert page.inner_text("#matrix-hidden").startswith(f"{cut} device")
