"""What the policy pack refuses, and that it lets a good stack pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.policy import rules
from infra.policy.rules import DROPLET, FIREWALL, VOLUME, Thing
from tests.cloud.stack import stack

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "cloud" / "program"
TAGS = ["unetops-dev"]
WORLD = ["0.0.0.0/0", "::/0"]
ALL_RULES = [
    rules.droplets_have_a_firewall,
    rules.volumes_are_protected,
    rules.only_known_ports_are_open,
    rules.ssh_is_for_given_addresses,
    rules.tags_are_there,
    rules.price_is_below,
]


def door(port: str | None, *sources: str, protocol: str = "tcp") -> dict[str, Any]:
    return {"protocol": protocol, "portRange": port, "sourceAddresses": list(sources)}


def wall(*doors: dict[str, Any], tags: list[str] = TAGS) -> Thing:
    return Thing(type=FIREWALL, name="wall", props={"tags": tags, "inboundRules": list(doors)})


DOORS = [door("22", "203.0.113.7/32"), door("80", *WORLD), door("443", *WORLD)]
HOST = Thing(type=DROPLET, name="host", props={"size": "s-4vcpu-8gb", "tags": TAGS})
DATA = Thing(type=VOLUME, name="data", props={"size": 100.0, "tags": TAGS}, protect=True)


@pytest.mark.parametrize("rule", ALL_RULES)
def test_a_good_stack_passes_every_rule(rule: Any) -> None:
    assert rule([HOST, DATA, wall(*DOORS)]) == []


def test_a_droplet_without_a_firewall_is_refused() -> None:
    assert "host" in rules.droplets_have_a_firewall([HOST, DATA])[0]
    other = wall(*DOORS, tags=["unetops-other"])
    assert "unetops-other" in rules.droplets_have_a_firewall([HOST, other])[0]


def test_a_volume_without_protection_is_refused() -> None:
    assert "protect=True" in rules.volumes_are_protected([replace(DATA, protect=False)])[0]


@pytest.mark.parametrize("port", ["8000", "22-80", "1-65535", "all", "0", None])
def test_any_other_port_is_refused(port: str | None) -> None:
    assert len(rules.only_known_ports_are_open([wall(*DOORS, door(port, *WORLD))])) == 1


@pytest.mark.parametrize("source", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8000::/1"])
def test_ssh_from_everywhere_is_refused(source: str) -> None:
    assert source in rules.ssh_is_for_given_addresses([wall(door("22", source))])[0]


@pytest.mark.parametrize("source", ["203.0.113.7", "10.0.0.0/8", "2001:db8::/32"])
def test_ssh_from_given_addresses_passes(source: str) -> None:
    assert rules.ssh_is_for_given_addresses([wall(door("22", source))]) == []


@pytest.mark.parametrize("thing", [HOST, DATA])
@pytest.mark.parametrize("tags", [[], None, ["mine"]])
def test_a_thing_without_the_stacks_tag_is_refused(thing: Thing, tags: list[str] | None) -> None:
    bare = replace(thing, props={**thing.props, "tags": tags})
    assert thing.name in rules.tags_are_there([bare])[0]


def test_a_price_above_the_ceiling_is_refused() -> None:
    assert rules.price_is_below([HOST, DATA], 58.0) == []
    assert "$58.00" in rules.price_is_below([HOST, DATA], 57.99)[0]


def test_a_size_without_a_price_is_refused() -> None:
    odd = replace(HOST, props={**HOST.props, "size": "x-900"})
    assert "x-900" in rules.price_is_below([odd], 1000.0)[0]


@pytest.mark.system
def test_the_engine_refuses_a_preview_that_breaks_the_rules(tmp_path: Path) -> None:
    with stack(PROGRAM) as one:
        ceiling = tmp_path / "ceiling.json"
        ceiling.write_text(json.dumps({"price": {"usdMonth": 5}}))
        pack = ("--policy-pack", str(ROOT / "infra/policy"), "--policy-pack-config", str(ceiling))
        said = one.preview(*pack, code=1)
        for rule in ("firewall", "tags", "price"):
            assert rule in said
        assert "above the ceiling of $5.00" in said
        assert "no firewall names a tag" in said
        assert one.cloud.log == []
