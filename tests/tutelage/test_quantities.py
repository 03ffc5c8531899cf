"""Quantities: units are read and written, and a bare or wrong one is refused with an example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.quantities import in_units, milliseconds, number, share, size_in_bytes
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
        (share, "35%", 0.35),
    ],
)
def test_units_are_read(read: object, text: str, value: float) -> None:
    assert read(text) == pytest.approx(value)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("read", "text"),
    [(milliseconds, "5"), (milliseconds, "5MB"), (size_in_bytes, "8M"), (number, "-3"), (number, "0"), (share, "half")],
)
def test_wrong_units_are_refused_with_an_example(read: object, text: str) -> None:
    with pytest.raises(InputError, match=r"e\.g\."):
        read(text)  # type: ignore[operator]


@given(st.floats(min_value=1e-3, max_value=1e12))
def test_what_is_written_can_be_read_back(value: float) -> None:
    assert number(in_units(value, "").replace(" ", "")) == pytest.approx(value, rel=6e-3)
