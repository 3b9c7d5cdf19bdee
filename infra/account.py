"""The DigitalOcean account through `pydo`, with one-line errors and hard time limits."""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

ENDPOINT = "https://api.digitalocean.com"
TOKENS = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
PAGE = 200
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NOT_FOUND = 404
Record = dict[str, Any]
REMEDIES = {
    401: "the token is wrong or expired; create one on the control panel's API page and export it "
    "as DIGITALOCEAN_TOKEN",
    403: "the token lacks a scope; create one with read access to this",
    429: "too many requests with this token; wait a few minutes and retry",
}


class AccountError(Exception):
    """The account cannot be queried: one line with the remedy."""


class Account:
    """Read-only access to the account."""

    def __init__(self, token: str, *, endpoint: str = ENDPOINT, timeout_s: float = 20) -> None:
        from pydo import Client  # takes a second to import

        self._where = urlsplit(endpoint).hostname or endpoint
        # A token goes over plain HTTP only to the local machine, as in tests.
        self._options = {"enforce_https": self._where not in LOOPBACK}
        # No retries: pydo would wait as long as a 429 response specifies.
        self._client = Client(
            token=token, endpoint=endpoint, connection_timeout=timeout_s,
            read_timeout=timeout_s, retry_total=0,
        )  # fmt: skip

    def account(self) -> Record:
        """Status and limits."""
        return dict(self._ask(self._client.account.get)["account"])

    def image(self, slug: str) -> Record | None:
        """An image by its slug, None if there is none."""
        found = self._ask(self._client.images.get, image_id=slug)
        return dict(found["image"]) if "image" in found else None

    def all(self, kind: str, **filters: Any) -> list[Record]:
        """All objects of a kind such as `droplets`, over all pages."""
        return self.listing(f"{kind}.list", kind, **filters)

    def listing(self, operation: str, key: str, **filters: Any) -> list[Record]:
        """All objects that an operation such as `uptime.list_checks` returns under `key`."""
        group, method = operation.split(".")
        operation_method = getattr(getattr(self._client, group), method)
        found: list[Record] = []
        for page in range(1, 1000):
            answer = self._ask(operation_method, per_page=PAGE, page=page, **filters)
            found += answer.get(key) or []
            if not answer.get("links", {}).get("pages", {}).get("next"):
                break
        return found

    def _ask(self, operation: Callable[..., Any], **kwargs: Any) -> Record:
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            answer = operation(**kwargs, **self._options)
        except HttpResponseError as e:
            raise AccountError(self._refusal(e.status_code or 0)) from None
        except (AzureError, ValueError) as e:
            raise AccountError(self._unreachable(e)) from None
        if not isinstance(answer, dict):
            raise AccountError(f"{self._where} returned no JSON object; check the endpoint")
        return answer

    def _refusal(self, status: int) -> str:
        remedy = REMEDIES.get(status, "retry in a few minutes; see status.digitalocean.com")
        return f"{self._where} answered {status}: {remedy}"

    def _unreachable(self, error: Exception) -> str:
        kind = "did not answer in time" if "timed out" in str(error) else "cannot be reached"
        return f"{self._where} {kind} ({type(error).__name__}); check the network and retry"


def account_of(
    environment: dict[str, str] | None = None, *, timeout_s: float = 20, endpoint: str | None = None
) -> Account:
    """The account that the token in the environment belongs to.

    Raises:
        AccountError: if there is no token.
    """
    env = os.environ if environment is None else environment
    token = next((env[name].strip() for name in TOKENS if env.get(name, "").strip()), None)
    if token is None:
        raise AccountError(f"no token: export {TOKENS[0]}=... (control panel, API page)")
    address = endpoint or env.get("DIGITALOCEAN_API_URL") or ENDPOINT
    return Account(token, endpoint=address, timeout_s=timeout_s)
