"""Locations of sources: a local folder or archive, or an address to fetch."""

from collections.abc import Mapping
from pathlib import Path

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import address_of, redact
from dataset_rules.sources.limits import Progress


def is_remote(source: str) -> bool:
    """True for addresses of any kind."""
    return "://" in source


def local_source(
    source: str,
    downloads: Path,
    *,
    environment: Mapping[str, str],
    on_progress: Progress | None = None,
) -> Path:
    """Local folder or archive of a source; remote sources are fetched.

    Args:
        source: a path, an https address of an archive, or s3://bucket/prefix.
        downloads: folder that keeps fetched files, so that each is fetched once.
        environment: `AWS_*` variables for buckets.
        on_progress: called with the bytes received and the total bytes (0: unknown).

    Raises:
        RulesError: if the source cannot be fetched.
    """
    if not is_remote(source):
        return Path(source)
    if source.startswith("s3://"):
        from dataset_rules.sources.bucket import fetch_bucket  # needs the optional obstore

        return fetch_bucket(source, downloads, environment=environment, on_progress=on_progress)
    if source.startswith("https://"):
        from dataset_rules.sources.download import fetch  # needs the optional httpx

        return fetch(address_of(source), downloads, on_progress=on_progress)
    raise RulesError(
        "this source cannot be fetched", where=redact(source),
        expected="a folder, an archive, https://HOST/PATH or s3://BUCKET/PREFIX",
    )  # fmt: skip


def location_of(source: str) -> str:
    """Location of a source for its provenance: a full path, or an address without secrets."""
    return redact(source) if is_remote(source) else str(Path(source).resolve())
