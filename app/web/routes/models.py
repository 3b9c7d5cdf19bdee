"""Models: list, look at, promote."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from app.access.route_roles import Guarded, needs
from app.access.service import Here
from app.access.tokens import Role
from app.store import artifacts
from app.store.db import transaction
from app.web.schemas import ModelView, Promoted
from app.web.views import artifact_fields

router = APIRouter(prefix="/models", tags=["models"], route_class=Guarded)


@router.get("")
def list_models(here: Here) -> list[ModelView]:
    """All models, newest first, with the aliases that point to them."""
    with transaction(here.engine) as session:
        aliases = artifacts.aliases_of(session)
        rows = artifacts.listed(session, "model")
        return [ModelView(**artifact_fields(row), aliases=aliases.get(row.id, [])) for row in rows]


@router.get("/{model_id}")
def read_model(here: Here, model_id: str) -> ModelView:
    """One model, by id or alias; a run stands for its model."""
    with transaction(here.engine) as session:
        row = artifacts.find_model(session, model_id)
        aliases = artifacts.aliases_of(session).get(row.id, [])
        return ModelView(**artifact_fields(row), aliases=aliases)


@router.get("/{model_id}/card", response_class=FileResponse)
def read_card(here: Here, model_id: str) -> FileResponse:
    """What the model was made of, how good it is, what it is for: Markdown, as plain text."""
    with transaction(here.engine) as session:
        row = artifacts.find_model(session, model_id)
        path = artifacts.inside(artifacts.place(here.settings, row), "CARD.md")
    headers = {"X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type="text/plain; charset=utf-8", headers=headers)


@router.post("/{model_id}/promote")
@needs(Role.ADMIN)
def promote_model(here: Here, model_id: str) -> Promoted:
    """Let `production` point to this model; predictions use it from now on."""
    with transaction(here.engine) as session:
        alias = artifacts.promote(session, model_id)
        return Promoted(alias=alias.name, model=alias.artifact_id)
