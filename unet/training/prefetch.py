"""Batches drawn ahead by threads while the network trains; bit-identical to drawing in order."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dataset_rules.ground.parallel import available_cpus
from unet.planning.plan import Plan
from unet.training.patches import Batch

Draw = Callable[[int], Batch]

GPU_WORKERS = 12  # at most; a GPU needs many cores to draw its batches


class Prefetch:
    """The batches of consecutive steps, some of them drawn ahead."""

    def __init__(self, draw: Draw, plan: Plan, *, workers: int = 1) -> None:
        self.draw = draw
        self.plan = plan
        self.ahead = workers
        self.waited_s = 0.0  # time the network waited for batches
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._drawn: dict[int, Future[Batch]] = {}

    def take(self, step: int) -> Batch:
        """The batch of a step; starts drawing the following ones."""
        for number in range(step, min(step + self.ahead + 1, max(self.plan.steps, step + 1))):
            if number not in self._drawn:
                self._drawn[number] = self._pool.submit(self.draw, number)
        begun = time.monotonic()
        batch = self._drawn.pop(step).result()
        self.waited_s += time.monotonic() - begun
        return batch

    def drop(self) -> None:
        """Discard the drawn batches, because the plan changed."""
        for future in self._drawn.values():
            future.cancel()
        for future in self._drawn.values():
            if not future.cancelled():
                future.exception()  # it may have failed for the same reason
        self._drawn = {}

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def workers_for(device: str) -> int:
    """Number of drawing threads: one for CPU training, all cores but one for a GPU."""
    return min(GPU_WORKERS, max(1, available_cpus() - 1)) if device == "cuda" else 1
