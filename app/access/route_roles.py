"""Routes that declare the required role; it is checked before the body is read."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from app.access.bodies import read_small_body
from app.access.guard import SAFE_METHODS, AuthMethod, Caller
from app.access.service import Service
from app.access.sessions import FORM_FIELD, FORM_HEADER
from app.access.tokens import Role
from app.ground.errors import Forbidden

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ACCESS = "__unetops_access__"


@dataclass(frozen=True)
class RouteAccess:
    """What a route requires of a request before it is handled."""

    role: Role
    takes_file: bool = False  # the route itself streams the body and limits its size


def requires_role(role: Role, *, takes_file: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare the minimum role of a route; read-only routes default to viewers."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ACCESS, RouteAccess(role, takes_file))
        return endpoint

    return declare


class GuardedRoute(APIRoute):
    """A route that checks the role, limits the body to 1 MiB and checks the form's CSRF token."""

    def get_route_handler(self) -> Handler:
        """The handler, preceded by the checks."""
        handle, access = super().get_route_handler(), self._access()

        async def guarded(request: Request) -> Response:
            _check_role(request, access.role)
            if not access.takes_file:
                body = await read_small_body(request)
                request = Request(request.scope, _replayed(body, request.receive))
            await _check_form(request, access)
            return await handle(request)

        return guarded

    def _access(self) -> RouteAccess:
        access: RouteAccess | None = getattr(self.endpoint, _ACCESS, None)
        if access is None and not SAFE_METHODS.issuperset(self.methods or ()):
            raise ValueError(f"{self.path}: declare `requires_role(role)` on routes that write")
        return access or RouteAccess(Role.VIEWER)


def include_router(app: FastAPI, router: APIRouter, *, prefix: str = "") -> None:
    """Add the routes of a router, all of which must be guarded."""
    open_routes = [route for route in router.routes if not isinstance(route, GuardedRoute)]
    if open_routes:
        raise ValueError(f"{open_routes}: expected a router with route_class=GuardedRoute")
    app.include_router(router, prefix=prefix)


def _check_role(request: Request, required: Role) -> None:
    caller: Caller = request.state.caller
    if not caller.role.includes(required):
        raise Forbidden(
            "this token's role does not permit this", where=f"{request.method} {request.url.path}",
            expected=f"role {required}", found=f"role {caller.role}",
        )  # fmt: skip


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that yields the body again for the handler."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _check_form(request: Request, access: RouteAccess) -> None:
    """Require a CSRF token for requests with a session cookie and for the login form."""
    caller: Caller = request.state.caller
    if request.method in SAFE_METHODS or caller.auth not in {AuthMethod.SESSION, AuthMethod.PUBLIC}:
        return
    service: Service = request.app.state.service
    if not service.sessions.is_valid_form_token(request, await _csrf_token(request, access)):
        raise Forbidden(
            "the request does not come from one of this service's pages",
            expected=f"the page's CSRF token in {FORM_HEADER} or {FORM_FIELD}",
            remedy="reload the page and try again",
        )


async def _csrf_token(request: Request, access: RouteAccess) -> str:
    """The CSRF token from the header, or from a form whose size was checked."""
    if FORM_HEADER in request.headers or access.takes_file:
        return request.headers.get(FORM_HEADER, "")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return str((await request.form()).get(FORM_FIELD, ""))
    return ""
