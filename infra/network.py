"""Network component: a private network and the firewall that guards what carries a tag."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do

EVERYWHERE = ["0.0.0.0/0", "::/0"]


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """Where the network lies and who may come in over SSH."""

    region: pulumi.Input[str]
    ssh_from: Sequence[str]
    tag: pulumi.Input[str]
    """Droplets that carry it are behind the firewall from their first second."""


class Network(pulumi.ComponentResource):
    """VPC and firewall: in come 22 from given addresses, 80 and 443 from all; out goes all."""

    vpc_id: pulumi.Output[str]
    firewall_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Network", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # The address range is left to DigitalOcean: two stacks of one account never overlap.
        self.vpc = do.Vpc(name, name=name, region=args.region, opts=child)
        # A firewall may name a tag only if it exists.
        self.tag = do.Tag(name, name=args.tag, opts=child)
        self.firewall = do.Firewall(
            name,
            name=name,
            tags=[self.tag.name],
            inbound_rules=_inbound(args.ssh_from),
            outbound_rules=_outbound(),
            opts=child,
        )
        self.vpc_id = self.vpc.id
        self.firewall_id = self.firewall.id
        self.register_outputs({"vpc_id": self.vpc_id, "firewall_id": self.firewall_id})


def _inbound(ssh_from: Sequence[str]) -> list[do.FirewallInboundRuleArgs]:
    doors = [("22", sorted(ssh_from)), ("80", EVERYWHERE), ("443", EVERYWHERE)]
    return [
        do.FirewallInboundRuleArgs(protocol="tcp", port_range=port, source_addresses=sources)
        for port, sources in doors
        if sources
    ]


def _outbound() -> list[do.FirewallOutboundRuleArgs]:
    # The API reads "0" back as all ports of a protocol; "1-65535" is stored as it is written.
    ports = {"tcp": "1-65535", "udp": "1-65535", "icmp": None}
    return [
        do.FirewallOutboundRuleArgs(
            protocol=protocol, port_range=ports_open, destination_addresses=EVERYWHERE
        )
        for protocol, ports_open in ports.items()
    ]
