"""A function of many items in threads, with few of them in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_blocks(function: Callable[[T], R], items: Sequence[T], workers: int, size: int) -> Iterator[R]:
    """Yield ``function(item)`` of every item, in their order.

    ``ThreadPoolExecutor.map`` makes a future of every item at once, whatever its ``chunksize``: 500 MB for 300,000.

    Args:
        function: called in threads; what it raises ends the iteration.
        items: any number.
        workers: threads.
        size: items that a thread takes at a time; twice as many blocks as there are threads are in flight at most.
    """
    waiting: deque[Future[list[R]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(items), size):
            block = items[start : start + size]
            waiting.append(pool.submit(lambda block: [function(item) for item in block], block))
            if len(waiting) == 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
