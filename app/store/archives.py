"""Uploaded archives -> sources in the store, and finished folders -> zip on the way out."""

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from sqlalchemy import Engine

from app.ground.errors import Unprocessable
from app.ground.settings import Settings
from app.store import artifacts
from app.store.db import transaction
from app.store.tables import Artifact
from app.store.upload import Upload
from dataset_rules.exchange.layout import ExportFile
from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.archive import unpack

CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 200  # the disk takes 255; predictions put `_instances.png` and more behind it
TEXTS = (".json", ".txt", ".yaml")


def keep_archive(settings: Settings, engine: Engine, upload: Upload) -> Artifact:
    """Unpack an uploaded archive into the store.

    Raises:
        RulesError: if it is no archive, unsafe or too large.
        Unprocessable: if there is no file in it, or its name is too long.
    """
    name = file_name(upload.name)
    suffix = ".zip" if zipfile.is_zipfile(upload.path) else ".tar"  # by content, not by name
    archive = upload.path.with_name(f"{upload.path.name}{suffix}")
    folder = artifacts.new_upload(settings)
    upload.path.rename(archive)
    try:
        _unpack(archive, folder, name)
        if not any(path.is_file() for path in folder.rglob("*")):
            raise Unprocessable("there is no file in the archive", where=name)
        with transaction(engine) as session:
            facts = {"archive_bytes": upload.size_bytes}
            return artifacts.keep_source(settings, session, folder, label=name, facts=facts)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, folder: Path, name: str) -> None:
    try:
        unpack(archive, folder)
    except RulesError as error:
        raise renamed(error, archive, name) from error


def renamed(error: RulesError, path: Path, name: str) -> RulesError:
    """The error with the client's name of the file instead of our path."""

    def said(text: str | None) -> str | None:
        return text.replace(str(path), name).replace(path.name, name) if text else text

    parts = {part: said(getattr(error, part)) for part in ("expected", "found", "remedy")}
    return RulesError(said(error.what) or "", where=said(error.where) or name, **parts)


def file_name(name: str) -> str:
    """A client's file name without its folders and without what a file system may not like.

    Raises:
        Unprocessable: if it is longer than 200 bytes, of which some characters take up to four.
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    kept = "".join(c if c.isalnum() or c in "._- ()" else "_" for c in last).strip(" .")
    size_bytes = len(kept.encode())
    if size_bytes > MAX_NAME_BYTES:
        raise Unprocessable(
            "the name of the file is too long", where=f"{kept[:40]}...",
            expected=f"at most {MAX_NAME_BYTES} bytes in UTF-8", found=f"{size_bytes} bytes",
            remedy="rename the file",
        )  # fmt: skip
    return kept or "upload"


def zipped(folder: Path) -> Iterator[bytes]:
    """A zip of the folder, made while it is sent."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return zipped_files(ExportFile(path.relative_to(folder).as_posix(), path) for path in paths)


def zipped_files(files: Iterable[ExportFile]) -> Iterator[bytes]:
    """A zip of files, made while it is sent; images are compressed already, so stored."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for item in files:
            entry = zipfile.ZipInfo(item.path)
            if item.path.endswith(TEXTS):
                entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as out, _opened(item.content) as file:
                while chunk := file.read(CHUNK_BYTES):
                    out.write(chunk)
                    yield sink.taken()
    yield sink.taken()


def _opened(content: bytes | Path) -> IO[bytes]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


class _Sink:
    """What zipfile writes to: a stream that cannot seek."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Keep it until it is taken."""
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def taken(self) -> bytes:
        """What waits; then nothing waits any more."""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data
