"""HTML pages on top of the API's data."""

import http
import json
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role, find_token_by_secret
from app.ground.errors import NotFound, Unauthorized
from app.jobs import queue
from app.jobs.examinations import find_examination
from app.store import artifacts
from app.store.db import transaction
from app.web.pages import PAGE_HEADERS, login_page, render
from app.web.routes.rules import forms_of
from app.web.views import artifact_view, job_view
from dataset_rules.artifacts.dataset import Split, read_dataset
from dataset_rules.doctor.page import STYLE
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.paper_form import PAPER_KEYS
from dataset_rules.rules.rules import MAX_SIDE_PX, rules_from_mapping

router = APIRouter(include_in_schema=False, route_class=GuardedRoute)
PAPER_EXAMPLE = {
    "height": "512", "width": "512", "image_type": "2", "color_model": "1",
    "separate_file_format": "on", "description": "_mask",
}  # fmt: skip
MAX_SAMPLES_SHOWN = 60  # per page


@router.get("/")
def overview(request: Request, service: ServiceDep) -> Response:
    """Overview of the steps, with counts and recent jobs."""
    kinds = ("rules", "source", "dataset", "model", "prediction")
    with transaction(service.engine) as session:
        counts = {kind: len(artifacts.list_artifacts(session, kind)) for kind in kinds}
    recent = _jobs(service, limit=5)
    return render(request, service.sessions, "overview.html", counts=counts, jobs=recent)


@router.get("/rules")
def rules_page(request: Request, service: ServiceDep) -> Response:
    """The rules form and the stored rules."""
    return _rules_page(request, service, PAPER_EXAMPLE)


@router.post("/rules")
@requires_role(Role.ANNOTATOR)
async def store_rules(request: Request, service: ServiceDep) -> Response:
    """Store the rules from the form, whose fields are those of the short form."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    given = {name: value for name, value in form.items() if name in PAPER_KEYS and name != "_token"}
    try:
        rules = rules_from_mapping(given, where="form")
    except RulesError as error:
        return _rules_page(request, service, given, error=error)
    with transaction(service.engine) as session:
        row = artifacts.store_rules(service.settings, session, rules)
    return RedirectResponse(f"/rules/{row.id}", status_code=http.HTTPStatus.SEE_OTHER)


@router.get("/rules/{rules_id}")
def stored_rules_page(request: Request, service: ServiceDep, rules_id: str) -> Response:
    """Stored rules in both forms."""
    with transaction(service.engine) as session:
        forms = forms_of(artifacts.load_rules(service.settings, session, rules_id))
    return render(
        request, service.sessions, "stored_rules.html", id=rules_id, rules=_pretty(forms.rules),
        paper=_pretty(forms.paper) if forms.paper else None,
    )  # fmt: skip


@router.get("/datasets")
def datasets_page(request: Request, service: ServiceDep) -> Response:
    """Forms to upload, examine and format sources; lists of sources and datasets."""
    with transaction(service.engine) as session:
        sources, rules, datasets = (
            [artifact_view(row) for row in artifacts.list_artifacts(session, kind)]
            for kind in ("source", "rules", "dataset")
        )
    return render(
        request, service.sessions, "datasets.html", source_rows=sources, rules_rows=rules,
        dataset_rows=datasets,
    )  # fmt: skip


@router.get("/sources/{source_id}")
def source_page(
    request: Request, service: ServiceDep, source_id: str, job: str | None = None
) -> Response:  # fmt: skip
    """The doctor's report on a source by the given job, by default the newest."""
    with transaction(service.engine) as session:
        row = artifact_view(artifacts.find(session, source_id, kind="source"))
    try:
        report = find_examination(service, source_id, job).body(row.label)
    except NotFound:
        report = None
    return render(
        request, service.sessions, "source.html", row=row, report=report, job=job,
        style=STYLE.read_text(),
    )  # fmt: skip


@router.get("/sources/{source_id}/report.html")
def source_report(service: ServiceDep, source_id: str, job: str | None = None) -> Response:
    """The same report as a self-contained file."""
    with transaction(service.engine) as session:
        label = artifacts.find(session, source_id, kind="source").label
    page = find_examination(service, source_id, job).page(label)
    return Response(page, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)


@router.get("/datasets/{dataset_id}")
def dataset_page(request: Request, service: ServiceDep, dataset_id: str) -> Response:
    """The samples of a dataset and the training form."""
    with transaction(service.engine) as session:
        row = artifacts.find(session, dataset_id, kind="dataset")
        dataset = read_dataset(artifacts.artifact_path(service.settings, row))
    splits = [(split, len(dataset.of(split))) for split in Split]
    return render(
        request, service.sessions, "dataset.html", row=artifact_view(row), dataset=dataset,
        splits=splits, samples=dataset.samples[:MAX_SAMPLES_SHOWN],
    )  # fmt: skip


@router.get("/jobs")
def jobs_page(request: Request, service: ServiceDep) -> Response:
    """All jobs."""
    return render(request, service.sessions, "jobs.html", jobs=_jobs(service, limit=200))


@router.get("/jobs/{job_id}")
def job_page(request: Request, service: ServiceDep, job_id: str) -> Response:
    """One job, updated live."""
    with transaction(service.engine) as session:
        job = queue.find_job(session, job_id)
    view = job_view(job, queue.job_state(service.client, job_id))
    return render(request, service.sessions, "job.html", job=view)


@router.get("/predict")
def predict_page(request: Request, service: ServiceDep) -> Response:
    """Predict an image; earlier predictions."""
    with transaction(service.engine) as session:
        aliases = artifacts.model_aliases(session)
        models = [artifact_view(row) for row in artifacts.list_artifacts(session, "model")]
        made = artifacts.list_artifacts(session, "prediction", limit=12)
        recent = [artifact_view(row) for row in made if "mask" in row.facts]
    return render(
        request, service.sessions, "predict.html", models=models, aliases=aliases, recent=recent
    )


@router.get("/models")
def models_page(request: Request, service: ServiceDep) -> Response:
    """All models, with the production model marked."""
    with transaction(service.engine) as session:
        aliases = artifacts.model_aliases(session)
        rows = [artifact_view(row) for row in artifacts.list_artifacts(session, "model")]
    return render(request, service.sessions, "models.html", rows=rows, aliases=aliases)


@router.get("/reports")
def reports_page(request: Request, service: ServiceDep) -> Response:
    """All measurements, with links to their reports."""
    with transaction(service.engine) as session:
        rows = [artifact_view(row) for row in artifacts.list_artifacts(session, "measurements")]
    return render(request, service.sessions, "reports.html", rows=rows)


@router.post("/login")
@requires_role(Role.VIEWER)
def login(
    request: Request, service: ServiceDep, secret: Annotated[str, Form()] = "",
    target: Annotated[str, Form()] = "/",
) -> Response:  # fmt: skip
    """Verify a token and start a session."""
    token = find_token_by_secret(service.engine, secret.strip())
    if token is None:
        error = Unauthorized("this token is unknown or was revoked")
        return login_page(request, service.sessions, error, target=_local(target))
    response = RedirectResponse(_local(target), status_code=http.HTTPStatus.SEE_OTHER)
    service.sessions.start(request, response, token.id)
    return response


@router.post("/logout")
@requires_role(Role.VIEWER)
def logout(service: ServiceDep) -> Response:
    """End the session."""
    response = RedirectResponse("/", status_code=http.HTTPStatus.SEE_OTHER)
    service.sessions.end(response)
    return response


def _rules_page(
    request: Request, service: Service, values: dict[str, str], error: RulesError | None = None
) -> Response:
    with transaction(service.engine) as session:
        rows = [artifact_view(row) for row in artifacts.list_artifacts(session, "rules")]
    status = http.HTTPStatus.UNPROCESSABLE_ENTITY if error else http.HTTPStatus.OK
    return render(
        request, service.sessions, "rules.html", status=status, rows=rows, values=values,
        error=error, longest=MAX_SIDE_PX,
    )  # fmt: skip


def _jobs(service: Service, *, limit: int) -> list[Any]:
    with transaction(service.engine) as session:
        rows = queue.list_jobs(session, limit=limit)
    states = queue.job_states(service.client, (job.id for job in rows))
    return [job_view(job, states[job.id]) for job in rows]


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _local(target: str) -> str:
    """The path to redirect to; "/" if the target is on another site."""
    parts = urlsplit(target)
    is_local = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local and not parts.scheme and not parts.netloc else "/"
