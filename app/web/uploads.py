"""Streamed request bodies: limited in size, written to disk, removed after the request."""

from collections.abc import AsyncIterator, Callable
from typing import IO, Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.access.bodies import check_size, content_length, read_small_body
from app.access.service import ServiceDep
from app.ground.errors import AppError, TooLarge, Unprocessable
from app.store.artifacts import new_upload_path
from app.store.upload import Upload
from app.web.schemas import SourceRequest

FIELD_BYTES = 1 << 16  # total size of all fields except the file, including their names
MAX_PARTS = 16  # per form; no route needs more than two
SLACK_BYTES = 1 << 20  # for other fields and part headers


async def source_body(
    request: Request, service: ServiceDep
) -> AsyncIterator[Upload | SourceRequest]:
    """The archive in the field `file`, or the URL in a JSON body."""
    if parse_options_header(request.headers.get("content-type"))[0] == b"application/json":
        yield _parsed(await read_small_body(request))
        return
    upload = Upload(new_upload_path(service.settings))
    try:
        await _receive(request, "file", upload, max_bytes=service.settings.max_upload_bytes)
        yield upload
    finally:
        upload.path.unlink(missing_ok=True)


async def image_upload(request: Request, service: ServiceDep) -> AsyncIterator[Upload]:
    """The image in the field `image`."""
    upload = Upload(new_upload_path(service.settings))
    try:
        await _receive(request, "image", upload, max_bytes=service.settings.max_image_bytes)
        yield upload
    finally:
        upload.path.unlink(missing_ok=True)


SmallBody = Annotated[bytes, Depends(read_small_body)]
SourceBody = Annotated[Upload | SourceRequest, Depends(source_body)]
ImageUpload = Annotated[Upload, Depends(image_upload)]


def _parsed(body: bytes) -> SourceRequest:
    try:
        return SourceRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def multipart_body(file_field: str, **text_fields: str) -> dict[str, object]:
    """The OpenAPI description of a multipart body with one file."""
    properties: dict[str, object] = {file_field: {"type": "string", "format": "binary"}}
    properties |= {
        name: {"type": "string", "description": text} for name, text in text_fields.items()
    }
    schema = {"type": "object", "properties": properties, "required": [file_field]}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def source_bodies() -> dict[str, Any]:
    """The OpenAPI description of both ways to add a source."""
    described: dict[str, Any] = multipart_body("file")
    described["requestBody"]["content"]["application/json"] = {
        "schema": SourceRequest.model_json_schema()
    }
    return described


async def _receive(request: Request, file_field: str, upload: Upload, *, max_bytes: int) -> None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise AppError(
            "the body is not a form with a file", expected="multipart/form-data",
            found=kind.decode("latin-1") or "no content type",
            remedy=f"curl -F {file_field}=@NAME sends one",
        )  # fmt: skip
    check_size(content_length(request), max_bytes + SLACK_BYTES)
    received = 0
    with upload.path.open("xb") as file:
        form = _Form(file_field, upload, file)
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
            async for chunk in request.stream():
                received += len(chunk)
                check_size(received, max_bytes + SLACK_BYTES)
                parser.write(chunk)
            parser.finalize()
        except FormParserError as error:
            raise AppError("the form cannot be read", found=str(error)) from error
    if not form.is_found:
        raise Unprocessable(
            "the form has no file", expected=f"a file in the field '{file_field}'",
            found=", ".join(sorted(upload.fields)) or "no fields",
        )  # fmt: skip
    if not upload.size_bytes:
        raise Unprocessable("the file is empty", where=upload.name)
    check_size(upload.size_bytes, max_bytes)


class _Form:
    """Callbacks of the multipart parser: writes the file to disk, collects fields in a dict."""

    def __init__(self, file_field: str, upload: Upload, file: IO[bytes]) -> None:
        self.file_field = file_field
        self.upload = upload
        self.file = file
        self.is_found = False
        self._header, self._value = bytearray(), bytearray()
        self._name, self._is_file, self._text = "", False, bytearray()
        self._parts, self._field_bytes = 0, 0

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """The callbacks by the parser's names."""
        names = (
            "part_begin", "part_data", "part_end", "header_field", "header_value", "header_end",
        )  # fmt: skip
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        """Start of a field."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge("the form has too many fields", expected=f"at most {MAX_PARTS}")
        self._name, self._is_file, self._text = "", False, bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Part of a header's name."""
        self._count(end - start)
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Part of a header's value."""
        self._count(end - start)
        self._value += data[start:end]

    def header_end(self) -> None:
        """End of a header."""
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = self._name == self.file_field and b"filename" in options
            if self._is_file and self.is_found:
                raise Unprocessable("the form has two files", expected="one", where=self._name)
            if self._is_file:
                self.is_found = True
                self.upload.name = options[b"filename"].decode("utf-8", "replace")
        self._header, self._value = bytearray(), bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """Part of a field's content."""
        if self._is_file:
            self.file.write(data[start:end])
            self.upload.size_bytes += end - start
            return
        self._count(end - start)
        self._text += data[start:end]

    def part_end(self) -> None:
        """End of a field."""
        if not self._is_file and self._name:
            self.upload.fields[self._name] = self._text.decode("utf-8", "replace")

    def _count(self, size_bytes: int) -> None:
        """Limit everything kept in memory in total, however many parts it has."""
        self._field_bytes += size_bytes
        if self._field_bytes > FIELD_BYTES:
            raise TooLarge(
                "the form's text fields are too large", expected=f"at most {FIELD_BYTES} bytes",
                found=f"{self._field_bytes} bytes or more",
            )  # fmt: skip
