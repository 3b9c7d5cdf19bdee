"""Works timed in turn, so that whatever else runs on the machine slows them all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")
Took = Mapping[Name, Sequence[float]]  # seconds of each work, one entry a round


def in_turn(
    works: Mapping[Name, Callable[[], object]],
    *,
    is_enough: Callable[[Took[Name]], bool],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Seconds that each work took, in rounds of all of them until that is enough.

    Every second round goes backwards: a disturbance with a rhythm of its own does not always hit
    the same work.

    Args:
        works: what is timed.
        is_enough: asked after each round.
        clock: seconds.
    """
    took: dict[Name, list[float]] = {name: [] for name in works}
    order = list(works)
    while not took[order[0]] or not is_enough(took):
        for name in order:
            begun = clock()
            works[name]()
            took[name].append(clock() - begun)
        order.reverse()
    return took


def is_repeated(seconds: Sequence[float], *, within: float, times: int = 3) -> bool:
    """True if the best time was met so often: what slows a work down rarely does so equally."""
    best = sorted(seconds)[:times]
    return len(best) == times and best[-1] <= (1 + within) * best[0]
