"""Rules: store, read, convert; JSON Schema."""

from typing import Any, Literal

from fastapi import APIRouter, Response

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import ServiceDep
from app.access.tokens import Role
from app.store import artifacts
from app.store.db import transaction
from app.web.schemas import RulesForms, RulesMade
from app.web.uploads import SmallBody
from app.web.views import artifact_response
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import Rules, parse_rules, rules_document, rules_id, to_paper

router = APIRouter(prefix="/rules", tags=["rules"], route_class=GuardedRoute)
EITHER_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "rules in the full form (version 2) or the short form",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post("", status_code=201, openapi_extra=EITHER_FORM)
@requires_role(Role.ANNOTATOR)
def create_rules(service: ServiceDep, body: SmallBody, response: Response) -> RulesMade:
    """Store rules given in either form; returns the canonical document."""
    rules = parse_rules(body)
    with transaction(service.engine) as session:
        row = artifacts.store_rules(service.settings, session, rules)
    return RulesMade(**artifact_response(row, response), rules=rules_document(rules))


@router.post("/convert", openapi_extra=EITHER_FORM)
@requires_role(Role.VIEWER)
def convert_rules(body: SmallBody) -> RulesForms:
    """Validate rules and return them in both forms; nothing is stored."""
    return forms_of(parse_rules(body))


@router.get("/schema")
def rules_schema() -> dict[str, Any]:
    """JSON Schema of the rules document, version 2."""
    return Rules.model_json_schema(by_alias=True)


@router.get("/{rules_id}")
def read_rules(
    service: ServiceDep, rules_id: str, form: Literal["2", "paper"] = "2"
) -> dict[str, Any]:
    """The canonical document, or with `form=paper` the short form."""
    with transaction(service.engine) as session:
        rules = artifacts.load_rules(service.settings, session, rules_id)
    return dict(to_paper(rules)) if form == "paper" else rules_document(rules)


def forms_of(rules: Rules) -> RulesForms:
    """Rules in both forms."""
    try:
        paper = to_paper(rules)
    except RulesError:
        paper = None
    return RulesForms(id=rules_id(rules), rules=rules_document(rules), paper=paper)
