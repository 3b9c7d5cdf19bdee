"""Sources by their name: a folder or an archive here, or an address that is fetched first."""

from collections.abc import Mapping
from pathlib import Path

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import address_of, shown
from dataset_rules.sources.limits import Progress


def is_remote(source: str) -> bool:
    """True for an address of any kind."""
    return "://" in source


def local_source(
    source: str,
    downloads: Path,
    *,
    environment: Mapping[str, str],
    on_progress: Progress | None = None,
) -> Path:
    """The folder or archive that a source is; one that lies elsewhere is fetched.

    Args:
        source: a path, an https address of an archive, or s3://bucket/prefix.
        downloads: where what is fetched stays, so that it is fetched once.
        environment: `AWS_*` for buckets.
        on_progress: called with the bytes that are here and all bytes (0: not known).

    Raises:
        RulesError: if it cannot be had.
    """
    if not is_remote(source):
        return Path(source)
    if source.startswith("s3://"):
        from dataset_rules.sources.bucket import fetch_bucket  # obstore is an extra

        return fetch_bucket(source, downloads, environment=environment, on_progress=on_progress)
    if source.startswith("https://"):
        from dataset_rules.sources.download import fetch  # so is httpx

        return fetch(address_of(source), downloads, on_progress=on_progress)
    raise RulesError(
        "this is no source that can be fetched", where=shown(source),
        expected="a folder, an archive, https://HOST/PATH or s3://BUCKET/PREFIX",
    )  # fmt: skip


def location_of(source: str) -> str:
    """What a provenance says of where a source lay: a full path, or an address without secrets."""
    return shown(source) if is_remote(source) else str(Path(source).resolve())
