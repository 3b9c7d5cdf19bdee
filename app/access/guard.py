"""Authentication: without tokens only this machine is served, afterwards only valid tokens.

The routes themselves declare what each role may do; see `app.access.route_roles`.
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
from app.access.tokens import Role, find_token_by_id, find_token_by_secret, has_any_token
from app.ground.errors import Forbidden, Unauthorized, problem_response

PUBLIC_ROUTES = frozenset({("GET", "/healthz"), ("HEAD", "/healthz"), ("POST", "/login")})
READY_ROUTE = ("GET", "/readyz")  # public on this machine: deployments poll it
PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})  # in addition to X-Forwarded-*
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FIRST_TOKEN = "`unetops token create --role admin` creates the first one"  # noqa: S105
SEND_TOKEN = "send it as `Authorization: Bearer ...`, or log in on the page"  # noqa: S105


LoginPage = Callable[[Request, Sessions, Unauthorized], Response]


class AuthMethod(StrEnum):
    """How a request was authenticated."""

    OPEN = "open"
    BEARER = "bearer"
    SESSION = "session"
    PUBLIC = "free"


@dataclass(frozen=True)
class Caller:
    """Who sends a request, and with which role."""

    role: Role
    auth: AuthMethod
    token_id: str | None = None


class AccessMiddleware:
    """ASGI middleware in front of all routes: admits a request or answers 401 or 403."""

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
            caller = await run_in_threadpool(authenticate, request, service)
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
    """True if a browser requests a page, rather than a program data."""
    is_api = request.url.path.startswith("/api/")
    return (
        not is_api and request.method == "GET" and "text/html" in request.headers.get("accept", "")
    )


def authenticate(request: HTTPConnection, service: Service) -> Caller:
    """Authenticate a request.

    Raises:
        Unauthorized: if a token is required and none, or an unknown one, is sent.
        Forbidden: if the request comes from another site or, without tokens, another machine.
    """
    scope = request.scope
    route = (scope["method"], scope["path"])
    if route in PUBLIC_ROUTES or (route == READY_ROUTE and _is_local(request)):
        return Caller(Role.VIEWER, AuthMethod.PUBLIC)
    if "authorization" in request.headers:
        return _by_bearer(request.headers["authorization"], service)
    caller = _by_session(request, service)
    if caller is None:
        _refuse_unless_open(service)
        _refuse_other_machines(request)
        caller = Caller(Role.ADMIN, AuthMethod.OPEN)
    if scope["method"] not in SAFE_METHODS:
        _refuse_other_sites(request)
    return caller


def _by_bearer(header: str, service: Service) -> Caller:
    scheme, _, secret = header.partition(" ")
    token = (
        find_token_by_secret(service.engine, secret.strip()) if scheme.lower() == "bearer" else None
    )
    if token is None:
        raise Unauthorized("the token is unknown or was revoked", remedy=SEND_TOKEN)
    return Caller(Role(token.role), AuthMethod.BEARER, token.id)


def _by_session(request: HTTPConnection, service: Service) -> Caller | None:
    cookie = request.cookies.get(SESSION_COOKIE)
    token_id = service.sessions.token_id(cookie) if cookie else None
    token = find_token_by_id(service.engine, token_id) if token_id else None
    return Caller(Role(token.role), AuthMethod.SESSION, token.id) if token else None


def _refuse_unless_open(service: Service) -> None:
    if has_any_token(service.engine):
        raise Unauthorized("a token is required", remedy=SEND_TOKEN)
    if service.settings.require_auth:
        raise Unauthorized("a token is required, and none exists yet", remedy=FIRST_TOKEN)


def _refuse_other_machines(request: HTTPConnection) -> None:
    """Without tokens, serve only this machine, and only under one of its names.

    The name check guards against DNS rebinding: a foreign page whose name resolves to 127.0.0.1.
    A proxy on this machine may forward for anyone; nginx by default is only visible by HTTP/1.0.
    """
    header = _proxy_header(request)
    if header or request.scope["http_version"] == "1.0":
        raise Unauthorized(
            "without a token nothing is served through a proxy", remedy=FIRST_TOKEN,
            found=f"{header}, which a proxy adds" if header else "HTTP/1.0, as used by proxies",
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
            "without a token only names of this machine are served", found=f"Host {name!r}",
            expected="localhost or 127.0.0.1", remedy=FIRST_TOKEN,
        )  # fmt: skip


def _refuse_other_sites(request: HTTPConnection) -> None:
    """Refuse requests that a browser sends for another site; programs send neither header."""
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site not in {"same-origin", "none"} or is_foreign:
        raise Forbidden("the request comes from another site", found=origin or site)


def _is_local(request: HTTPConnection) -> bool:
    """True if the request comes from this machine, under its name and not through a proxy."""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    client = request.client.host if request.client else ""
    is_own_name = name == "localhost" or _is_loopback(name)
    return _proxy_header(request) is None and _is_loopback(client) and is_own_name


def _proxy_header(request: HTTPConnection) -> str | None:
    """A header that only proxies add, if any; not all proxies add one."""
    names = (name.lower() for name in request.headers)
    return next((n for n in names if n in PROXY_HEADERS or n.startswith("x-forwarded-")), None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
