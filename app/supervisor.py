"""Supervisor: web, worker and predictor, or parts of them; what dies is started again."""

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

from app.access.tokens import any_token
from app.ground import logs
from app.ground.errors import AppError, Conflict
from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs.process import DRAIN_S, PARENT, SHARE
from app.store.db import migrate, open_engine
from app.web.main import SOCKET
from app.web.main import run as run_web

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
FIRST_DELAY_S = 0.5  # before a dead process is started again; doubled at each death in a row
LONGEST_DELAY_S = 30.0
SETTLED_S = 60.0  # a process that lived this long starts again at once
PATIENCE_S = DRAIN_S + 5.0  # between asking a process to end and killing it
PROXIES_OF_UVICORN = "FORWARDED_ALLOW_IPS"  # set by whoever has a proxy; ours are those of `main`
START_S = 60.0  # for the web process to answer


@dataclass
class Part:
    """A process that is to run always."""

    module: str
    environment: Mapping[str, str] = field(default_factory=dict)
    handles: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    delay_s: float = FIRST_DELAY_S

    def start(self) -> None:
        """Start it; in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module], pass_fds=self.handles, start_new_session=True,
            env={**os.environ, **self.environment, PARENT: str(os.getpid())},
        )  # fmt: skip
        self.started_at = time.monotonic()

    def look(self) -> None:
        """Start it again if it died, later each time that it dies young."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due_at:
                self.start()
        elif self.process.poll() is not None:
            settled = now - self.started_at > SETTLED_S
            self.delay_s = FIRST_DELAY_S if settled else min(2 * self.delay_s, LONGEST_DELAY_S)
            self.due_at = now + (0.0 if settled else self.delay_s)
            log.warning("%s ended with %s; starts again", self.module, self.process.returncode)
            self.process = None


def serve(
    host: str = "127.0.0.1", port: int = 8000, home: Path | None = None, *,
    on_ready: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Run the whole service until SIGINT or SIGTERM.

    Args:
        host: address to listen on; another than this machine's own only where a token exists.
        port: 0 takes any free one.
        home: data folder; that of the environment where absent.
        on_ready: called with the address once it answers.

    Raises:
        AppError: if the address cannot be taken or must not be open: without a token, to others or
            where the environment speaks of a proxy.
        Conflict: if the home is served already.
    """
    settings = _prepared(home)
    _refuse_open(host, settings, is_behind_proxy=PROXIES_OF_UVICORN in os.environ)
    with _served_once(settings), _listen(host, port) as listener:
        handle = listener.fileno()
        environment = {"UNETOPS_HOME": str(settings.home), SOCKET: str(handle)}
        web = Part("app.web.main", environment, (handle,))
        _supervise([web, *_workers(settings, "all")], _address(listener), on_ready)


def web(host: str, port: int, home: Path | None, on_ready: Callable[[str], None]) -> None:
    """Run the web process alone until SIGINT or SIGTERM, say behind a proxy on this machine.

    Raises:
        AppError: if the address cannot be taken or must not be open: without a token, unless the
            settings require one or allow it.
    """
    settings = _prepared(home)
    _refuse_open(host, settings, is_behind_proxy=True)
    logs.configure("web")
    with _listen(host, port) as listener:
        on_ready(_address(listener))
        run_web(settings, listener)


def worker(home: Path | None, share: str = "all") -> None:
    """Run worker and predictor until SIGINT or SIGTERM, which drains: steps save and go on later.

    Args:
        home: data folder; that of the environment where absent.
        share: of the jobs: "all", or "jobs" that need no network and "fetching" that does, each
            a process of its own, so that each may be closed in as far as it can be.

    Raises:
        Conflict: if the home has a worker already.
    """
    settings = _prepared(home)
    with _served_once(settings, "fetch.lock" if share == "fetching" else "serve.lock"):
        _supervise(_workers(settings, share))


def _prepared(home: Path | None) -> Settings:
    settings = Settings.from_environment()
    if home is not None:
        settings = replace(settings, home=home.expanduser().resolve())
    migrate(settings)
    return settings


def _served_once(settings: Settings, lock: str = "serve.lock") -> AbstractContextManager[None]:
    return locked(settings.home / lock, wait_s=0, busy="this home is served already")


def _workers(settings: Settings, share: str) -> list[Part]:
    shared = {"UNETOPS_HOME": str(settings.home), SHARE: share}
    predictor = [] if share == "fetching" else [Part("app.serving.predictor_process", shared)]
    return [Part("app.jobs.worker", shared), *predictor]


def _supervise(
    parts: list[Part], address: str | None = None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Keep the parts running until a signal, then end them; tell once the address answers."""
    end = _end_on_signal()
    try:
        _watch(parts, end, address, on_ready)
    finally:
        _end_all(parts)


def _watch(
    parts: list[Part], end: threading.Event, address: str | None,
    on_ready: Callable[[str], None] | None,
) -> None:  # fmt: skip
    started_at, is_ready = time.monotonic(), address is None
    while not end.is_set():
        for part in parts:
            part.look()
        if address and not is_ready and _answers(address):
            is_ready = True
            log.info("ready on %s", address)
            if on_ready:
                on_ready(address)
        if not is_ready and time.monotonic() - started_at > START_S:
            raise AppError(
                "the web process does not answer", where=str(address),
                remedy="its own messages above say why",
            )  # fmt: skip
        end.wait(LOOK_EVERY_S)


def _end_all(parts: list[Part]) -> None:
    living = [part.process for part in parts if part.process and part.process.poll() is None]
    for process in living:
        process.terminate()
    until = time.monotonic() + PATIENCE_S
    for process in living:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_on_signal() -> threading.Event:
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    return end


def _refuse_open(host: str, settings: Settings, *, is_behind_proxy: bool) -> None:
    """Whoever reaches an open service is admin, so it must be reached from this machine alone."""
    is_hidden = is_behind_proxy and not settings.allow_open
    if (_is_own(host) and not is_hidden) or settings.require_auth or _has_token(settings):
        return
    if not _is_own(host):
        raise AppError(
            "without a token the service is not opened to other machines", where=host,
            expected="127.0.0.1, or a token", found="no token",
            remedy="run `unetops token create --role admin` first",
        )  # fmt: skip
    raise AppError(
        "without a token nothing is opened where a proxy may stand in front",
        expected="a token, or UNETOPS_REQUIRE_AUTH=1 until there is one", found="no token",
        remedy="run `unetops token create --role admin` first; where no proxy is, "
        "UNETOPS_ALLOW_OPEN=1 says so",
    )  # fmt: skip


def _has_token(settings: Settings) -> bool:
    engine = open_engine(settings)
    try:
        return any_token(engine)
    finally:
        engine.dispose()


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """The socket, opened here so that a web process that starts again takes the same one."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        raise Conflict(
            "the address cannot be taken", where=f"{host}:{port}", found=str(error.strerror),
            remedy="end what listens there, or name another with --port",
        ) from error  # fmt: skip
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - every address, so also our own
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
