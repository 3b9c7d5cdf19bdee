"""SSRF protection: a service may only fetch from public internet addresses.

A host name is resolved once and the connection uses the address that was checked, which prevents
DNS rebinding. Redirects are checked as well.
"""

import ipaddress
import socket
from collections.abc import Iterator

import httpx

from dataset_rules.ground.errors import RulesError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # embeds an IPv4 address in the last four bytes


class PublicOnly(httpx.BaseTransport):
    """Transport that connects to public addresses only, and to loopback if allowed."""

    def __init__(self, *, is_loopback_allowed: bool = False) -> None:
        self._is_loopback_allowed = is_loopback_allowed
        self._inner = httpx.HTTPTransport(verify=httpx.create_ssl_context())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Connect to a checked address; the certificate must still match the host name."""
        host = request.url.host
        failure: httpx.ConnectError | httpx.ConnectTimeout | None = None
        for address in self._resolve_checked(host, request.url.port or 443):
            pinned = httpx.Request(
                request.method, request.url.copy_with(host=address), headers=request.headers,
                stream=request.stream, extensions={**request.extensions, "sni_hostname": host},
            )  # fmt: skip
            try:
                return self._inner.handle_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()

    def _resolve_checked(self, host: str, port: int) -> list[str]:
        """Resolve all addresses of a host; raises `RulesError` if any is not public."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._is_allowed(ipaddress.ip_address(address.partition("%")[0])):
                raise RulesError(
                    "the address is in a network that is not public", where=host,
                    expected="a host on the internet", found=address,
                    remedy="download the file yourself and upload it",
                )  # fmt: skip
        return addresses

    def _is_allowed(self, address: Address) -> bool:
        effective = list(_effective_addresses(address))
        if self._is_loopback_allowed and all(item.is_loopback for item in effective):
            return True
        return all(_is_public(item) for item in effective)


def _is_public(address: Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special


def _effective_addresses(address: Address) -> Iterator[Address]:
    """The address and the IPv4 addresses embedded in it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
            return
        if address in NAT64:
            yield ipaddress.IPv4Address(address.packed[-4:])
            return
        embedded = [address.sixtofour, *(address.teredo or ())]
        yield from (item for item in embedded if item is not None)
    yield address
