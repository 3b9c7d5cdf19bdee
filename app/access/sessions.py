"""Signed cookies: the session of a page's user, and the proof that a form is ours."""

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
    """Signs and reads the cookies with one secret."""

    def __init__(self, secret: str) -> None:
        self._sessions = URLSafeTimedSerializer(secret, salt="session")
        self._forms = URLSafeTimedSerializer(secret, salt="form")

    def begin(self, request: Request, response: Response, token_id: str) -> None:
        """Give the browser a session of this token."""
        _set_cookie(request, response, SESSION_COOKIE, self._sessions.dumps(token_id))

    def end(self, response: Response) -> None:
        """Take the session from the browser."""
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")

    def token_id(self, cookie: str) -> str | None:
        """The token that the session belongs to; None if it is forged or too old."""
        try:
            return str(self._sessions.loads(cookie, max_age=SESSION_S))
        except BadSignature:
            return None

    def form_token(self, request: Request) -> tuple[str, str]:
        """The secret of this browser's cookie, and its signed form for the page."""
        nonce = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(16)
        return nonce, self._forms.dumps(nonce)

    def keep_form_token(self, request: Request, response: Response, nonce: str) -> None:
        """Have the browser remember the secret that its forms are compared with."""
        if request.cookies.get(FORM_COOKIE) != nonce:
            _set_cookie(request, response, FORM_COOKIE, nonce)

    def is_our_form(self, request: Request, proof: str) -> bool:
        """True if the proof was made by us for this very browser."""
        nonce = request.cookies.get(FORM_COOKIE, "")
        try:
            signed = str(self._forms.loads(proof, max_age=SESSION_S))
        except BadSignature:
            return False
        return bool(nonce) and secrets.compare_digest(signed, nonce)


def secret_of(settings: Settings) -> str:
    """The secret from the settings, else the one in `home`, made at the first call."""
    if settings.secret:
        return settings.secret
    path = settings.home / "secret"
    if not path.exists():
        _make_secret(path)
    return path.read_text()


def _make_secret(path: Path) -> None:
    """Complete and readable by us alone before it bears its name; the first one stays."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(48))
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name, value, max_age=SESSION_S, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
