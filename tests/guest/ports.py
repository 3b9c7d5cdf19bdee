"""TCP ports of a guest that are open from outside, out of all 65,535."""

import contextlib
import resource
import select
import socket
import time
from collections.abc import Iterable

AT_ONCE = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
PATIENCE_S = 0.25  # a guest is one hop away; dropped packets are never answered


def open_ports(address: str, ports: Iterable[int] = range(1, 65536)) -> set[int]:
    """The ports that accept a connection."""
    wanted, found = list(ports), set[int]()
    for start in range(0, len(wanted), AT_ONCE):
        found |= _wave(address, wanted[start : start + AT_ONCE])
    return found


def _wave(address: str, ports: list[int]) -> set[int]:
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        waiting: dict[int, tuple[socket.socket, int]] = {}
        for port in ports:
            made = stack.enter_context(socket.socket())
            made.setblocking(False)
            made.connect_ex((address, port))
            waiting[made.fileno()] = made, port
            poll.register(made, select.POLLOUT)
        return _answered(poll, waiting)


def _answered(poll: select.poll, waiting: dict[int, tuple[socket.socket, int]]) -> set[int]:
    found, end = set[int](), time.monotonic() + PATIENCE_S
    while waiting and (left := end - time.monotonic()) > 0:
        for file, _ in poll.poll(left * 1000):
            poll.unregister(file)
            made, port = waiting.pop(file)
            if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.add(port)
    return found
