"""Faults at calls to the cloud, injected by tests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

PENDING = "Droplet already has a pending event."


class CloudError(Exception):
    """An HTTP response other than 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


def answer(status: int, message: str = "injected") -> Callable[[], None]:
    def action() -> None:
        raise CloudError(status, message)

    return action


def pending() -> Callable[[], None]:
    return answer(422, PENDING)


def hang() -> None:
    time.sleep(3600)


def leave() -> None:
    """Kill the provider's process on the spot."""
    os._exit(1)


@dataclass
class Fault:
    """Run `action` before or after the cloud acts, from the nth matching call for `times` calls."""

    action: Callable[[], None]
    op: str = "*"  # create, read, update, delete, lookup
    kind: str = "*"  # Droplet, ..., local.Command, remote.Command, remote.CopyToRemote
    nth: int = 1
    times: int = 1
    after: bool = False
    seen: int = 0

    def hit(self, op: str, kind: str) -> bool:
        if self.op not in ("*", op) or self.kind not in ("*", kind):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


@dataclass
class Weather:
    """Each call to the cloud fails with this probability; a seed makes them reproducible."""

    rate: float
    seed: int
    answers: tuple[tuple[int, str], ...] = ((429, "Too many requests"), (503, "Unavailable"))
    after: bool = False
    hits: int = 0
    _dice: random.Random = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def hit(self, op: str, kind: str) -> bool:
        with self._lock:
            # `remote.Command` and the like have a dot in their names and do not call the cloud.
            struck = op != "read" and "." not in kind and self._dice.random() < self.rate
            self.hits += struck
            return struck

    def action(self) -> None:
        with self._lock:
            status, message = self._dice.choice(self.answers)
        raise CloudError(status, message)


def parse(text: str) -> Fault:
    """`create:Droplet:2:hang:after`: the second creation of a droplet acts but never responds."""
    op, kind, nth, what, *rest = text.split(":")
    actions = {"hang": hang, "exit": leave, "pending": pending()}
    action = answer(int(what)) if what.isdecimal() else actions[what]
    return Fault(action, op, kind, nth=int(nth), after=rest == ["after"])
