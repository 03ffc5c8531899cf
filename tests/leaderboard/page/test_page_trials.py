"""The trials of a search on the page: read of its file, drawn in their order, beside what decided them."""

import json

import pytest

from tutelage.pipeline.curves import details_of_rows, with_curves
from tutelage.records import Arch, Row
from tutelage.search.result import Evaluated, SearchResult

from ..study import study_rows

EVIL = "<script>document.title='gone'</script><img src=x onerror=alert(1)>"
ARCH = Arch(space="ofa_mbv3_w1.0_stem1", ks=[3] * 10, e=[3] * 10, d=[2] * 5, r=28)
FILE = "artifacts/0123/search.json"


def searched(num, errors=None):
    """A search whose trials get better and smaller; the last is measured and over a bound."""
    errors = errors or [0.5 - n / 1000 for n in range(num)]
    rows = [
        Evaluated(
            arch=ARCH,
            predicted={"latency_ms@box:int8": 9.0},
            counted={"latency_ms@box:int8": 2.0 + n, "params": 1e6 * (n + 1)},
            measured={"error": error},
            feasible=n < num - 1,
        )
        for n, error in enumerate(errors)
    ]
    objectives = {"error": "min", "latency_ms@box:int8": "min", "params": "min"}
    cheap = {name: name != "error" for name in objectives}
    return SearchResult(
        space="s", strategy="random", seed=0, evaluations=num, objectives=objectives, cheap=cheap, bounds={},
        evaluated=tuple(rows),
    )  # fmt: skip


def chosen(row, **search):
    return row.model_copy(update={"details": {**row.details, "search": {"file": FILE, **search}}})


def test_trials_are_read_of_the_file_of_the_search_and_a_damaged_one_takes_nothing_down(tmp_path):
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    row = chosen(Row(model="m", role="student", dataset="d"))

    def trials():
        body = json.loads(with_curves(details_of_rows([row]), tmp_path)([row.key])[row.key])
        return body.get("curves", {}).get("trials")

    assert trials() is None
    searched(3).to_json(file)
    found = trials()
    assert (found["scored"], found["better"], found["of"]) == ("validation error", -1, 3)
    assert found["scores"] == [0.5, 0.499, 0.498]
    assert found["costs"] == [
        {"name": "predicted latency on box in int8 (ms)", "values": [2.0, 3.0, 4.0]},
        {"name": "parameters (M)", "values": [1.0, 2.0, 3.0]},
    ]
    assert found["kept"] == [1, 1, 0]
    searched(1000).to_json(file)
    found = trials()
    assert (found["of"], len(found["scores"])) == (1000, 300)
    assert (found["scores"][0], found["scores"][-1]) == (0.5, -0.499)
    for text in ("", "{", "[]", "{}", '{"cheap": {"error": true}}', '{"cheap": {"a": false}, "evaluated": [1]}'):
        file.write_text(text)
        assert trials() is None, text


@pytest.fixture(scope="module")
def rows():
    """The study, of which two rows come from one search, and one from another."""
    study = study_rows()
    costs = [{"name": f"{EVIL} (ms)", "values": [float(n + 1) for n in range(50)]}]
    trials = {"scored": EVIL, "better": -1, "of": 60, "costs": costs, "kept": [1] * 49 + [0]}
    trials["scores"] = [0.9] + [0.2 - n / 1000 for n in range(49)]
    curves = {"trials": trials}
    for place in (4, 5):
        said = {"file": FILE, "importances": {EVIL: 0.8, "resolution": 0.2}, "scored": "error"}
        details = {**study[place].details, "search": said, "curves": curves}
        study[place] = study[place].model_copy(update={"details": details})
    other = {"search": {"file": "artifacts/4567/search.json"}, "curves": {"trials": {**trials, "scored": "other"}}}
    study[6] = study[6].model_copy(update={"details": {**study[6].details, **other}})
    return study


@pytest.mark.slow
def test_the_page_draws_the_trials_in_their_order_and_what_decided_them(open_page, rows):
    page = open_page(rows, link="#view=trials&all=1")
    card = page.locator("#view-card")
    drawn = page.eval_on_selector_all(
        "#view-card > svg .trial",
        "paths => paths.map((one) => [one.getAttribute('class'), one.getAttribute('d').split('M').length - 1])",
    )
    assert drawn == [
        *(["trial o-0", 9], ["trial o-1", 10], ["trial o-2", 10], ["trial o-3", 10]),
        *(["trial o-4", 9], ["trial over o-4", 1]),
    ], "the first, far worse one lies outside"
    words = card.inner_text()
    assert "60 trials, 50 of them drawn, of which 2 rows of this selection came" in words
    assert "1 far worse ones lie outside" in words
    assert "1 more search: filter by recipe to see another" in words
    assert card.locator(".bars th").all_inner_texts() == [EVIL, "resolution"]
    assert card.locator("ul.legend li").all_inner_texts() == ["1 to 12", "13 to 24", "25 to 36", "37 to 48", "49 to 60"]
    assert page.locator("#view-card script, #view-card img").count() == 0
    page.select_option("#view", "parallel")
    assert card.locator(".bars, ul.legend").count() == 0
    bare = open_page(study_rows(), link="#view=trials")
    assert "No row of this selection comes from a search" in bare.inner_text("#view-card")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_trials_fit_any_width(open_page, rows, width):
    page = open_page(rows, width, link="#view=trials&all=1")
    page.wait_for_selector("#view-card .bars")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
