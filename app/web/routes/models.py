"""Models: list, read, promote."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import ServiceDep
from app.access.tokens import Role
from app.store import artifacts
from app.store.db import transaction
from app.web.schemas import ModelView, Promoted
from app.web.views import artifact_fields

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)


@router.get("")
def list_models(service: ServiceDep) -> list[ModelView]:
    """All models, newest first, with their aliases."""
    with transaction(service.engine) as session:
        aliases = artifacts.model_aliases(session)
        rows = artifacts.list_artifacts(session, "model")
        return [ModelView(**artifact_fields(row), aliases=aliases.get(row.id, [])) for row in rows]


@router.get("/{model_id}")
def read_model(service: ServiceDep, model_id: str) -> ModelView:
    """One model, by its id, an alias or the id of its run."""
    with transaction(service.engine) as session:
        row = artifacts.find_model(session, model_id)
        aliases = artifacts.model_aliases(session).get(row.id, [])
        return ModelView(**artifact_fields(row), aliases=aliases)


@router.get("/{model_id}/card", response_class=FileResponse)
def read_card(service: ServiceDep, model_id: str) -> FileResponse:
    """The model card (training data, scores, intended use): Markdown, as plain text."""
    with transaction(service.engine) as session:
        row = artifacts.find_model(session, model_id)
        path = artifacts.file_inside(artifacts.artifact_path(service.settings, row), "CARD.md")
    headers = {"X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type="text/plain; charset=utf-8", headers=headers)


@router.post("/{model_id}/promote")
@requires_role(Role.ADMIN)
def promote_model(service: ServiceDep, model_id: str) -> Promoted:
    """Point `production` to this model; predictions use it from now on."""
    with transaction(service.engine) as session:
        alias = artifacts.promote(session, model_id)
        return Promoted(alias=alias.name, model=alias.artifact_id)
