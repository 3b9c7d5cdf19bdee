"""`python -m infra.doctor`: check the stack's configuration against the live account.

Exit status: 0 all is well, 1 findings of severity warning or worse, 2 bad input or no answer.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra import prices
from infra.account import Account, AccountError, account_of
from infra.catalog import DATED
from infra.checks import read_config
from infra.config import ConfigError, StackConfig
from infra.engine import Engine, EngineError
from infra.take import adoption_line

OK, FINDINGS, BAD_INPUT = 0, 1, 2
VOLUME_TYPE = "digitalocean:index/volume:Volume"
# Name of the limit in the account -> the objects that count against it.
LIMITS = {
    "droplet_limit": "droplets",
    "volume_limit": "volumes",
    "reserved_ip_limit": "reserved_ips",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to know before `pulumi up`."""

    severity: str
    what: str
    where: str
    expected: str
    found: str
    remedy: str


def stack_config(root: Path, stack: str) -> StackConfig:
    """The configuration of a stack, read exactly as the program reads it.

    Raises:
        ConfigError: with all errors.
    """
    path = root / f"Pulumi.{stack}.yaml"
    try:
        document = yaml.safe_load(path.read_text()) or {}
        items = dict(document.get("config") or {})
    except OSError as e:
        remedy = f"run in the project's root, after `pulumi stack init {stack}`"
        raise ConfigError([f"{path.name}: {e.strerror}; {remedy}"]) from None
    except (yaml.YAMLError, AttributeError, ValueError, TypeError):
        raise ConfigError([f"{path.name}: expected YAML with a map `config`; correct it"]) from None
    prefix = "unetops:"
    values = {k.removeprefix(prefix): v for k, v in items.items() if k.startswith(prefix)}
    return read_config(values, stack, lambda p: (root / Path(p).expanduser()).read_text())


def examine(config: StackConfig, account: Account, held_volumes: set[str] | None) -> list[Finding]:
    """All findings; `held_volumes` are the ids in the state, None if it cannot be read."""
    found = [*_status(account), *_keys(config, account), *_size(config, account)]
    found += [*_image(config, account), *_region(config, account)]
    return [*found, *_volume(config, account, held_volumes)]


def _status(account: Account) -> Iterator[Finding]:
    facts = account.account()
    if facts.get("status") != "active":
        yield Finding(
            severity="error", what="account is not active", where="account", expected="active",
            found=f"{facts.get('status')} {facts.get('status_message', '')}".strip(),
            remedy="resolve it on the control panel's Billing page or with support",
        )  # fmt: skip
    for limit, kind in LIMITS.items():
        if facts.get(limit) is not None:
            used, limit_count = len(account.all(kind)), int(facts[limit])
            full = used >= limit_count
            yield Finding(
                severity="warning" if full else "info", where="account",
                what=f"limit of {kind} {'reached' if full else 'leaves room'}",
                expected=f"fewer than {limit_count}", found=f"{used} in use",
                remedy="delete some or ask support for more; nothing if the stack is already up"
                if full else "none needed",
            )  # fmt: skip


def _keys(config: StackConfig, account: Account) -> Iterator[Finding]:
    from infra.ssh import fingerprint

    known = {key["fingerprint"]: key["name"] for key in account.all("ssh_keys")}
    for finger in map(fingerprint, config.public_keys):
        if finger in known:
            yield Finding(
                severity="info", what="SSH key exists", where="sshPublicKeys", expected="any",
                found=f"{finger} as {known[finger]!r}",
                remedy="none needed: it is reused",
            )  # fmt: skip


def _size(config: StackConfig, account: Account) -> Iterator[Finding]:
    sizes = {size["slug"]: size for size in account.all("sizes")}
    size = sizes.get(config.size)
    if size is None or config.region not in size["regions"] or not size["available"]:
        have = [s for s, v in sizes.items() if config.region in v["regions"] and v["available"]]
        yield Finding(
            severity="error", what="size is not available", where="size",
            expected=f"a size available in {config.region}", found=config.size,
            remedy=f"pulumi config set size SIZE, one of {', '.join(have[:12]) or 'none there'}",
        )  # fmt: skip
        return
    live = float(size["price_monthly"])
    table = {**prices.PRICES, **config.prices}.get(config.size)
    same = table is not None and abs(live - table) < 1  # a month is counted as 720 to 744 hours
    listed = "no price" if table is None else f"${table:.2f} a month"
    yield Finding(
        severity="info" if same else "warning", what="price of the size", where=config.size,
        expected=f"{listed} (table of {DATED})", found=f"${live:.2f} a month",
        remedy="none needed" if same
        else f"pulumi config set --path 'prices[\"{config.size}\"]' {live:.2f}",
    )  # fmt: skip


def _image(config: StackConfig, account: Account) -> Iterator[Finding]:
    image = account.image(config.image)
    if image is None or config.region not in image.get("regions", []):
        yield Finding(
            severity="error", what="image is not available", where="image", found=config.image,
            expected=f"an image available in {config.region}",
            remedy="pulumi config set image debian-12-x64",
        )  # fmt: skip


def _region(config: StackConfig, account: Account) -> Iterator[Finding]:
    regions = {region["slug"]: region for region in account.all("regions")}
    region: dict[str, Any] = regions.get(config.region, {})
    wanted = {"metadata", "storage"}
    lacks = sorted(wanted - set(region.get("features", [])))
    if not region.get("available") or lacks:
        available = [
            r for r, v in regions.items() if v["available"] and wanted <= set(v["features"])
        ]
        yield Finding(
            severity="error", what="region cannot host the stack", where="region",
            expected="open, with metadata and storage (volumes)",
            found=f"{config.region}: " + (f"lacks {', '.join(lacks)}" if lacks else "closed"),
            remedy=f"pulumi config set region REGION, one of {', '.join(available)}",
        )  # fmt: skip


def _volume(config: StackConfig, account: Account, held: set[str] | None) -> Iterator[Finding]:
    for volume in account.all("volumes", name=config.name, region=config.region):
        if held is not None and volume["id"] in held:
            continue
        yield Finding(
            severity="info" if held is None else "warning", where=config.region,
            what="volume of the stack's name exists", expected="in the state, or none",
            found=f"{config.name} ({volume['id']})",
            remedy="cannot tell whether it was adopted, as the state cannot be read: pulumi login"
            if held is None
            else adoption_line(config.stack, volume["id"], volume["size_gigabytes"]),
        )  # fmt: skip


def _held_volumes(root: Path, stack: str) -> set[str] | None:
    try:
        return Engine(stack, root).state().ids(VOLUME_TYPE)
    except (EngineError, ValueError):
        return None


def show(findings: list[Finding]) -> None:
    """Print the findings as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="unetops infra doctor", title_justify="left")
    names = [field.name for field in dataclasses.fields(Finding)]
    for name in names:
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(*(escape(str(getattr(finding, name))) for name in names))
    Console(highlight=False).print(table)


def main(words: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="unetops infra doctor", description=__doc__)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS")
    args = parser.parse_args(words)
    root = Path.cwd()
    try:
        config = stack_config(root, args.stack)
        account = account_of(timeout_s=args.timeout)
        findings = examine(config, account, _held_volumes(root, args.stack))
    except (ConfigError, AccountError) as e:
        sys.stderr.write(f"error: {e}\n")
        return BAD_INPUT
    if args.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(f) for f in findings], indent=1) + "\n")
    else:
        show(findings)
    return FINDINGS if any(f.severity != "info" for f in findings) else OK


if __name__ == "__main__":
    sys.exit(main())
