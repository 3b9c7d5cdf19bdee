"""Who is let in: on this machine alone until a token exists, then by token.

What each role may do stands at the routes themselves; see `app.access.route_roles`.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.service import Service
from app.access.sessions import SESSION_COOKIE, Sessions
from app.access.tokens import Role, any_token, token_of_id, token_of_secret
from app.ground.errors import Forbidden, Unauthorized, problem_response

FREE = frozenset({("GET", "/healthz"), ("HEAD", "/healthz"), ("POST", "/login")})
READY = ("GET", "/readyz")  # free for this machine: what starts a release asks it
PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})  # beside X-Forwarded-*
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FIRST_TOKEN = "`unetops token create --role admin` makes the first one"  # noqa: S105
SEND_TOKEN = "send it as `Authorization: Bearer ...`, or log in on the page"  # noqa: S105


LoginPage = Callable[[Request, Sessions, Unauthorized], Response]


class Way(StrEnum):
    """How a caller was let in."""

    OPEN = "open"
    BEARER = "bearer"
    SESSION = "session"
    FREE = "free"


@dataclass(frozen=True)
class Caller:
    """Who asks, and what for a role."""

    role: Role
    way: Way
    token_id: str | None = None


class Access:
    """ASGI middleware in front of everything: lets a request in or answers 401 or 403."""

    def __init__(self, app: ASGIApp, login_page: LoginPage) -> None:
        self.app = app
        self.login_page = login_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        service: Service = scope["app"].state.service
        try:
            caller = await run_in_threadpool(admit, request, service)
        except Unauthorized as error:
            page = wants_page(request)
            refusal = self.login_page(request, service.sessions, error) if page else None
            await (refusal or problem_response(error))(scope, receive, send)
        except Forbidden as error:
            await problem_response(error)(scope, receive, send)
        else:
            scope.setdefault("state", {})["caller"] = caller
            await self.app(scope, receive, send)


def wants_page(request: Request) -> bool:
    """True if a person's browser asks for a page, not a program for data."""
    is_api = request.url.path.startswith("/api/")
    return (
        not is_api and request.method == "GET" and "text/html" in request.headers.get("accept", "")
    )


def admit(request: HTTPConnection, service: Service) -> Caller:
    """The caller of a request.

    Raises:
        Unauthorized: if a token is asked for and none, or an unknown one, is given.
        Forbidden: if the request comes from another site or, in the open mode, another machine.
    """
    scope = request.scope
    way = (scope["method"], scope["path"])
    if way in FREE or (way == READY and _is_from_here(request)):
        return Caller(Role.VIEWER, Way.FREE)
    if "authorization" in request.headers:
        return _by_bearer(request.headers["authorization"], service)
    caller = _by_session(request, service)
    if caller is None:
        _refuse_unless_open(service)
        _refuse_other_machines(request)
        caller = Caller(Role.ADMIN, Way.OPEN)
    if scope["method"] not in SAFE:
        _refuse_other_sites(request)
    return caller


def _by_bearer(header: str, service: Service) -> Caller:
    scheme, _, secret = header.partition(" ")
    token = token_of_secret(service.engine, secret.strip()) if scheme.lower() == "bearer" else None
    if token is None:
        raise Unauthorized("the token is not known, or was revoked", remedy=SEND_TOKEN)
    return Caller(Role(token.role), Way.BEARER, token.id)


def _by_session(request: HTTPConnection, service: Service) -> Caller | None:
    cookie = request.cookies.get(SESSION_COOKIE)
    token_id = service.sessions.token_id(cookie) if cookie else None
    token = token_of_id(service.engine, token_id) if token_id else None
    return Caller(Role(token.role), Way.SESSION, token.id) if token else None


def _refuse_unless_open(service: Service) -> None:
    if any_token(service.engine):
        raise Unauthorized("a token is needed", remedy=SEND_TOKEN)
    if service.settings.require_auth:
        raise Unauthorized("a token is needed, and none exists yet", remedy=FIRST_TOKEN)


def _refuse_other_machines(request: HTTPConnection) -> None:
    """Without tokens only this machine is served, and only under a name of this machine.

    The name guards against DNS rebinding: a foreign page whose name was turned to 127.0.0.1. A
    proxy on this machine may speak for anyone; nginx by default shows itself by HTTP/1.0 alone.
    """
    sign = _sign_of_proxy(request)
    if sign or request.scope["http_version"] == "1.0":
        raise Unauthorized(
            "without a token nothing is served through a proxy", remedy=FIRST_TOKEN,
            found=f"{sign}, which a proxy adds" if sign else "HTTP/1.0, which proxies speak",
        )  # fmt: skip
    client = request.client.host if request.client else ""
    if not _is_loopback(client):
        raise Unauthorized(
            "without a token only this machine is served", found=f"a request from {client}",
            remedy=FIRST_TOKEN,
        )  # fmt: skip
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if name != "localhost" and not _is_loopback(name):
        raise Forbidden(
            "without a token only a name of this machine is served", found=f"Host {name!r}",
            expected="localhost or 127.0.0.1", remedy=FIRST_TOKEN,
        )  # fmt: skip


def _refuse_other_sites(request: HTTPConnection) -> None:
    """What a browser does on behalf of another site is refused; programs send neither header."""
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site not in {"same-origin", "none"} or is_foreign:
        raise Forbidden("the request comes from another site", found=origin or site)


def _is_from_here(request: HTTPConnection) -> bool:
    """True if neither a proxy nor another machine asks, under a name of this machine."""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    client = request.client.host if request.client else ""
    is_own_name = name == "localhost" or _is_loopback(name)
    return _sign_of_proxy(request) is None and _is_loopback(client) and is_own_name


def _sign_of_proxy(request: HTTPConnection) -> str | None:
    """A header that only proxies add; one that adds none is not seen."""
    names = (name.lower() for name in request.headers)
    return next((n for n in names if n in PROXY_HEADERS or n.startswith("x-forwarded-")), None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
