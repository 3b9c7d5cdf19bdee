"""The policy pack: violations that it rejects, and good stacks that pass."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.config import StackConfig
from infra.policy import rules
from infra.policy.rules import DROPLET, FIREWALL, VOLUME, Thing
from infra.policy.terms import Terms
from infra.prices import PRICES, estimate
from tests.cloud.stack import Stack, stack

ROOT = Path(__file__).parents[2]
PACK = ("--policy-pack", str(ROOT / "infra/policy"))
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


def test_all_that_bills_is_counted_by_the_price_table() -> None:
    kinds = {"spacesBucket:SpacesBucket": {}, "volumeSnapshot:VolumeSnapshot": {}}
    more = [
        Thing(type=f"digitalocean:index/{kind}", name="n", props=p) for kind, p in kinds.items()
    ]
    total = 48 + 100 * 0.10 + 5 + 100 * 0.06
    assert rules.price_is_below([HOST, DATA, *more], total) == []
    assert f"${total:.2f}" in rules.price_is_below([HOST, DATA, *more], total - 0.01)[0]


def test_the_table_is_that_of_the_estimate() -> None:
    config = StackConfig(stack="dev", volume_gib=100)
    assert rules.price_is_below([HOST, DATA], estimate(config).usd_month) == []
    assert rules.price_is_below([HOST, DATA], estimate(config).usd_month - 0.01)


@pytest.mark.parametrize(
    ("given", "own", "ceiling"),
    [(None, "", 200.0), (500, "", 500.0), (None, "30", 30.0), (50, "300", 50.0), (50, "30", 30.0)],
)
def test_the_lower_one_of_the_two_ceilings_holds(given: Any, own: str, ceiling: float) -> None:
    assert Terms.of({"unetops:priceCeiling": own}, "unetops").ceiling(given) == ceiling


def test_prices_of_the_configuration_win_and_unreadable_ones_are_left_to_the_program() -> None:
    assert Terms.of({"unetops:prices": '{"volume-gib": 7}'}, "unetops").prices["volume-gib"] == 7
    assert Terms.of({"other:prices": '{"volume-gib": 7}'}, "unetops").prices == PRICES
    assert Terms.of({"unetops:prices": "{", "unetops:priceCeiling": "x"}, "unetops") == Terms()


REFUSALS = {
    "unguarded": ("firewall", "host: no firewall covers a tag of this droplet"),
    "unprotected": ("protected-data", "data: this volume is not protected"),
    "port": ("ports", "wall: port 8000 (tcp) is open"),
    "world": ("ssh", "wall: port 22 is open to 0.0.0.0/0"),
    "untagged": ("tags", "data: no tag starts with 'unetops-'"),
    "expensive": ("price", "$555.80 a month is above the ceiling of $200.00"),
}


@pytest.fixture(scope="module")
def one() -> Iterator[Stack]:
    with stack(ROOT / "tests/cloud/breaches") as made:
        yield made


@pytest.mark.system
@pytest.mark.parametrize("breach", REFUSALS)
def test_the_engine_refuses_each_breach_before_anything_is_made(one: Stack, breach: str) -> None:
    one.config("breach", breach)
    said = one.run("up", "--yes", "--stack", one.name, *PACK, code=1)
    rule, why = REFUSALS[breach]
    assert why in said
    assert re.findall(r"\[mandatory\]  (\S+)", said) == [rule]
    assert one.cloud.log == []


@pytest.mark.system
def test_the_engine_judges_the_price_by_the_stacks_configuration(
    one: Stack, tmp_path: Path
) -> None:
    one.config("breach", "")
    assert "[mandatory]" not in one.preview(*PACK)
    one.config("priceCeiling", "5")
    assert "$13.00 a month is above the ceiling of $5.00" in one.preview(*PACK, code=1)
    one.config("prices", '{"s-1vcpu-2gb": 3.5}')
    assert "[mandatory]" not in one.preview(*PACK)
    given = tmp_path / "ceiling.json"
    given.write_text(json.dumps({"price": {"usdMonth": 4}}))
    said = one.preview(*PACK, "--policy-pack-config", str(given), code=1)
    assert "$4.50 a month is above the ceiling of $4.00" in said
