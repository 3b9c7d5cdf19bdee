"""Files over HTTP for guests: whole, in ranges, truncated or slow."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

PIECE = 64 * 1024


class Files:
    """The served files by path, and the start offset of each request."""

    def __init__(self) -> None:
        """Start without files."""
        self.texts: dict[str, bytes] = {}
        self.folders: dict[str, Path] = {}
        self.cut_once: set[str] = set()
        """Paths whose next answer ends in the middle."""
        self.slow: set[str] = set()
        """Paths that take a second for every sixteen pieces."""
        self.starts: list[tuple[str, int]] = []
        self.port = 0

    def find(self, path: str) -> bytes | None:
        """The bytes of a path; a folder handles all paths below it."""
        if path in self.texts:
            return self.texts[path]
        for top, folder in self.folders.items():
            file = folder / path.removeprefix(top).lstrip("/")
            if path.startswith(top) and file.is_file():
                return file.read_bytes()
        return None


def index(files: Files, top: str, wheels: Path) -> None:
    """Serve a folder of wheels as a package index below `top`."""
    files.folders[f"{top}/wheels"] = wheels
    names: dict[str, list[str]] = {}
    for wheel in wheels.glob("*.whl"):
        name = wheel.name.partition("-")[0].replace("_", "-").lower()
        link = f'<a href="../wheels/{wheel.name.replace("+", "%2B")}">{wheel.name}</a>'
        names.setdefault(name, []).append(link)
    for name, links in names.items():
        page = f"<!doctype html><html><body>{' '.join(links)}</body></html>"
        files.texts[f"{top}/{name}/"] = page.encode()


@contextmanager
def serving(files: Files) -> Iterator[Files]:
    """Serve on every address of this machine, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            data = files.find(path)
            if data is None:
                return self.send_error(404)
            start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
            files.starts.append((path, start))
            self._answer(path, data, start)
            return None

        def _answer(self, path: str, data: bytes, start: int) -> None:
            self.send_response(206 if start else 200)
            kind = "text/html" if path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            end = len(data)
            if path in files.cut_once:
                files.cut_once.remove(path)
                end = (start + end) // 2
            for at in range(start, end, PIECE):
                time.sleep(1 / 16 if path in files.slow else 0)
                self.wfile.write(data[at : min(at + PIECE, end)])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Some tests are about guests that disconnect in the middle."""

    with Server(("0.0.0.0", 0), Handler) as server:
        files.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
