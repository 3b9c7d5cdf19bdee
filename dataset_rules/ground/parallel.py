"""Map a function over many files with threads: decoding and disk access release the GIL."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]

MAX_PENDING = 64  # results pending for their turn; bounds memory


def available_cpus() -> int:
    """Number of CPUs available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply the function to each item in parallel; yield the results in order."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > MAX_PENDING:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def progress_counter(on_progress: Progress | None, total: int) -> Callable[[], None]:
    """A callback that counts finished files; some of the total may turn out not to be needed."""
    numbers = count(1)

    def tick() -> None:
        if on_progress is not None:
            on_progress(min(next(numbers), total), total)

    return tick
