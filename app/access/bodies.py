"""Bounds on request bodies, checked while a body is read."""

from fastapi import Request

from app.ground.errors import TooLarge

SMALL_BODY_BYTES = 1 << 20


async def small_body(request: Request) -> bytes:
    """The whole body, at most 1 MiB; raises `TooLarge`."""
    bound(stated_bytes(request), SMALL_BODY_BYTES)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        bound(len(body), SMALL_BODY_BYTES)
    return bytes(body)


def stated_bytes(request: Request) -> int:
    """Content-Length of a request; 0 if it does not state one."""
    return int(request.headers.get("content-length") or 0)


def bound(size_bytes: int, most_bytes: int) -> None:
    """Raise `TooLarge` if a body exceeds its bound."""
    if size_bytes > most_bytes:
        raise TooLarge(
            "the body is too large", expected=f"at most {most_bytes} bytes",
            found=f"{size_bytes} bytes or more",
        )  # fmt: skip
