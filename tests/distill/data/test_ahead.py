"""Items that threads prepare come in order, a bounded number ahead, with their errors; none is left behind."""

import threading
from collections.abc import Iterator

import pytest

from tutelage.distill.data.ahead import Spent, ahead


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_items_come_in_order_and_few_are_prepared_before_their_use(workers: int) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    spent = Spent()
    for turn, item in enumerate(ahead(make, 20, workers, spent)):
        assert item == turn * turn
        assert len(made) <= turn + 1 + workers + 1
    assert sorted(made) == list(range(20))
    assert spent.prepare_s > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_at_its_turn(workers: int) -> None:
    def make(number: int) -> int:
        if number == 3:
            raise ValueError("the fourth")
        return number

    items: Iterator[int] = ahead(make, 10, workers)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(items)


def test_a_reader_that_stops_leaves_no_thread() -> None:
    names = {thread.name for thread in threading.enumerate()}
    items = ahead(lambda number: number, 1000, 2)
    assert next(items) == 0
    assert {thread.name for thread in threading.enumerate()} > names
    items.close()  # type: ignore[attr-defined]
    assert {thread.name for thread in threading.enumerate()} == names
