"""A small DigitalOcean API over HTTP on loopback, with its JSON formats but not its rules."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "dop_v1_right"
KINDS = {"keys": "ssh_keys"}
GROUPED = {"uptime/checks": "checks", "monitoring/alerts": "policies"}


class Api:
    """Contents of the account; tests change them."""

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.delay_s = 0.0
        self.account: dict[str, Any] = {
            "status": "active", "status_message": "", "droplet_limit": 10, "volume_limit": 10,
            "reserved_ip_limit": 3,
        }  # fmt: skip
        self.objects: dict[str, list[dict[str, Any]]] = {
            "sizes": [{"slug": "s-4vcpu-8gb", "regions": ["nyc3"], "available": True,
                       "price_monthly": 48.0}],
            "images": [{"slug": "debian-12-x64", "regions": ["nyc3"]}],
            "regions": [{"slug": "nyc3", "available": True, "features": ["metadata", "storage"]}],
        }  # fmt: skip

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and body of a GET."""
        plain = path.removeprefix("/v2/").removeprefix("account/")
        kind, *rest = GROUPED.get(plain, plain).split("/")
        kind = KINDS.get(kind, kind)
        if kind == "account":
            return 200, {"account": self.account}
        found = self.objects.get(kind, [])
        if rest:
            one = [item for item in found if item["slug"] == rest[0]]
            return (200, {kind[:-1]: one[0]}) if one else (404, {"id": "not_found"})
        return 200, self._page(kind, [item for item in found if fits(item, query)], query)

    def _page(self, kind: str, items: list[dict[str, Any]], query: dict[str, str]) -> Any:
        size, page = int(query.get("per_page", 20)), int(query.get("page", 1))
        part = items[(page - 1) * size : page * size]
        links = {"pages": {"next": "there is one"}} if page * size < len(items) else {}
        return {kind: part, "links": links, "meta": {"total": len(items)}}


def fits(item: dict[str, Any], query: dict[str, str]) -> bool:
    """Whether an object matches the requested tag, name and region."""
    tagged = "tag_name" not in query or query["tag_name"] in item.get("tags", [])
    return tagged and query.get("name", item.get("name")) == item.get("name")


@contextmanager
def serving(api: Api | None = None, *, token: str = TOKEN) -> Iterator[Api]:
    """The API on a free port, for clients with the token."""
    api = api or Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(api.delay_s)
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            status, document = api.answer(parts.path, query)
            if self.headers["Authorization"] != f"Bearer {token}":
                status, document = 401, {"id": "unauthorized"}
            self.reply(api.status if api.status != 200 else status, document)

        def reply(self, status: int, document: dict[str, Any]) -> None:
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Retry-After", "600")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        api.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
