"""The policy pack of `pulumi preview --policy-pack infra/policy`."""

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


def _capture_config() -> None:
    """Keep the stack's configuration, which the engine sends and the SDK discards."""
    original = Servicer.ConfigureStack

    def configure(self: Servicer, request: Any, context: Any) -> Any:
        TERMS[:] = [Terms.of(dict(request.config), request.project)]
        return original(self, request, context)

    Servicer.ConfigureStack = configure


def _things(args: StackValidationArgs) -> list[rules.Thing]:
    return [
        rules.Thing(
            type=resource.resource_type,
            name=resource.name,
            props=resource.props,
            protect=bool(resource.opts.protect),
        )
        for resource in args.resources
        # Resources excluded by `--target` are shown without properties: they are not created.
        if resource.props
    ]


def _policy(name: str, description: str, rule: rules.Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for violation in rule(_things(args)):
            report(violation)

    return StackValidationPolicy(name, description, validate, EnforcementLevel.MANDATORY)


def _price(args: StackValidationArgs, report: ReportViolation) -> None:
    config: dict[str, Any] = args.get_config()
    terms = TERMS[0] if TERMS else Terms()
    for violation in rules.price_is_below(
        _things(args), terms.ceiling(config.get("usdMonth")), prices=terms.prices
    ):
        report(violation)


_capture_config()
PolicyPack(
    "unetops",
    [
        _policy("firewall", "Every droplet has a firewall.", rules.droplets_have_a_firewall),
        _policy("protected-data", "Every volume is protected.", rules.volumes_are_protected),
        _policy("ports", "22, 80 and 443 only.", rules.only_known_ports_are_open),
        _policy(
            "ssh", "Port 22 is open to narrow networks only.", rules.ssh_is_for_given_addresses
        ),
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
