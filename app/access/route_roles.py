"""Routes that state who may use them: the role is checked before anything of the body is read."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from app.access.bodies import small_body
from app.access.guard import SAFE, Caller, Way
from app.access.service import Service
from app.access.sessions import FORM_FIELD, FORM_HEADER
from app.access.tokens import Role
from app.ground.errors import Forbidden

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_NEED = "__unetops_need__"


@dataclass(frozen=True)
class Need:
    """What a route asks of a request before it is handled."""

    role: Role
    takes_file: bool = False  # the route itself reads the body as it streams in, and bounds it


def needs(role: Role, *, takes_file: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare the least role a route is for; routes that only read are for viewers without it."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _NEED, Need(role, takes_file))
        return endpoint

    return declare


class Guarded(APIRoute):
    """A route that checks role and form, in this order, and hands on a body of at most 1 MiB."""

    def get_route_handler(self) -> Handler:
        """The handler, with the checks before it."""
        answer, need = super().get_route_handler(), self._need()

        async def guarded(request: Request) -> Response:
            _refuse_lesser_role(request, need.role)
            if not need.takes_file:
                body = await small_body(request)
                request = Request(request.scope, _replayed(body, request.receive))
            await _refuse_foreign_form(request, need)
            return await answer(request)

        return guarded

    def _need(self) -> Need:
        need: Need | None = getattr(self.endpoint, _NEED, None)
        if need is None and not SAFE.issuperset(self.methods or ()):
            raise ValueError(f"{self.path}: a route that changes something states `needs(role)`")
        return need or Need(Role.VIEWER)


def include(app: FastAPI, router: APIRouter, *, prefix: str = "") -> None:
    """Add the routes of a router, all of which must be guarded."""
    open_routes = [route for route in router.routes if not isinstance(route, Guarded)]
    if open_routes:
        raise ValueError(f"{open_routes}: expected routes of a router with route_class=Guarded")
    app.include_router(router, prefix=prefix)


def _refuse_lesser_role(request: Request, needed: Role) -> None:
    caller: Caller = request.state.caller
    if not caller.role.includes(needed):
        raise Forbidden(
            "this token may not do that", where=f"{request.method} {request.url.path}",
            expected=f"role {needed}", found=f"role {caller.role}",
        )  # fmt: skip


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What `receive` said, to be heard once more by the handler."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse_foreign_form(request: Request, need: Need) -> None:
    """What a browser sends with its cookies, or to log in, must come from a page of ours."""
    caller: Caller = request.state.caller
    if request.method in SAFE or caller.way not in {Way.SESSION, Way.FREE}:
        return
    service: Service = request.app.state.service
    if not service.sessions.is_our_form(request, await _proof(request, need)):
        raise Forbidden(
            "the request does not come from a page of ours",
            expected=f"the page's proof in {FORM_HEADER} or {FORM_FIELD}",
            remedy="load the page again and repeat",
        )


async def _proof(request: Request, need: Need) -> str:
    """The proof from the header, or from the form where it has been read within its bound."""
    if FORM_HEADER in request.headers or need.takes_file:
        return request.headers.get(FORM_HEADER, "")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return str((await request.form()).get(FORM_FIELD, ""))
    return ""
