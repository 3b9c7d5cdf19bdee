"""Monitoring component: an external uptime check and alerts for load, memory and disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as do

# Percent over ten minutes. A training uses all CPUs for hours, hence the high CPU threshold.
ALERTS = {"cpu": 98, "memory_utilization_percent": 90, "disk_utilization_percent": 85}


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """What to watch and whom to notify."""

    host: pulumi.Input[str]
    """Address or domain."""
    tag: pulumi.Input[str]
    emails: Sequence[str] = ()


class Monitoring(pulumi.ComponentResource):
    """Uptime check on https://HOST/healthz; alerts only if there are email addresses."""

    check_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("unetops:infra:Monitoring", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        check = do.UptimeCheck(
            name,
            name=name,
            type="https",
            target=pulumi.Output.concat("https://", args.host, "/healthz"),
            opts=child,
        )
        if args.emails:
            _down(name, check.id, args.emails, opts=child)
            for kind, percent in ALERTS.items():
                _alert(name, kind, percent, args=args, opts=child)
        self.check_id = check.id
        self.register_outputs({"check_id": self.check_id})


def _down(
    name: str,
    check_id: pulumi.Output[str],
    emails: Sequence[str],
    *,
    opts: pulumi.ResourceOptions,
) -> None:
    do.UptimeAlert(
        f"{name}-down",
        name=f"{name}-down",
        check_id=check_id,
        type="down_global",
        period="2m",
        notifications=[do.UptimeAlertNotificationArgs(emails=list(emails))],
        opts=opts,
    )


def _alert(
    name: str, kind: str, percent: int, *, args: MonitoringArgs, opts: pulumi.ResourceOptions
) -> None:
    do.MonitorAlert(
        f"{name}-{kind.split('_')[0]}",
        type=f"v1/insights/droplet/{kind}",
        description=f"{name}: {kind.split('_')[0]} above {percent} percent",
        compare="GreaterThan",
        value=percent,
        window="10m",
        enabled=True,
        tags=[args.tag],
        alerts=do.MonitorAlertAlertsArgs(emails=list(args.emails)),
        opts=opts,
    )
