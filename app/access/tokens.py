"""Access tokens: create, list, revoke, verify. Only their hash is stored."""

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Engine, select

from app.ground.errors import AppError, NotFound
from app.store import tables
from app.store.db import transaction
from app.store.tables import Token

MAX_LABEL_BYTES = 200
PREFIX = "unetops_"  # lets secret scanners find leaked tokens


class Role(StrEnum):
    """What a token may do; each includes the one before it."""

    VIEWER = "viewer"  # read everything
    ANNOTATOR = "annotator"  # also rules, sources, datasets and predictions
    ADMIN = "admin"  # also runs, promotion and the rest

    def includes(self, other: "Role") -> bool:
        """True if this role may do what the other may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class NewToken:
    """A token just created; its secret is not known later."""

    id: str
    secret: str
    role: Role


def create_token(engine: Engine, role: Role, label: str = "") -> NewToken:
    """Create a token; its secret cannot be shown again. Raises `AppError` if the label is long."""
    size_bytes = len(label.encode(errors="surrogateescape"))  # as passed by the command line
    if size_bytes > MAX_LABEL_BYTES:
        raise AppError(
            "the label is too long", where=f"{label[:40]}...",
            expected=f"at most {MAX_LABEL_BYTES} bytes in UTF-8", found=f"{size_bytes} bytes",
        )  # fmt: skip
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = _hash(secret)
    row = Token(id=digest[:12], hash=digest, role=role.value, label=label)
    with transaction(engine) as session:
        session.add(row)
    return NewToken(id=row.id, secret=secret, role=role)


def list_tokens(engine: Engine) -> list[Token]:
    """All tokens, oldest first, including revoked ones."""
    with transaction(engine) as session:
        return list(session.scalars(select(Token).order_by(Token.created_at)))


def revoke_token(engine: Engine, token_id: str) -> Token:
    """Revoke a token and its sessions; raises `NotFound`."""
    with transaction(engine) as session:
        row = session.get(Token, token_id)
        if row is None:
            raise NotFound("no such token", where=token_id, remedy="see `unetops token list`")
        row.revoked_at = row.revoked_at or tables.now()
        return row


def has_any_token(engine: Engine) -> bool:
    """True if a token was ever created: revoking the last one does not reopen the service."""
    with transaction(engine) as session:
        return session.scalars(select(Token.id).limit(1)).first() is not None


def find_token_by_secret(engine: Engine, secret: str) -> Token | None:
    """The token with this secret, if it is valid."""
    with transaction(engine) as session:
        row = session.scalars(select(Token).where(Token.hash == _hash(secret))).first()
    return row if row is not None and row.revoked_at is None else None


def find_token_by_id(engine: Engine, token_id: str) -> Token | None:
    """The token with this id, if it is valid."""
    with transaction(engine) as session:
        row = session.get(Token, token_id)
    return row if row is not None and row.revoked_at is None else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
