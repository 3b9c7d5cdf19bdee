"""HTTP requests with a stall timeout.

All network access happens in a thread, and the caller never waits longer than the stall timeout,
so an endless DNS lookup, header or body cannot block it. The thread owns its connection and ends
by itself.
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
from dataset_rules.sources.address import redact

Transport = Callable[[], httpx.BaseTransport]  # transport factory

REDIRECTS = 8
TIMEOUT_S = 30.0  # for one read; ends dead connections
MIN_BYTES_PER_S = 200  # slower transfers are aborted after the stall timeout
QUEUED_BLOCKS = 16  # between the network thread and the caller
PERMANENT_ERRORS = (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL)


class TransferInterrupted(Exception):  # noqa: N818  may succeed on retry
    """The transfer ended early; a retry may succeed."""


class TransferRefused(Exception):  # noqa: N818  the caller adds the location
    """The transfer failed permanently; retries are useless."""


@dataclass(frozen=True)
class ResponseHead:
    """Status and headers of a response."""

    status: int
    headers: Mapping[str, str]  # case-insensitive

    @property
    def validator(self) -> str | None:
        """Validator that identifies this version of the file."""
        etag = self.headers.get("etag", "")
        return etag if etag and not etag.startswith("W/") else self.headers.get("last-modified")


@contextmanager
def stream_response(
    url: str, headers: Mapping[str, str], *, stall_s: float, transport: Transport | None
) -> Iterator[tuple[ResponseHead, Iterator[bytes]]]:
    """Head and body of an https response, after redirects to https only.

    Args:
        url: the address.
        headers: of the request.
        stall_s: raises `TransferInterrupted` after this time with (almost) no data.
        transport: transport factory; None for unrestricted access through the environment's proxy.

    Raises:
        TransferInterrupted: on network errors that a retry may fix.
        TransferRefused: on permanent errors.
    """
    inbox: queue.Queue[Any] = queue.Queue(QUEUED_BLOCKS)
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
    """Thread body: put head, blocks and None, or an exception, into the inbox."""

    def put(item: Any) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                inbox.put(item, timeout=0.2)
                return

    try:
        with _client(transport) as client, client.stream("GET", url, headers=headers) as found:
            put(ResponseHead(found.status_code, found.headers))
            for block in found.iter_raw():
                put(block)
                if stop.is_set():
                    return
        put(None)
    except Exception as error:  # passed to the waiting thread
        put(error)


def _client(transport: Transport | None) -> httpx.Client:
    """A custom transport checks the target host itself, so it uses no proxy."""
    return httpx.Client(
        transport=transport() if transport else None, trust_env=transport is None,
        follow_redirects=True, max_redirects=REDIRECTS, timeout=TIMEOUT_S,
        event_hooks={"request": [_require_https]}, headers={"Accept-Encoding": "identity"},
    )  # fmt: skip


def _require_https(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it redirects to {redact(str(request.url))}")


def _next(inbox: queue.Queue[Any], timeout_s: float) -> Any:
    try:
        item = inbox.get(timeout=max(timeout_s, 0.001))
    except queue.Empty:
        raise TransferInterrupted("the server has sent nothing for too long") from None
    if isinstance(item, RulesError):
        raise item
    if isinstance(item, Exception):
        message = str(item) or type(item).__name__
        is_permanent = isinstance(item, PERMANENT_ERRORS)
        if is_permanent or "CERTIFICATE_VERIFY_FAILED" in message:
            raise TransferRefused(message) from item
        raise TransferInterrupted(message) from item
    return item


def _blocks(inbox: queue.Queue[Any], stall_s: float) -> Iterator[bytes]:
    """Blocks of the body, as long as they arrive at `MIN_BYTES_PER_S`."""
    deadline, received = time.monotonic() + stall_s, 0
    while (block := _next(inbox, deadline - time.monotonic())) is not None:
        received += len(block)
        yield block
        if time.monotonic() > deadline:
            if received < MIN_BYTES_PER_S * stall_s:
                raise TransferInterrupted(f"only {received} bytes received in {stall_s:.0f} s")
            deadline, received = time.monotonic() + stall_s, 0
