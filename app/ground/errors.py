"""Errors that know their HTTP status, and the one place that makes them answers."""

import http
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from dataset_rules.ground.errors import UserError

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"


class AppError(UserError):
    """What a user of the service can cause."""

    status = 400
    headers: dict[str, str] = {}  # noqa: RUF012 - read only, a fresh one per class


class Unauthorized(AppError):  # noqa: N818 - named after the answer that it becomes
    """No token, or one that is not known (any more)."""

    status = 401
    headers = {"WWW-Authenticate": 'Bearer realm="unetops"'}  # noqa: RUF012


class Forbidden(AppError):  # noqa: N818
    """Known, but not allowed."""

    status = 403


class NotFound(AppError):  # noqa: N818
    """Nothing with this id or name."""

    status = 404


class Conflict(AppError):  # noqa: N818
    """Right in itself, but not in the present state."""

    status = 409


class TooLarge(AppError):  # noqa: N818
    """More bytes or pixels than the settings accept."""

    status = 413


class Unprocessable(AppError):  # noqa: N818
    """A body that was read but says something that cannot be."""

    status = 422


class Unavailable(AppError):  # noqa: N818
    """A part of the service that is not there at the moment."""

    status = 503
    headers = {"Retry-After": "5"}  # noqa: RUF012


def problem(error: UserError) -> dict[str, Any]:
    """The RFC 9457 document of an error: what, where, expected, found, remedy."""
    status = status_of(error)
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": str(error),
        **parts_of(error),
    }


def parts_of(error: UserError) -> dict[str, str]:
    """What an error says of what, where, expected, found and remedy."""
    names = ("what", "where", "expected", "found", "remedy")
    texts = {name: getattr(error, name) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def status_of(error: UserError) -> int:
    """HTTP status: of our own errors theirs; what a step refuses is 422."""
    return error.status if isinstance(error, AppError) else Unprocessable.status


def problem_response(error: UserError) -> Response:
    """The answer that an error becomes."""
    headers = error.headers if isinstance(error, AppError) else {}
    return JSONResponse(
        problem(error), status_code=status_of(error), media_type=PROBLEM, headers=headers
    )


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(UserError, _on_user_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_crash)


async def _on_user_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return problem_response(error)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [_mistake(item) for item in error.errors()]
    return problem_response(Unprocessable("the request is wrong in " + "; ".join(mistakes)))


def _mistake(item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "the body"
    found = "" if item["type"] == "missing" else f", found {item.get('input')!r}"
    return f"{place}: {item['msg']}{found}"[:300]


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = http.HTTPStatus(error.status_code).phrase
    return JSONResponse(
        {
            "type": "about:blank",
            "title": phrase,
            "status": error.status_code,
            "detail": str(error.detail or phrase),
            "what": str(error.detail or phrase),
            "where": f"{request.method} {request.url.path}",
        },
        status_code=error.status_code,
        media_type=PROBLEM,
        headers=dict(error.headers or {}),
    )


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("request failed: %s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": "the service failed at this request; its log says why",
            "what": "the service failed at this request",
            "where": f"{request.method} {request.url.path}",
            "remedy": "look into the log of the web process",
        },
        status_code=500,
        media_type=PROBLEM,
    )
