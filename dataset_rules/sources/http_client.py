"""Requests that nobody waits for in vain.

All reading from the network happens in a thread that nobody waits for longer than a stall, so a
name server, a header or a body that never ends cannot hold the caller. The thread owns its
connection and is left to end by itself.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import shown

Transport = Callable[[], httpx.BaseTransport]  # makes what reaches machines

REDIRECTS = 8
TIMEOUT_S = 30.0  # of one read; connections that are dead end by it
SLOWEST_BYTES_PER_S = 200  # below it over a whole stall nothing comes to its end
WAITING_BLOCKS = 16  # between the network's thread and ours
FINAL = (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL)


class Broken(Exception):  # noqa: N818  a break, of which another try may make a success
    """The transfer ended early."""


class Refusal(Exception):  # noqa: N818  the caller knows where, and says it
    """No other try will do better."""


@dataclass(frozen=True)
class Head:
    """What a server says before the body."""

    status: int
    headers: Mapping[str, str]  # names in any case

    @property
    def validator(self) -> str | None:
        """What tells this state of the file from a later one."""
        etag = self.headers.get("etag", "")
        return etag if etag and not etag.startswith("W/") else self.headers.get("last-modified")


@contextmanager
def answer(
    url: str, headers: Mapping[str, str], *, stall_s: float, transport: Transport | None
) -> Iterator[tuple[Head, Iterator[bytes]]]:
    """Head and body of what is behind an https address, after redirects to https only.

    Args:
        url: the address.
        headers: of the request.
        stall_s: after it without (hardly) anything new it is `Broken`.
        transport: how machines are reached; None: freely, by the proxy of the environment.

    Raises:
        Broken: if the network fails.
        Refusal: if it fails for good.
    """
    inbox: queue.Queue[Any] = queue.Queue(WAITING_BLOCKS)
    stop = threading.Event()
    arguments = (url, dict(headers), transport, inbox, stop)
    threading.Thread(target=_pump, args=arguments, daemon=True).start()
    try:
        yield _next(inbox, stall_s), _blocks(inbox, stall_s)
    finally:
        stop.set()


def _pump(
    url: str, headers: dict[str, str], transport: Transport | None, inbox: queue.Queue[Any],
    stop: threading.Event,
) -> None:  # fmt: skip
    """In a thread: head, blocks and None, or what went wrong, into the inbox."""

    def put(item: Any) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                inbox.put(item, timeout=0.2)
                return

    try:
        with _client(transport) as client, client.stream("GET", url, headers=headers) as found:
            put(Head(found.status_code, found.headers))
            for block in found.iter_raw():
                put(block)
                if stop.is_set():
                    return
        put(None)
    except Exception as error:  # handed over to the thread that waits
        put(error)


def _client(transport: Transport | None) -> httpx.Client:
    """A given transport knows no proxy: it judges the machine that is asked."""
    return httpx.Client(
        transport=transport() if transport else None, trust_env=transport is None,
        follow_redirects=True, max_redirects=REDIRECTS, timeout=TIMEOUT_S,
        event_hooks={"request": [_refuse_plain]}, headers={"Accept-Encoding": "identity"},
    )  # fmt: skip


def _refuse_plain(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it leads on to {shown(str(request.url))}")


def _next(inbox: queue.Queue[Any], patience_s: float) -> Any:
    try:
        item = inbox.get(timeout=max(patience_s, 0.001))
    except queue.Empty:
        raise Broken("the server has sent nothing for too long") from None
    if isinstance(item, RulesError):
        raise item
    if isinstance(item, Exception):
        said = str(item) or type(item).__name__
        is_final = isinstance(item, FINAL)
        if is_final or "CERTIFICATE_VERIFY_FAILED" in said:
            raise Refusal(said) from item
        raise Broken(said) from item
    return item


def _blocks(inbox: queue.Queue[Any], stall_s: float) -> Iterator[bytes]:
    """The body, as long as it comes at any speed worth the name."""
    until, received = time.monotonic() + stall_s, 0
    while (block := _next(inbox, until - time.monotonic())) is not None:
        received += len(block)
        yield block
        if time.monotonic() > until:
            if received < SLOWEST_BYTES_PER_S * stall_s:
                raise Broken(f"only {received} bytes came in {stall_s:.0f} s")
            until, received = time.monotonic() + stall_s, 0
