"""An https server on loopback whose responses are scripted by the test."""

import datetime
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Passes each request to `server.answer`."""

    protocol_version = "HTTP/1.1"
    server: "FileHost"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.server.answer(self)

    def head(self, status: int, **headers: object) -> None:
        """Send status and headers; `_` in header names becomes `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class FileHost(ThreadingHTTPServer):
    """Server on https://localhost:PORT and https://127.0.0.1:PORT, or on another address."""

    daemon_threads = True

    def __init__(self, certificate: Path, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answer: Answer = lambda handler: handler.head(404, Content_Length=0)

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect; tests do so on purpose."""

    def url(self, path: str = "/set.zip", host: str = "") -> str:
        return f"https://{host or self.server_address[0]}:{self.server_port}{path}"


def file_answer(
    data: bytes, *, etag: str = '"1"', breaks_at: int | None = None, has_ranges: bool = True
) -> Answer:
    """Serve the data, with range requests; can disconnect after `breaks_at` bytes."""

    def answer(handler: Handler) -> None:
        requested, condition = handler.headers.get("Range"), handler.headers.get("If-Range", etag)
        if handler.headers.get("If-None-Match") == etag:
            handler.head(304)
            return
        start = 0
        if has_ranges and requested and condition == etag:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
        if start:
            content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.head(
                206, Content_Length=len(data) - start, ETag=etag, Content_Range=content_range
            )
        else:
            handler.head(200, Content_Length=len(data), ETag=etag)
        end = len(data) if breaks_at is None else start + breaks_at
        handler.wfile.write(data[start:end])

    return answer


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


@contextmanager
def file_host(folder: Path, address: str = "127.0.0.1") -> Iterator[FileHost]:
    """Run a host; its self-signed certificate is `folder/host.pem`."""
    host = FileHost(certificate_in(folder, address), address)
    thread = threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()


def certificate_in(folder: Path, address: str = "127.0.0.1") -> Path:
    """Write key and certificate for this machine into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unetops tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address))]
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "host.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )  # fmt: skip
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
