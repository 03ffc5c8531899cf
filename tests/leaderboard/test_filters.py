"""Filters: what people type, one meaning in the database and over records, and nothing evaluated."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.leaderboard.filters import NUMBER_COLUMNS, TEXT_COLUMNS, parse
from tutelage.leaderboard.schema import GAINS
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

ROWS = [
    Row(model="a", role="student", dataset="p", teacher="vit", auc=0.9, latency_p50_ms=4.0, size_bytes=8_000_000),
    Row(model="b", role="student", dataset="p", auc=0.8, latency_p50_ms=6.0),
    Row(model="C int8", role="teacher", dataset="q", latency_p50_ms=5.0, params=3_000_000),
    Row(model="and", role="baseline", dataset="q", auc=0.0),
]


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("latency_p50_ms<5 and role=student", "a"),
        ("latency_p50_ms<=5ms", "a C"),
        ("latency_p50_ms<5000us", "a"),
        ("size_bytes<=8MB", "a"),
        ("params>=3M or teacher=vit", "a C"),
        ("auc=empty", "C"),
        ("auc!=empty", "a b and"),
        ("teacher=empty and not role=baseline", "b C"),
        ("not auc>0.85", "b C and"),  # what was not measured is not above .85
        ("auc<0.85", "b and"),
        ("model~INT8", "C"),
        ("model='C int8'", "C"),
        ('model="and"', "and"),
        ("dataset in (p, z)", "a b"),
        ("role=student or role=teacher and dataset=q", "a b C"),  # `and` binds closer
        ("(role=student or role=teacher) and dataset=q", "C"),
        ("not (role=student or role=teacher)", "and"),
        ("auc>=80%", "a b"),
    ],
)
def test_a_filter_means_the_same_in_the_database_and_over_records(tmp_path, text, models):
    store = Store(tmp_path / "leaderboard.db")
    store.add(ROWS)
    expected = [row for row in ROWS if row.model.split()[0] in models.split()]
    assert [row for row in ROWS if parse(text).keeps(row)] == expected
    assert store.rows(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency_ms<5", "latency_p50_ms"),
        ("auc", "write one of"),
        ("auc<", "value for auc is missing"),
        ("auc<high", "is a number, not 'high'"),
        ("auc<5ms and", "a column is missing"),
        ("(auc<1", r"'\)' is missing"),
        ("auc<1 auc<2", "unexpected 'auc'"),
        ("auc~1", "contains"),
        ("auc<empty", "empty"),
        ("role in student", "write"),
        ("", "a column is missing"),
        ("'", "cannot read"),
        ("__import__('os').system('true')", "no column"),
        ("1; DROP TABLE rows", "no column"),
        ("(" * 500 + "auc<1" + ")" * 500, "nested"),
        ("not " * 500 + "auc<1", "nested"),
    ],
)
def test_a_mistake_is_told_in_one_line(text, words):
    with pytest.raises(InputError, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_every_column_of_a_row_can_be_filtered():
    columns = set(TEXT_COLUMNS) | set(NUMBER_COLUMNS)
    assert columns - {"row_id", *GAINS} == set(Row.model_fields) - {"arch", "measurement", "details"}


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
    assert store.rows(text) == [row for row in rows if parse(text).keeps(row)]
