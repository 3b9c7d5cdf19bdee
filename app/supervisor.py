"""Supervisor of web process, worker and predictor: restarts processes that exit."""

import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from app.access.tokens import has_any_token
from app.ground import logs
from app.ground.errors import AppError, Conflict
from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs.process import DRAIN_S, PARENT, SHARE
from app.store.db import migrate, open_engine
from app.web.main import SOCKET
from app.web.main import run as run_web

log = logging.getLogger(__name__)

POLL_S = 0.2
MIN_DELAY_S = 0.5  # before a process is restarted; doubled at each exit in a row
MAX_DELAY_S = 30.0
SETTLED_S = 60.0  # a process that ran this long is restarted at once
KILL_AFTER_S = DRAIN_S + 5.0  # between SIGTERM and SIGKILL
UVICORN_PROXIES = "FORWARDED_ALLOW_IPS"  # set by users with a proxy; `app.web.main` has its own
START_TIMEOUT_S = 60.0  # for the web process to answer


@dataclass
class ManagedProcess:
    """A process that is kept running."""

    module: str
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    delay_s: float = MIN_DELAY_S

    def start(self) -> None:
        """Start it in a new session, so that Ctrl-C reaches only the supervisor."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            pass_fds=self.inherited_fds, start_new_session=True,
            env={**os.environ, **self.environment, PARENT: str(os.getpid())},
        )  # fmt: skip
        self.started_at = time.monotonic()

    def check(self) -> None:
        """Restart it if it exited, with a growing delay if it exits soon after each start."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.restart_at:
                self.start()
        elif self.process.poll() is not None:
            settled = now - self.started_at > SETTLED_S
            self.delay_s = MIN_DELAY_S if settled else min(2 * self.delay_s, MAX_DELAY_S)
            self.restart_at = now + (0.0 if settled else self.delay_s)
            log.warning("%s exited with %s; restarting", self.module, self.process.returncode)
            self.process = None


def serve(
    host: str = "127.0.0.1", port: int = 8000, home: Path | None = None, *,
    on_ready: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Run the whole service until SIGINT or SIGTERM.

    Args:
        host: address to listen on; addresses other than loopback require a token.
        port: 0 picks a free one.
        home: data directory; default: from the environment.
        on_ready: called with the address once the service answers.

    Raises:
        AppError: if no token exists and the service would be open to other machines or a proxy.
        Conflict: if the address is in use, or the data directory is served already.
    """
    settings = _prepare(home)
    _check_access(host, settings, is_behind_proxy=UVICORN_PROXIES in os.environ)
    with _exclusive(settings), _listen(host, port) as listener:
        descriptor = listener.fileno()
        environment = {"UNETOPS_HOME": str(settings.home), SOCKET: str(descriptor)}
        web = ManagedProcess("app.web.main", environment, (descriptor,))
        _supervise([web, *_workers(settings, "all")], _address(listener), on_ready)


def web(host: str, port: int, home: Path | None, on_ready: Callable[[str], None]) -> None:
    """Run only the web process until SIGINT or SIGTERM, e.g. behind a proxy on this machine.

    Raises:
        AppError: if no token exists, unless the settings require one or allow open access.
        Conflict: if the address is in use.
    """
    settings = _prepare(home)
    _check_access(host, settings, is_behind_proxy=True)
    logs.configure("web")
    with _listen(host, port) as listener:
        on_ready(_address(listener))
        run_web(settings, listener)


def worker(home: Path | None, share: str = "all") -> None:
    """Run worker and predictor until SIGINT or SIGTERM; steps then save and resume later.

    Args:
        home: data directory; default: from the environment.
        share: which jobs to take: "all", "jobs" (need no network) or "fetching" (needs it). The
            last two run as separate processes, so that each can be sandboxed tightly.

    Raises:
        Conflict: if the data directory has a worker already.
    """
    settings = _prepare(home)
    with _exclusive(settings, "fetch.lock" if share == "fetching" else "serve.lock"):
        _supervise(_workers(settings, share))


def _prepare(home: Path | None) -> Settings:
    settings = Settings.from_environment()
    if home is not None:
        settings = replace(settings, home=home.expanduser().resolve())
    migrate(settings)
    return settings


def _exclusive(settings: Settings, lock: str = "serve.lock") -> AbstractContextManager[None]:
    return locked(settings.home / lock, wait_s=0, busy="this data directory is already in use")


def _workers(settings: Settings, share: str) -> list[ManagedProcess]:
    environment = {"UNETOPS_HOME": str(settings.home), SHARE: share}
    worker = ManagedProcess("app.jobs.worker", environment)
    if share == "fetching":
        return [worker]
    return [worker, ManagedProcess("app.serving.predictor_process", environment)]


def _supervise(
    processes: list[ManagedProcess], address: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Keep processes running until a signal, then stop them; report once the address answers."""
    stop = _stop_on_signal()
    try:
        _watch(processes, stop, address, on_ready)
    finally:
        _stop_all(processes)


def _watch(
    processes: list[ManagedProcess], stop: threading.Event, address: str | None,
    on_ready: Callable[[str], None] | None,
) -> None:  # fmt: skip
    started_at, is_ready = time.monotonic(), address is None
    while not stop.is_set():
        for process in processes:
            process.check()
        if address and not is_ready and _answers(address):
            is_ready = True
            log.info("ready on %s", address)
            if on_ready:
                on_ready(address)
        if not is_ready and time.monotonic() - started_at > START_TIMEOUT_S:
            raise AppError(
                "the web process does not answer", where=str(address),
                remedy="see its log messages above",
            )  # fmt: skip
        stop.wait(POLL_S)


def _stop_all(processes: list[ManagedProcess]) -> None:
    running = [p.process for p in processes if p.process and p.process.poll() is None]
    for process in running:
        process.terminate()
    until = time.monotonic() + KILL_AFTER_S
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _check_access(host: str, settings: Settings, *, is_behind_proxy: bool) -> None:
    """Without a token every client is admin, so only this machine may connect."""
    is_exposed = is_behind_proxy and not settings.allow_open
    if (_is_loopback(host) and not is_exposed) or settings.require_auth or _has_token(settings):
        return
    if not _is_loopback(host):
        raise AppError(
            "without a token the service does not listen for other machines", where=host,
            expected="127.0.0.1, or a token", found="no token",
            remedy="run `unetops token create --role admin` first",
        )  # fmt: skip
    raise AppError(
        "without a token the service does not start behind a possible proxy",
        expected="a token, or UNETOPS_REQUIRE_AUTH=1 until there is one", found="no token",
        remedy="run `unetops token create --role admin` first; if there is no proxy, "
        "set UNETOPS_ALLOW_OPEN=1",
    )  # fmt: skip


def _has_token(settings: Settings) -> bool:
    engine = open_engine(settings)
    try:
        return has_any_token(engine)
    finally:
        engine.dispose()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, opened here so that a restarted web process reuses it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        raise Conflict(
            "cannot listen on this address", where=f"{host}:{port}", found=str(error.strerror),
            remedy="stop the program that uses it, or choose another port with --port",
        ) from error  # fmt: skip
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - all addresses, including loopback
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
