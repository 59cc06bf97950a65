"""Mapping in threads: every result in its place, few items in flight, and an end at the first failure."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from cpt.data.threads import map_blocks


@pytest.mark.parametrize(("count", "workers", "size"), [(0, 3, 4), (1, 3, 4), (50, 1, 7), (100, 4, 1), (103, 3, 16)])
def test_results_come_in_the_order_of_the_items(count: int, workers: int, size: int) -> None:
    assert list(map_blocks(lambda i: i * i, range(count), workers, size)) == [i * i for i in range(count)]


def test_few_items_are_in_flight() -> None:
    """The first item waits until all that may be taken beside it are done."""
    begun: list[int] = []
    first = threading.Event()

    def slow(i: int) -> int:
        begun.append(i)
        if i == 0:
            first.wait(60)
        return i

    results = map_blocks(slow, range(1000), 3, 5)
    threading.Timer(0.3, first.set).start()
    assert next(results) == 0
    assert max(begun) < 2 * 3 * 5
    assert list(results) == list(range(1, 1000))


def test_blocks_are_taken_when_their_turn_comes() -> None:
    class Items(Sequence):
        taken = 0

        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, place):
            Items.taken = max(Items.taken, place.stop)
            return list(range(place.start, place.stop))

    for result in map_blocks(lambda i: i, Items(), 2, 10):
        assert Items.taken - result <= 2 * 2 * 10


def test_a_failure_ends_it() -> None:
    begun: list[int] = []

    def failing(i: int) -> int:
        begun.append(i)
        if i == 5:
            raise ValueError("five")
        return i

    with pytest.raises(ValueError, match="five"):
        list(map_blocks(failing, range(10_000), 2, 5))
    assert len(begun) < 100
