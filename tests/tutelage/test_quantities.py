"""Quantities: units are read and written, and a bare or wrong one is refused with an example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.quantities import COUNT, KINDS, amount, fraction_of, in_units, milliseconds, number, size_in_bytes
from tutelage.records import InputError


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (milliseconds, "5ms", 5.0),
        (milliseconds, "800us", 0.8),
        (milliseconds, "1.5 s", 1500.0),
        (number, "100M", 1e8),
        (number, 2500, 2500.0),
        (number, "1e6", 1e6),
        (size_in_bytes, "8MB", 8e6),
        (size_in_bytes, "2MiB", 2 * 2**20),
        (fraction_of, "35%", 0.35),
    ],
)
def test_units_are_read(read: object, text: str, value: float) -> None:
    assert read(text) == pytest.approx(value)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (milliseconds, "5"),
        (milliseconds, "5MB"),
        (size_in_bytes, "8M"),
        (number, "-3"),
        (number, "0"),
        (fraction_of, "half"),
    ],
)
def test_wrong_units_are_refused_with_an_example(read: object, text: str) -> None:
    with pytest.raises(InputError, match=r"e\.g\."):
        read(text)  # type: ignore[operator]


@given(st.floats(min_value=1e-3, max_value=1e12))
def test_what_is_written_can_be_read_back(value: float) -> None:
    assert number(in_units(value, "").replace(" ", "")) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("latency", "5", 5.0),
        ("latency", "5 ms", 5.0),
        ("latency", "800us", 0.8),
        ("count", "3B", 3e9),
        ("count", "-2k", -2e3),
        ("size", "3B", 3.0),
        ("size", "2MiB", 2 * 2**20),
        ("fraction", "95%", 0.95),
        ("fraction", "-.01", -0.01),
        ("energy", "2J", 2000.0),
        ("plain", "4", 4.0),
        ("count", "1.1M", 1_100_000),
        ("count", "5e-1k", 500),
        ("latency", "4.35s", 4350),
    ],
)
def test_a_column_reads_its_own_units_and_bare_numbers(kind: str, text: str, value: float) -> None:
    assert amount(text, KINDS[kind]) == value  # to the digit: `params=1.1M` finds 1100000


@pytest.mark.parametrize(
    ("kind", "text"),
    [("latency", "5MB"), ("size", "5ms"), ("size", "8M"), ("count", "3%"), ("plain", "4k"), ("count", "many")],
)
def test_a_unit_of_another_kind_of_column_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InputError, match=r"is not a.* e\.g\."):
        amount(text, KINDS[kind])


@given(st.integers(min_value=1, max_value=10**9), st.sampled_from(sorted(COUNT.units)))
def test_options_and_filters_read_one_number(value: int, unit: str) -> None:
    assert number(f"{value}{unit}") == amount(f"{value}{unit}", COUNT)
