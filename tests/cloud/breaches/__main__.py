"""Droplet, volume and firewall in order, but for one breach."""

import pulumi
import pulumi_digitalocean as do

breach = pulumi.Config().get("breach")
tag = do.Tag("tag", name="unetops-tests")
tags = [] if breach == "untagged" else ["unetops-tests"]
doors = [
    ("22", ["0.0.0.0/0"] if breach == "world" else ["198.18.0.7/32"]),
    ("443", ["0.0.0.0/0"]),
    *([("8000", ["198.18.0.7/32"])] if breach == "port" else []),
]
do.Firewall(
    "wall",
    name="wall",
    tags=[tag.name],
    inbound_rules=[
        do.FirewallInboundRuleArgs(protocol="tcp", port_range=port, source_addresses=sources)
        for port, sources in doors
    ],
)
do.Volume(
    "data",
    name="data",
    region="nyc3",
    size=10,
    tags=tags,
    opts=pulumi.ResourceOptions(protect=breach != "unprotected"),
)
do.Droplet(
    "host",
    name="host",
    region="nyc3",
    image="debian-12-x64",
    size="gpu-4000adax1-20gb" if breach == "expensive" else "s-1vcpu-2gb",
    tags=["unetops-elsewhere"] if breach == "unguarded" else ["unetops-tests"],
)
