"""A prefix of an S3 bucket as a folder: fetched by many at once, and again only what changed."""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import (
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.limits import LIMITS, Gate, Limits, Member, Progress, refuse_without_room

AT_ONCE = 16  # small files wait for the network, not for us
READ_TIMEOUT, LONGEST_REQUEST = timedelta(seconds=60), timedelta(days=1)
PATIENCE = timedelta(seconds=30)  # with a server that does not answer or answers with errors
BLOCK = 1 << 20
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@dataclass(frozen=True)
class _Object:
    """An object and where it goes."""

    key: str
    path: Path
    size_bytes: int
    changed_at: datetime
    etag: str | None

    @property
    def is_here(self) -> bool:
        """True if the file has the size and the time of the object."""
        if not self.path.is_file():
            return False
        found = self.path.stat()
        return found.st_size == self.size_bytes and found.st_mtime == self.changed_at.timestamp()


def fetch_bucket(
    url: str,
    folder: Path,
    *,
    environment: Mapping[str, str],
    limits: Limits = LIMITS,
    on_progress: Progress | None = None,
) -> Path:
    """The objects below `s3://bucket/prefix` as a folder in `folder`; a single object as a file.

    Args:
        url: bucket and prefix.
        folder: is made where it is absent; what an earlier call fetched is used.
        environment: `AWS_*`: keys, region, endpoint. Without keys a public bucket can be read.
        limits: beyond them it is refused, before anything is fetched.
        on_progress: called with the bytes that are here and all bytes.

    Raises:
        RulesError: if it cannot be had, or holds names that no folder can have.
    """
    bucket, prefix = _parts_of(url)
    store = _store(bucket, environment)
    name = hashlib.sha256(f"{bucket}/{prefix}".encode()).hexdigest()[:16]
    last = re.sub(r"[^\w.-]", "_", prefix.rpartition("/")[2] or bucket)[-100:].lstrip(".")
    place = folder / f"{name}-{last}"
    with _told(url):
        objects = _objects(store, url, prefix, place, limits)
    folder.mkdir(parents=True, exist_ok=True)
    todo = [found for found in objects if not found.is_here]
    missing = sum(found.size_bytes for found in todo)
    refuse_without_room(folder, missing, url)
    _tidy(place, {found.path for found in objects})
    with _told(url):
        _bring(store, todo, sum(found.size_bytes for found in objects), missing, on_progress)
    return place


def _parts_of(url: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(.*))?", url)
    if match is None:
        raise RulesError(
            "this is no address of a bucket", where=url[:300], expected="s3://BUCKET/PREFIX"
        )
    return match[1], (match[2] or "").strip("/")


def _store(bucket: str, environment: Mapping[str, str]) -> S3Store:
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), None)
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if not any(environment.get(name) for name in CREDENTIALS):
        options["skip_signature"] = True  # else it would ask for keys where no machine answers
    return S3Store(
        bucket,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": PATIENCE, "read_timeout": READ_TIMEOUT, "timeout": LONGEST_REQUEST,
        },
        retry_config={"max_retries": 4, "retry_timeout": PATIENCE},
        **options,
    )  # fmt: skip


def _objects(store: S3Store, url: str, prefix: str, place: Path, limits: Limits) -> list[_Object]:
    """All objects below the prefix, or the one of exactly this key."""
    gate = Gate(url, limits)
    listed: list[Any] = []
    for chunk in store.list(prefix or None):
        listed += chunk
        gate.refuse_more_than(len(listed))
    if not listed and prefix:
        return [_object(store.head(prefix), place)]
    found = []
    keys = {str(meta["path"]) for meta in listed}
    folders = {key[:at] for key in keys for at, sign in enumerate(key) if sign == "/"}
    for meta in listed:
        key = str(meta["path"])
        if (key in folders or key == prefix) and meta["size"] == 0:
            continue  # what consoles leave where somebody made a folder
        path = gate.admit(Member(key.removeprefix(prefix).lstrip("/"), int(meta["size"])))
        found.append(_object(meta, place / path))
    if not found:
        raise RulesError(
            "there is no object below this prefix", where=url, expected="images and their masks",
            remedy="look at the name of the bucket and at the prefix",
        )  # fmt: skip
    return found


def _object(meta: Any, path: Path) -> _Object:
    return _Object(
        str(meta["path"]), path, int(meta["size"]), meta["last_modified"], meta.get("e_tag")
    )


def _tidy(place: Path, wanted: set[Path]) -> None:
    """Remove what is no longer in the bucket, and what stands in the way."""
    if place.is_dir() and place in wanted:
        shutil.rmtree(place)
    elif place.is_file() and place not in wanted:
        place.unlink()
    for path in [path for path in place.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and (path in wanted or not any(path.iterdir())):
            path.rmdir()


def _bring(
    store: S3Store, todo: list[_Object], total: int, missing: int, on_progress: Progress | None
) -> None:
    done, stop = total - missing, threading.Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            running = {pool.submit(_get, store, found, stop): found for found in todo}
            for ended in as_completed(running):
                ended.result()
                done += running[ended].size_bytes
                if on_progress is not None:
                    on_progress(done, total)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _get(store: S3Store, found: _Object, stop: threading.Event) -> None:
    """Write beside, give it the time of the object, rename."""
    found.path.parent.mkdir(parents=True, exist_ok=True)
    beside = found.path.with_name(f".{hashlib.sha256(found.key.encode()).hexdigest()[:16]}.part")
    answer = store.get(found.key, options={"if_match": found.etag} if found.etag else None)
    with beside.open("wb") as out:
        for block in answer.stream(BLOCK):
            if stop.is_set():
                return
            out.write(block)
    if beside.stat().st_size != found.size_bytes:
        beside.unlink()
        raise RulesError(
            "an object came in part only", where=found.key, expected=f"{found.size_bytes} bytes",
            remedy="the same command goes on where it broke off",
        )  # fmt: skip
    at = found.changed_at.timestamp()
    os.utime(beside, (at, at))
    beside.replace(found.path)


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except RulesError:
        raise
    except Exception as error:
        if not isinstance(error, BaseError | FileNotFoundError | PermissionError):
            raise
        raise _error_of(url, error) from error


def _error_of(url: str, error: Exception) -> RulesError:
    """One line of what the client tells in many."""
    said = str(error).splitlines()[0]
    if isinstance(error, NotFoundError | FileNotFoundError) or "404 Not Found" in said:
        return RulesError(
            "there is no such bucket or object", where=url,
            remedy="look at the name; AWS_ENDPOINT_URL says whose bucket it is",
        )  # fmt: skip
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    if is_denied or "403 Forbidden" in said or "401 Unauthorized" in said:
        return RulesError(
            "the bucket may not be read", where=url,
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of one who may, and "
            "AWS_ENDPOINT_URL where it is not of AWS",
        )  # fmt: skip
    return RulesError(
        "the bucket cannot be read", where=url, found=said[:300],
        remedy="look at AWS_ENDPOINT_URL and AWS_REGION; the same command goes on",
    )  # fmt: skip
