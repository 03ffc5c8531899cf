"""Filters: one language for the command line and the page, one meaning in the database and over records.

`filter_corpus.json` holds filters with the models that each keeps, or what its error says; Python, the database, the
page's script under node and the page in a browser read the same file.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.leaderboard import filters, page
from tutelage.leaderboard.columns import GAINS, by_any_name
from tutelage.leaderboard.filters import filterable, grammar, misspelt, number, parse
from tutelage.leaderboard.page.build import page_text
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

HERE = Path(__file__).resolve().parent
PAGE_SCRIPT = Path(page.__file__).parent / "page_filter.js"
CORPUS = json.loads((HERE / "filter_corpus.json").read_text(encoding="utf-8"))
# What is long is made here: a list of more values than an expression may be deep, and one test too many.
CASES = [
    *CORPUS["cases"],
    {"filter": "model in (" + ", ".join(f"m{i}" for i in range(1500)) + ", b)", "models": ["b"]},
    {"filter": "seed in (" + ", ".join(map(str, range(1, 1501))) + ")", "models": ["a"]},
    {"filter": " or ".join(f"model=m{i}" for i in range(499)) + " or model=b", "models": ["b"]},
    {"filter": " or ".join(f"model=m{i}" for i in range(501)), "error": "more than 500 tests"},
    {"filter": "not " * 500 + "auc<1", "error": "nested more than 20 deep"},
    {"filter": "not " * 20 + "auc<0.85", "models": ["b", "and"]},
    {"filter": "auc<0.85 and (auc<0.85 or (" * 10 + "auc<0.85" + "))" * 10, "models": ["b", "and"]},
    {"filter": "auc<0.85 and not (" * 10 + "auc>0.85" + ")" * 10, "models": []},
    {"filter": "not (auc in (0.9, empty) or " * 10 + "auc<0.85" + ")" * 10, "models": ["b", "and"]},
    {"filter": "not " * 21 + "auc<0.85", "error": "nested more than 20 deep"},
    {"filter": "(" * 20 + "auc<0.85" + ")" * 20, "models": ["b", "and"]},
    {"filter": "(" * 21 + "auc<0.85" + ")" * 21, "error": "nested more than 20 deep"},
    {"filter": " or ".join(f"m{i}" for i in range(200)) + " and", "error": "missing at the end"},
    {"filter": "(" * 500 + "auc<1" + ")" * 500, "error": "nested more than 20 deep"},
]
NODE = """
const { script, grammar, page, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const readFilter = new Function(`${script}; return readFilter;`)();
const code = ({ codes }, i) => (codes === null ? i : codes.length ? codes[i] : 0);
const reader = {
  text(name, test) {
    const column = page.words[name], flags = column.texts.map(test);
    return (i) => flags[code(column, i)];
  },
  figure(name, i) { return page.figures[name] ? page.figures[name][i] : null; },
};
console.log(JSON.stringify(cases.map(({ filter }) => {
  const { test, error } = readFilter(filter, grammar, reader);
  return error === undefined ? { places: [...Array(page.count).keys()].filter(test) } : { error };
})));
"""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    made = []
    for record in CORPUS["rows"]:
        plain = {name: value for name, value in record.items() if name not in GAINS}
        gained = {name.removeprefix("gain_"): record[name] for name in GAINS if name in record}
        made.append(Row.model_validate({**plain, **({"details": {"gain_over_control": gained}} if gained else {})}))
    return made


@pytest.fixture(scope="module")
def store(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store") / "leaderboard.db")
    store.add(rows)
    return store


def in_javascript(rows: list[Row], filters: list[str]) -> list[dict]:
    """Read filters by the page's script over the data of a page: places of the rows that each keeps, or its error."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: apt-get install nodejs")
    page = page_text(rows, "t")
    data = json.loads(page.partition('data-packed="">')[2].partition("</script>")[0])
    given_ = {"script": PAGE_SCRIPT.read_text(), "grammar": data["grammar"], "page": data}
    done = subprocess.run(
        [node, "-e", NODE],
        input=json.dumps({**given_, "cases": [{"filter": text} for text in filters]}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["filter"][:40])
def test_a_filter_means_what_the_corpus_says_in_the_database_and_over_records(
    case: dict, rows: list[Row], store: Store
) -> None:
    if "error" in case:
        with pytest.raises(InputError) as caught:
            parse(case["filter"])
        assert case["error"] in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        return
    assert [row.model for row in rows if parse(case["filter"]).keeps(row)] == case["models"]
    assert [row.model for row in store.rows(case["filter"])] == case["models"]


def test_a_filter_means_what_the_corpus_says_on_the_page(rows: list[Row]) -> None:
    found = in_javascript(rows, [case["filter"] for case in CASES])
    for case, one in zip(CASES, found, strict=True):
        if "error" in case:
            assert case["error"] in one.get("error", ""), case
        else:
            assert [rows[place].model for place in one["places"]] == case["models"], case


@pytest.mark.slow
def test_the_page_in_a_browser_reads_the_corpus(open_page, rows: list[Row]) -> None:
    page = open_page(rows)
    page.check("#all-groups")
    page.evaluate(
        "() => { const late = window.setTimeout; window.setTimeout = (run) => late(run, 0); }"
    )  # no pause of typing
    for case in CORPUS["cases"]:
        hint, invalid, shown = page.evaluate(
            """(text) => { const box = document.getElementById("query"); box.value = text;
            box.dispatchEvent(new Event("input"));
            return new Promise((done) => setTimeout(() => done([
              document.getElementById("query-hint").innerText, box.classList.contains("invalid"),
              [...document.querySelectorAll("#table tbody .title")].map((one) => one.innerText)]))); }""",
            case["filter"],
        )
        if "error" in case:
            assert case["error"] in hint, case
            continue
        assert not invalid, case
        assert sorted(shown) == sorted(case["models"]), case


def test_every_column_of_a_row_can_be_filtered() -> None:
    columns = {one.name for one in filterable().values()}
    assert columns >= set(Row.model_fields) - {"arch", "measurement", "details"}
    assert columns | {"arch", "measurement", "details", "on_front"} == {one.name for one in by_any_name().values()}
    assert set(grammar()["kinds"]) == {one.name for one in filterable().values() if one.is_number}


def test_the_word_fp32_finds_files_of_that_scheme_and_not_all_of_a_profile(tmp_path: Path) -> None:
    schemes = ("fp32", "int8-ptq")
    files = [
        Row(model="m", role="student", dataset="d", device="host", precision="fp32", scheme=one) for one in schemes
    ]
    store = Store(tmp_path / "leaderboard.db")
    store.add(files)
    assert store.rows("fp32") == [row for row in files if parse("fp32").keeps(row)] == files[:1]
    assert store.rows("precision=fp32") == files
    assert "precision" not in grammar()["searched"]


def test_a_number_is_read_in_the_unit_of_its_column_or_in_any() -> None:
    for text, column, value in (
        ("5", "", 5.0), ("8MB", "", 8e6), ("1.2s", "", 1200.0), ("3%", "", 0.03), ("2mJ", "", 2.0), ("4M", "", 4e6),
        ("5us", "latency_p50_ms", 0.005), ("5", "auc", 5.0), ("3k", "params", 3000.0),
        ("5ms", "size_bytes", None), ("8MB", "latency_p50_ms", None), ("3%", "seed", None),
        ("5 parsecs", "", None), ("much", "", None), ("much", "auc", None),
    ):  # fmt: skip
        assert number(text, column) == value, (text, column)


def test_a_filter_has_at_most_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_MAX_VALUES", 3)
    one = Row(model="m", role="student", dataset="d", seed=3)
    assert parse("seed in (1, 2, 3)").keeps(one)
    for text in ("seed in (1, 2, 3, 4)", "seed in (1, 2) or seed=3 or seed=4"):
        with pytest.raises(InputError, match="more than 3 values"):
            parse(text)


def test_an_error_shows_a_filter_of_200_characters_whole() -> None:
    text = "auc<high " + "a" * 191
    with pytest.raises(InputError) as caught:
        parse(text)
    assert f"filter {text!r}:" in str(caught.value)
    with pytest.raises(InputError) as caught:
        parse(text + "b")
    assert f"filter {text + '...'!r}:" in str(caught.value)


names = st.sampled_from(["auc", "latency_p50_ms", "params"])
comparisons = st.builds(
    lambda name, sign, value: f"{name}{sign}{value}",
    names,
    st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
    st.sampled_from(["0", "0.5", "1", "2", "empty"]),
).filter(lambda text: "empty" not in text or (text.count("=") and "<" not in text and ">" not in text))
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=6,
)
figures = st.sampled_from([None, 0.0, 0.5, 1.0, 2.0])


@pytest.mark.slow
@given(text=expressions, values=st.lists(st.tuples(figures, figures, st.sampled_from([None, 0, 1, 2])), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_filter_agrees_with_the_database(tmp_path_factory, text, values):
    path = tmp_path_factory.mktemp("store") / "leaderboard.db"
    store = Store(path)
    rows = [
        Row(model=str(n), role="student", dataset="d", auc=auc, latency_p50_ms=latency, params=params)
        for n, (auc, latency, params) in enumerate(values)
    ]
    store.add(rows)
    keeps = parse(text).keeps
    assert store.rows(text) == [row for row in rows if keeps(row)]


words = st.sampled_from(
    [
        *("auc", "model", "role", "in", "and", "or", "not", "empty", "student", "a", "0.9", "5", "ms", "MB", "3M"),
        *("=", "==", "!=", "<", "<=", "~", "(", ")", ",", "'x y'", '"and"', "!", "é", "\u00a0", "-1", "1e3", "."),
    ]
)


@pytest.mark.slow
@given(texts=st.lists(st.lists(words, max_size=9).map(" ".join), min_size=200, max_size=200))
@settings(max_examples=10, deadline=None)
def test_the_page_and_python_agree_on_any_line(rows: list[Row], texts: list[str]) -> None:
    texts = [text for text in texts if text.strip(" \u00a0")]
    for text, one in zip(texts, in_javascript(rows, texts), strict=True):
        try:
            keeps = parse(text).keeps
            kept = [place for place, row in enumerate(rows) if keeps(row)]
        except InputError:
            assert "error" in one, text
        else:
            assert one.get("places") == kept, (text, one)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device=host-otr", ["no row has device 'host-otr': the nearest is 'host-ort'"]),
        ("device=HOST-ORT", ["no row has device 'HOST-ORT': the nearest is 'host-ort'"]),
        ("device in (phone, host-ort)", ["no row has device 'phone': there are board, host-ort"]),
        ("device=host-ort and auc>0.99", []),  # a value that there is
        ("scheme=int8", []),  # nothing is known of that column
        ("device=empty or auc>5", []),
    ],
)
def test_a_text_that_no_row_has_is_said_with_the_nearest(text, said):
    values = {"device": ["host-ort", "board", "", "host-ort"]}
    assert misspelt(text, lambda name: values.get(name, [])) == said
    assert misspelt(None, lambda name: []) == []
