"""Errors with an HTTP status, and their conversion to problem documents (RFC 9457)."""

import http
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from dataset_rules.ground.errors import UserError

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"


class AppError(UserError):
    """Errors caused by users of the service."""

    status = 400
    headers: dict[str, str] = {}  # noqa: RUF012 - read only, a fresh one per class


class Unauthorized(AppError):  # noqa: N818 - named after the HTTP status
    """No token, or one that is unknown or revoked."""

    status = 401
    headers = {"WWW-Authenticate": 'Bearer realm="unetops"'}  # noqa: RUF012


class Forbidden(AppError):  # noqa: N818
    """Authenticated, but not permitted."""

    status = 403


class NotFound(AppError):  # noqa: N818
    """Nothing has this id or name."""

    status = 404


class Conflict(AppError):  # noqa: N818
    """A valid request that conflicts with the current state."""

    status = 409


class TooLarge(AppError):  # noqa: N818
    """More bytes or pixels than the settings accept."""

    status = 413


class Unprocessable(AppError):  # noqa: N818
    """A readable body with invalid content."""

    status = 422


class Unavailable(AppError):  # noqa: N818
    """A process of the service is temporarily unavailable."""

    status = 503
    headers = {"Retry-After": "5"}  # noqa: RUF012


def problem_document(error: UserError) -> dict[str, Any]:
    """The RFC 9457 document of an error: what, where, expected, found, remedy."""
    status = http_status(error)
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": str(error),
        **error_fields(error),
    }


def error_fields(error: UserError) -> dict[str, str]:
    """The fields what, where, expected, found and remedy that an error has."""
    names = ("what", "where", "expected", "found", "remedy")
    texts = {name: getattr(error, name) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def http_status(error: UserError) -> int:
    """HTTP status of an error; 422 for user errors raised outside the app."""
    return error.status if isinstance(error, AppError) else Unprocessable.status


def problem_response(error: UserError) -> Response:
    """The HTTP response for an error."""
    headers = error.headers if isinstance(error, AppError) else {}
    return JSONResponse(
        problem_document(error),
        status_code=http_status(error),
        media_type=PROBLEM_JSON,
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
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
    return problem_response(Unprocessable("invalid request: " + "; ".join(mistakes)))


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
        media_type=PROBLEM_JSON,
        headers=dict(error.headers or {}),
    )


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("request failed: %s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": "internal error while handling this request; the log has the reason",
            "what": "internal error while handling this request",
            "where": f"{request.method} {request.url.path}",
            "remedy": "see the log of the web process",
        },
        status_code=500,
        media_type=PROBLEM_JSON,
    )
