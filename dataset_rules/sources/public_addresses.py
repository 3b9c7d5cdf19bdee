"""Which machines a service may fetch from: those of the public internet, whatever a name says.

A name is resolved once and the connection goes to the very address that was judged, so no answer
of a name server can change in between; redirects pass here as well.
"""

import ipaddress
import socket
from collections.abc import Iterator

import httpx

from dataset_rules.ground.errors import RulesError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last four bytes


class PublicOnly(httpx.BaseTransport):
    """Sends requests to public addresses only, and to this machine where that is allowed."""

    def __init__(self, *, is_loopback_allowed: bool = False) -> None:
        self._is_loopback_allowed = is_loopback_allowed
        self._inner = httpx.HTTPTransport(verify=httpx.create_ssl_context())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Connect to a judged address; the certificate must still be that of the name."""
        host = request.url.host
        failure: httpx.ConnectError | httpx.ConnectTimeout | None = None
        for address in self._judged(host, request.url.port or 443):
            there = httpx.Request(
                request.method, request.url.copy_with(host=address), headers=request.headers,
                stream=request.stream, extensions={**request.extensions, "sni_hostname": host},
            )  # fmt: skip
            try:
                return self._inner.handle_request(there)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()

    def _judged(self, host: str, port: int) -> list[str]:
        """All addresses of a host; one that is not public refuses them all."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._may_be_asked(ipaddress.ip_address(address.partition("%")[0])):
                raise RulesError(
                    "the address leads into a network that is not public", where=host,
                    expected="a machine on the internet", found=address,
                    remedy="download the file yourself and upload it",
                )  # fmt: skip
        return addresses

    def _may_be_asked(self, address: Address) -> bool:
        inside = list(_inside(address))
        if self._is_loopback_allowed and all(one.is_loopback for one in inside):
            return True
        return all(_is_public(one) for one in inside)


def _is_public(address: Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special


def _inside(address: Address) -> Iterator[Address]:
    """The address that counts, and those that it carries in itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
            return
        if address in NAT64:
            yield ipaddress.IPv4Address(address.packed[-4:])
            return
        carried = [address.sixtofour, *(address.teredo or ())]
        yield from (one for one in carried if one is not None)
    yield address
