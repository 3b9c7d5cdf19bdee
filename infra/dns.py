"""Dns component: the A record that points a host name to an address."""

from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do

# Short, so that a moved address is found within minutes.
TTL_S = 300


@dataclass(frozen=True, kw_only=True)
class DnsArgs:
    """A host name in a zone that DigitalOcean serves for this account."""

    domain: str
    """Full name, such as masks.example.org."""
    address: pulumi.Input[str]


class Dns(pulumi.ComponentResource):
    """An A record; the zone itself belongs to the account and is never changed."""

    fqdn: pulumi.Output[str]

    def __init__(
        self, name: str, args: DnsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Dns", name, None, opts)
        record, zone = split(args.domain)
        made = do.DnsRecord(
            name,
            domain=zone,
            name=record,
            type="A",
            value=args.address,
            ttl=TTL_S,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.fqdn = made.fqdn
        self.register_outputs({"fqdn": self.fqdn})


def split(domain: str) -> tuple[str, str]:
    """Record and zone; a name of two labels is the zone itself.

    Example:
        >>> split("masks.example.org"), split("example.org")
        (('masks', 'example.org'), ('@', 'example.org'))
    """
    first, rest = domain.split(".", 1)
    return (first, rest) if "." in rest else ("@", domain)
