"""Interleaved timing, so that other load on the machine slows all functions alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")
Timings = Mapping[Name, Sequence[float]]  # seconds of each function, one entry per round


def time_interleaved(
    functions: Mapping[Name, Callable[[], object]],
    *,
    is_enough: Callable[[Timings[Name]], bool],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Time functions in rounds of all of them until `is_enough`; returns their seconds.

    Every second round runs in reverse order, so that a periodic disturbance does not always hit
    the same function.

    Args:
        functions: the functions by name.
        is_enough: called with the timings after each round.
        clock: returns seconds.
    """
    timings: dict[Name, list[float]] = {name: [] for name in functions}
    order = list(functions)
    while not timings[order[0]] or not is_enough(timings):
        for name in order:
            started = clock()
            functions[name]()
            timings[name].append(clock() - started)
        order.reverse()
    return timings


def is_repeated(seconds: Sequence[float], *, within: float, times: int = 3) -> bool:
    """True if the best time was reached `times` times; slowdowns are rarely equal."""
    best = sorted(seconds)[:times]
    return len(best) == times and best[-1] <= (1 + within) * best[0]
