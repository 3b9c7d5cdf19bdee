"""Network component: a private network and a firewall for all droplets with a tag."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do

EVERYWHERE = ["0.0.0.0/0", "::/0"]


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """Region of the network and the addresses allowed to use SSH."""

    region: pulumi.Input[str]
    ssh_from: Sequence[str]
    tag: pulumi.Input[str]
    """Droplets with this tag are behind the firewall from the moment they are created."""


class Network(pulumi.ComponentResource):
    """VPC and firewall: port 22 from `ssh_from`, 80 and 443 from anywhere; outbound is open."""

    vpc_id: pulumi.Output[str]
    firewall_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Network", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # DigitalOcean picks the address range, so that two stacks of one account never overlap.
        self.vpc = do.Vpc(name, name=name, region=args.region, opts=child)
        # A firewall can reference only tags that exist.
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
    ports = [("22", sorted(ssh_from)), ("80", EVERYWHERE), ("443", EVERYWHERE)]
    return [
        do.FirewallInboundRuleArgs(protocol="tcp", port_range=port, source_addresses=sources)
        for port, sources in ports
        if sources
    ]


def _outbound() -> list[do.FirewallOutboundRuleArgs]:
    # The API normalises "0" to all ports of a protocol; "1-65535" is stored as written.
    ports = {"tcp": "1-65535", "udp": "1-65535", "icmp": None}
    return [
        do.FirewallOutboundRuleArgs(
            protocol=protocol, port_range=port_range, destination_addresses=EVERYWHERE
        )
        for protocol, port_range in ports.items()
    ]
