"""The pack that `pulumi preview --policy-pack infra/policy` runs."""

from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.policy import _PolicyAnalyzerServicer as Servicer

from infra.policy import rules
from infra.policy.terms import Terms

TERMS: list[Terms] = []


def _listen() -> None:
    """Keep the stack's configuration, which the engine tells and the SDK drops."""
    said = Servicer.ConfigureStack

    def configure(self: Servicer, request: Any, context: Any) -> Any:
        TERMS[:] = [Terms.of(dict(request.config), request.project)]
        return said(self, request, context)

    Servicer.ConfigureStack = configure


def _things(args: StackValidationArgs) -> list[rules.Thing]:
    return [
        rules.Thing(
            type=one.resource_type,
            name=one.name,
            props=one.props,
            protect=bool(one.opts.protect),
        )
        for one in args.resources
        # What `--target` leaves out is shown without any property: it is not made.
        if one.props
    ]


def _policy(name: str, description: str, rule: rules.Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for complaint in rule(_things(args)):
            report(complaint)

    return StackValidationPolicy(name, description, validate, EnforcementLevel.MANDATORY)


def _price(args: StackValidationArgs, report: ReportViolation) -> None:
    config: dict[str, Any] = args.get_config()
    terms = TERMS[0] if TERMS else Terms()
    for complaint in rules.price_is_below(
        _things(args), terms.ceiling(config.get("usdMonth")), prices=terms.prices
    ):
        report(complaint)


_listen()
PolicyPack(
    "unetops",
    [
        _policy("firewall", "Every droplet has one.", rules.droplets_have_a_firewall),
        _policy("protected-data", "Every volume is protected.", rules.volumes_are_protected),
        _policy("ports", "22, 80 and 443 only.", rules.only_known_ports_are_open),
        _policy("ssh", "22 from given addresses.", rules.ssh_is_for_given_addresses),
        _policy("tags", "Droplets and volumes have the tag.", rules.tags_are_there),
        StackValidationPolicy(
            "price",
            "The monthly price stays below the ceiling.",
            _price,
            EnforcementLevel.MANDATORY,
            PolicyConfigSchema(properties={"usdMonth": {"type": "number"}}),
        ),
    ],
)
