"""Size limits of request bodies, checked while a body is read."""

from fastapi import Request

from app.ground.errors import TooLarge

SMALL_BODY_BYTES = 1 << 20


async def read_small_body(request: Request) -> bytes:
    """The whole body, at most 1 MiB; raises `TooLarge`."""
    check_size(content_length(request), SMALL_BODY_BYTES)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        check_size(len(body), SMALL_BODY_BYTES)
    return bytes(body)


def content_length(request: Request) -> int:
    """Content-Length of a request; 0 if absent."""
    return int(request.headers.get("content-length") or 0)


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise `TooLarge` if a body exceeds its limit."""
    if size_bytes > max_bytes:
        raise TooLarge(
            "the body is too large", expected=f"at most {max_bytes} bytes",
            found=f"{size_bytes} bytes or more",
        )  # fmt: skip
