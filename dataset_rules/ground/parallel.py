"""One function over many files by a few threads: decoders and disks let the others run."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Progress = Callable[[int, int], None]

AHEAD = 64  # results that may wait for their turn: bounds memory


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """What the function makes of each item, in their order."""
    with ThreadPoolExecutor(processors()) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def ticker(on_progress: Progress | None, total: int) -> Callable[[], None]:
    """A function that counts finished files; some of the total may prove not to be needed."""
    numbers = count(1)

    def tick() -> None:
        if on_progress is not None:
            on_progress(min(next(numbers), total), total)

    return tick
