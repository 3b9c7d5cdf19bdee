"""Uploaded archives -> stored sources; finished folders -> zip streams."""

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
MAX_NAME_BYTES = 200  # file systems allow 255; predictions append `_instances.png` and more
TEXT_SUFFIXES = (".json", ".txt", ".yaml")


def store_archive(settings: Settings, engine: Engine, upload: Upload) -> Artifact:
    """Unpack an uploaded archive into the store.

    Raises:
        RulesError: if it is not an archive, unsafe or too large.
        Unprocessable: if it contains no file, or its name is too long.
    """
    name = file_name(upload.name)
    suffix = ".zip" if zipfile.is_zipfile(upload.path) else ".tar"  # by content, not by name
    archive = upload.path.with_name(f"{upload.path.name}{suffix}")
    folder = artifacts.new_upload_path(settings)
    upload.path.rename(archive)
    try:
        _unpack(archive, folder, name)
        if not any(path.is_file() for path in folder.rglob("*")):
            raise Unprocessable("the archive contains no file", where=name)
        with transaction(engine) as session:
            facts = {"archive_bytes": upload.size_bytes}
            return artifacts.store_source(settings, session, folder, label=name, facts=facts)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, folder: Path, name: str) -> None:
    try:
        unpack(archive, folder)
    except RulesError as error:
        raise with_client_name(error, archive, name) from error


def with_client_name(error: RulesError, path: Path, name: str) -> RulesError:
    """The error with the client's file name instead of the server's path."""

    def rename(text: str | None) -> str | None:
        return text.replace(str(path), name).replace(path.name, name) if text else text

    fields = {field: rename(getattr(error, field)) for field in ("expected", "found", "remedy")}
    return RulesError(rename(error.what) or "", where=rename(error.where) or name, **fields)


def file_name(name: str) -> str:
    """A client's file name without folders and special characters.

    Raises:
        Unprocessable: if it is longer than 200 bytes in UTF-8.
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    kept = "".join(c if c.isalnum() or c in "._- ()" else "_" for c in last).strip(" .")
    size_bytes = len(kept.encode())
    if size_bytes > MAX_NAME_BYTES:
        raise Unprocessable(
            "the file name is too long", where=f"{kept[:40]}...",
            expected=f"at most {MAX_NAME_BYTES} bytes in UTF-8", found=f"{size_bytes} bytes",
            remedy="rename the file",
        )  # fmt: skip
    return kept or "upload"


def zip_folder(folder: Path) -> Iterator[bytes]:
    """A zip of the folder, created while it is sent."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return zip_files(ExportFile(path.relative_to(folder).as_posix(), path) for path in paths)


def zip_files(files: Iterable[ExportFile]) -> Iterator[bytes]:
    """A zip of files, created while it is sent; images are stored without compression."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for item in files:
            entry = zipfile.ZipInfo(item.path)
            if item.path.endswith(TEXT_SUFFIXES):
                entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as out, _open(item.content) as file:
                while chunk := file.read(CHUNK_BYTES):
                    out.write(chunk)
                    yield sink.take()
    yield sink.take()


def _open(content: bytes | Path) -> IO[bytes]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


class _Sink:
    """Unseekable output buffer for zipfile."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Append to the buffer."""
        self._buffer += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def take(self) -> bytes:
        """Return and clear the buffer."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
