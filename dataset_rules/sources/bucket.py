"""Fetching a prefix of an S3 bucket as a folder: in parallel, and only changed objects."""

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
from dataset_rules.sources.limits import (
    LIMITS,
    Limits,
    Member,
    MemberValidator,
    Progress,
    require_free_space,
)

PARALLEL_REQUESTS = 16  # small files are limited by network latency
READ_TIMEOUT, REQUEST_TIMEOUT = timedelta(seconds=60), timedelta(days=1)
CONNECT_TIMEOUT = timedelta(seconds=30)  # also the total time of retries
BLOCK = 1 << 20
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@dataclass(frozen=True)
class _Object:
    """An object and its local path."""

    key: str
    path: Path
    size_bytes: int
    changed_at: datetime
    etag: str | None

    @property
    def is_current(self) -> bool:
        """True if the local file has the size and time of the object."""
        if not self.path.is_file():
            return False
        status = self.path.stat()
        return status.st_size == self.size_bytes and status.st_mtime == self.changed_at.timestamp()


def fetch_bucket(
    url: str,
    folder: Path,
    *,
    environment: Mapping[str, str],
    limits: Limits = LIMITS,
    on_progress: Progress | None = None,
) -> Path:
    """Fetch the objects below `s3://bucket/prefix` as a folder, or a single object as a file.

    Args:
        url: bucket and prefix.
        folder: parent of the result, created if absent; reuses an earlier download.
        environment: `AWS_*` variables: keys, region, endpoint. Public buckets need no keys.
        limits: checked before anything is fetched.
        on_progress: called with the bytes received and the total bytes.

    Raises:
        RulesError: if the bucket cannot be read or contains unsupported names.
    """
    bucket, prefix = _parts_of(url)
    store = _store(bucket, environment)
    name = hashlib.sha256(f"{bucket}/{prefix}".encode()).hexdigest()[:16]
    last = re.sub(r"[^\w.-]", "_", prefix.rpartition("/")[2] or bucket)[-100:].lstrip(".")
    target = folder / f"{name}-{last}"
    with _as_rules_error(url):
        objects = _list_objects(store, url, prefix, target, limits)
    folder.mkdir(parents=True, exist_ok=True)
    outdated = [item for item in objects if not item.is_current]
    missing = sum(item.size_bytes for item in outdated)
    require_free_space(folder, missing, url)
    _remove_obsolete(target, {item.path for item in objects})
    with _as_rules_error(url):
        _download(store, outdated, sum(item.size_bytes for item in objects), missing, on_progress)
    return target


def _parts_of(url: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(.*))?", url)
    if match is None:
        raise RulesError(
            "not the address of a bucket", where=url[:300], expected="s3://BUCKET/PREFIX"
        )
    return match[1], (match[2] or "").strip("/")


def _store(bucket: str, environment: Mapping[str, str]) -> S3Store:
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), None)
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if not any(environment.get(name) for name in CREDENTIALS):
        options["skip_signature"] = True  # otherwise it would query a metadata service for keys
    return S3Store(
        bucket,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT,
            "timeout": REQUEST_TIMEOUT,
        },
        retry_config={"max_retries": 4, "retry_timeout": CONNECT_TIMEOUT},
        **options,
    )  # fmt: skip


def _list_objects(
    store: S3Store, url: str, prefix: str, target: Path, limits: Limits
) -> list[_Object]:
    """All objects below the prefix, or the one with exactly this key."""
    validator = MemberValidator(url, limits)
    listed: list[Any] = []
    for chunk in store.list(prefix or None):
        listed += chunk
        validator.check_count(len(listed))
    if not listed and prefix:
        return [_object(store.head(prefix), target)]
    found = []
    keys = {str(meta["path"]) for meta in listed}
    folders = {key[:at] for key in keys for at, character in enumerate(key) if character == "/"}
    for meta in listed:
        key = str(meta["path"])
        if (key in folders or key == prefix) and meta["size"] == 0:
            continue  # folder placeholder created by an S3 console
        path = validator.validate(Member(key.removeprefix(prefix).lstrip("/"), int(meta["size"])))
        found.append(_object(meta, target / path))
    if not found:
        raise RulesError(
            "there is no object below this prefix", where=url, expected="images and their masks",
            remedy="check the bucket name and the prefix",
        )  # fmt: skip
    return found


def _object(meta: Any, path: Path) -> _Object:
    return _Object(
        str(meta["path"]), path, int(meta["size"]), meta["last_modified"], meta.get("e_tag")
    )


def _remove_obsolete(target: Path, wanted: set[Path]) -> None:
    """Remove files no longer in the bucket, and files or folders in place of the other."""
    if target.is_dir() and target in wanted:
        shutil.rmtree(target)
    elif target.is_file() and target not in wanted:
        target.unlink()
    for path in [path for path in target.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and (path in wanted or not any(path.iterdir())):
            path.rmdir()


def _download(
    store: S3Store, outdated: list[_Object], total: int, missing: int, on_progress: Progress | None
) -> None:
    done, stop = total - missing, threading.Event()
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        try:
            running = {pool.submit(_get, store, item, stop): item for item in outdated}
            for ended in as_completed(running):
                ended.result()
                done += running[ended].size_bytes
                if on_progress is not None:
                    on_progress(done, total)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _get(store: S3Store, item: _Object, stop: threading.Event) -> None:
    """Write to a temporary file, set the object's modification time, rename."""
    item.path.parent.mkdir(parents=True, exist_ok=True)
    part = item.path.with_name(f".{hashlib.sha256(item.key.encode()).hexdigest()[:16]}.part")
    response = store.get(item.key, options={"if_match": item.etag} if item.etag else None)
    with part.open("wb") as out:
        for block in response.stream(BLOCK):
            if stop.is_set():
                return
            out.write(block)
    if part.stat().st_size != item.size_bytes:
        part.unlink()
        raise RulesError(
            "an object is incomplete", where=item.key, expected=f"{item.size_bytes} bytes",
            remedy="run the same command again to resume",
        )  # fmt: skip
    at = item.changed_at.timestamp()
    os.utime(part, (at, at))
    part.replace(item.path)


@contextmanager
def _as_rules_error(url: str) -> Iterator[None]:
    try:
        yield
    except RulesError:
        raise
    except Exception as error:
        if not isinstance(error, BaseError | FileNotFoundError | PermissionError):
            raise
        raise _error_of(url, error) from error


def _error_of(url: str, error: Exception) -> RulesError:
    """A one-line error for the client's multi-line exception."""
    message = str(error).splitlines()[0]
    if isinstance(error, NotFoundError | FileNotFoundError) or "404 Not Found" in message:
        return RulesError(
            "there is no such bucket or object", where=url,
            remedy="check the name, and AWS_ENDPOINT_URL if the bucket is not on AWS",
        )  # fmt: skip
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    if is_denied or "403 Forbidden" in message or "401 Unauthorized" in message:
        return RulesError(
            "access to the bucket is denied", where=url,
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with read access, and "
            "AWS_ENDPOINT_URL if the bucket is not on AWS",
        )  # fmt: skip
    return RulesError(
        "the bucket cannot be read", where=url, found=message[:300],
        remedy="check AWS_ENDPOINT_URL and AWS_REGION; run the same command again to resume",
    )  # fmt: skip
