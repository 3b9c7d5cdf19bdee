"""Signed cookies: browser sessions and CSRF tokens of forms."""

import os
import secrets
from pathlib import Path

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.ground.settings import Settings

SESSION_COOKIE = "unetops_session"
FORM_COOKIE = "unetops_form"
FORM_FIELD = "csrf_token"
FORM_HEADER = "x-csrf-token"
SESSION_S = 12 * 3600


class Sessions:
    """Signs and verifies the cookies."""

    def __init__(self, secret: str) -> None:
        self._sessions = URLSafeTimedSerializer(secret, salt="session")
        self._forms = URLSafeTimedSerializer(secret, salt="form")

    def start(self, request: Request, response: Response, token_id: str) -> None:
        """Start a session for this token."""
        _set_cookie(request, response, SESSION_COOKIE, self._sessions.dumps(token_id))

    def end(self, response: Response) -> None:
        """Delete the session cookie."""
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")

    def token_id(self, cookie: str) -> str | None:
        """Token id of a session; None if the cookie is forged or expired."""
        try:
            return str(self._sessions.loads(cookie, max_age=SESSION_S))
        except BadSignature:
            return None

    def form_token(self, request: Request) -> tuple[str, str]:
        """Nonce of this browser's form cookie, and the CSRF token signed from it."""
        nonce = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(16)
        return nonce, self._forms.dumps(nonce)

    def set_form_cookie(self, request: Request, response: Response, nonce: str) -> None:
        """Set the form cookie unless the browser has it."""
        if request.cookies.get(FORM_COOKIE) != nonce:
            _set_cookie(request, response, FORM_COOKIE, nonce)

    def is_valid_form_token(self, request: Request, token: str) -> bool:
        """True if the CSRF token was issued to this browser."""
        nonce = request.cookies.get(FORM_COOKIE, "")
        try:
            signed = str(self._forms.loads(token, max_age=SESSION_S))
        except BadSignature:
            return False
        return bool(nonce) and secrets.compare_digest(signed, nonce)


def load_secret(settings: Settings) -> str:
    """The secret from the settings, else from the data directory, created at the first call."""
    if settings.secret:
        return settings.secret
    path = settings.home / "secret"
    if not path.exists():
        _write_secret(path)
    return path.read_text()


def _write_secret(path: Path) -> None:
    """Create the file atomically, readable only by its owner; an existing one is kept."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(48))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name, value, max_age=SESSION_S, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
