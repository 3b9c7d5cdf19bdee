"""Rendering of HTML pages with Jinja."""

import http
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.templating import Jinja2Templates

from app.access.sessions import FORM_FIELD, Sessions
from app.ground.errors import Unauthorized

HERE = Path(__file__).parent
STYLE = HERE / "static" / "style.css"

# No external content, no framing; 'unsafe-inline' is for the login page's inline style.
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

templates = Jinja2Templates(directory=HERE / "templates")


def render(
    request: Request, sessions: Sessions, name: str, *, status: int = http.HTTPStatus.OK,
    **values: Any,
) -> Response:  # fmt: skip
    """Render a page with a CSRF token for its forms."""
    nonce, proof = sessions.form_token(request)
    caller = getattr(request.state, "caller", None)
    context = {"proof": proof, "proof_field": FORM_FIELD, "caller": caller, **values}
    response = templates.TemplateResponse(request, name, context, status_code=status)
    sessions.set_form_cookie(request, response, nonce)
    response.headers.update(PAGE_HEADERS)
    return response


def login_page(
    request: Request, sessions: Sessions, error: Unauthorized, *, target: str | None = None
) -> Response:
    """The login form, in response to a page that requires a token.

    Its style is inline, since the style sheet requires a token, too.
    """
    response = render(
        request, sessions, "login.html", status=error.status, error=error,
        style=STYLE.read_text(), target=target or request.url.path,
    )  # fmt: skip
    response.headers.update(error.headers)
    return response
