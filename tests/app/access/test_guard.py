import re
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount

from app.access.bodies import SMALL_BODY_BYTES
from app.access.route_roles import GuardedRoute, include_router
from app.access.tokens import Role, create_token, list_tokens, revoke_token
from app.ground.errors import AppError
from app.ground.locks import locked
from app.supervisor import serve
from app.web.main import create_app
from tests.app.conftest import PAPER, browsing, drawn_zip

HTML = {"accept": "text/html"}
JSON = {"content-type": "application/json"}
OPENAPI = "/api/v1/openapi.json"
SERVICE_MD = Path(__file__).resolve().parents[3] / "docs" / "service.md"


def bearer(token) -> dict:
    return {"authorization": f"Bearer {token.secret}"}


def every_route(app) -> list[tuple[str, str]]:
    """Method and path of every registered route."""
    return [(method, path) for path, methods in _paths(app.routes) for method in methods]


def filled(path: str) -> str:
    """The route's path with ids that do not exist."""
    return re.sub(r"{[^}]*}", "x", path)


def _paths(routes, prefix=""):
    for route in routes:
        if isinstance(route, Mount):
            yield f"{prefix}{route.path}/style.css", {"GET"}
        elif hasattr(route, "methods") and hasattr(route, "path"):
            yield prefix + route.path, route.methods
        else:  # FastAPI's included router
            yield from _paths(route.effective_route_contexts(), prefix)


def test_all_routes_of_the_api_and_the_pages_are_tested(app):
    routes = set(every_route(app))
    described = {
        (method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item
    }
    assert described < routes
    pages = {path for _, path in routes - described}
    assert {"/", "/rules", "/login", "/logout", "/static/style.css"} < pages
    assert len(described) > 25


def test_every_route_except_health_requires_a_token_once_one_exists(app, http, engine):
    create_token(engine, Role.VIEWER)
    for method, path in every_route(app):
        address = filled(path)
        answer = http.request(method, address)
        if address == "/healthz":
            assert answer.status_code == 200
        elif address == "/readyz":
            assert answer.status_code == 503, "this machine asks; no worker runs"
        elif (method, address) == ("POST", "/login"):
            assert answer.status_code == 403, "a form that is not ours"
        else:
            assert answer.status_code == 401, (method, address)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"


def test_open_until_the_first_token(http, engine):
    assert http.get("/api/v1/jobs").status_code == 200
    token = create_token(engine, Role.ADMIN)
    assert http.get("/api/v1/jobs").status_code == 401
    assert http.get("/api/v1/jobs", headers=bearer(token)).status_code == 200


def test_revoking_the_last_token_does_not_reopen_the_service(http, engine):
    token = create_token(engine, Role.ADMIN)
    revoke_token(engine, token.id)
    assert http.get("/api/v1/jobs").status_code == 401
    assert http.get("/api/v1/jobs", headers=bearer(token)).status_code == 401


def test_required_authentication_never_starts_open(settings):
    with browsing(create_app(replace(settings, require_auth=True))) as http:
        answer = http.get("/api/v1/jobs")
        assert answer.status_code == 401
        assert "unetops token create --role admin" in answer.json()["remedy"]
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("header", ["Bearer nonsense", "Basic YTpi", "Bearer", ""])
def test_wrong_tokens_are_refused(http, engine, header):
    create_token(engine, Role.ADMIN)
    assert http.get("/api/v1/jobs", headers={"authorization": header}).status_code == 401


# The actions in the documentation's table -> routes; all other routes only read.
ACTIONS = {
    "convert rules": {("POST", "/api/v1/rules/convert")},
    "log out": {("POST", "/logout")},
    "store rules and sources": {
        ("POST", "/api/v1/rules"), ("POST", "/rules"), ("POST", "/api/v1/sources"),
    },
    "examine sources": {("POST", "/api/v1/sources/{source_id}/doctor")},
    "format datasets": {("POST", "/api/v1/datasets")},
    "predict": {("POST", "/api/v1/predictions")},
    "train": {("POST", "/api/v1/runs")},
    "promote models": {("POST", "/api/v1/models/{model_id}/promote")},
    "cancel jobs": {("POST", "/api/v1/jobs/{job_id}/cancel")},
}  # fmt: skip
LOGIN = ("POST", "/login")  # needs no role


def documented_roles(app) -> dict[tuple[str, str], Role]:
    """The minimum role of every route, by the table in docs/service.md."""
    table = re.findall(r"^\| (viewer|annotator|admin) \| (.+) \|$", SERVICE_MD.read_text(), re.M)
    actions = {
        action: Role(role) for role, words in table
        for action in re.sub("^(everything: )?also ", "", words).split(", ")
    }  # fmt: skip
    assert actions.pop("read everything") is Role.VIEWER
    assert actions.keys() == ACTIONS.keys()
    minimum = {route: actions[action] for action, routes in ACTIONS.items() for route in routes}
    return {
        route: minimum.pop(route) if route[0] not in {"GET", "HEAD"} else Role.VIEWER
        for route in every_route(app) if route != LOGIN
    }  # fmt: skip


@pytest.mark.parametrize("role", Role)
def test_permissions_of_every_role_match_the_documentation(app, http, engine, role):
    headers = bearer(create_token(engine, role))
    for (method, path), least in documented_roles(app).items():
        answer = http.request(method, filled(path), headers=headers)
        if role.includes(least):
            assert answer.status_code not in {401, 403, 405}, (method, path)
            assert answer.status_code != 404 or answer.json()["what"] != "Not Found", path
        else:
            assert answer.status_code == 403, (method, path)
            assert answer.json()["expected"] == f"role {least}"
            assert answer.json()["found"] == f"role {role}"


def test_roles_permit_their_actions(http, engine):
    annotator, admin = (bearer(create_token(engine, role)) for role in list(Role)[1:])
    rules = http.post("/api/v1/rules", json=PAPER, headers=annotator)
    assert rules.status_code == 201
    files = {"file": ("set.zip", drawn_zip())}
    source = http.post("/api/v1/sources", files=files, headers=annotator)
    assert source.status_code == 201
    body = {"source": source.json()["id"], "rules": rules.json()["id"]}
    dataset = http.post("/api/v1/datasets", json=body, headers=annotator)
    assert dataset.status_code == 202
    cancel = dataset.json()["links"]["cancel"]
    assert http.post(cancel, headers=annotator).status_code == 403
    assert http.post(cancel, headers=admin).status_code == 200


def test_a_session_has_the_role_of_its_token(http, engine):
    log_in(http, create_token(engine, Role.VIEWER))
    form = {**PAPER, "csrf_token": proof_of(http.get("/rules", headers=HTML).text)}
    answer = http.post("/rules", data=form)
    assert answer.status_code == 403
    assert answer.json()["expected"] == "role annotator"


def test_a_route_that_writes_must_declare_its_role():
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(ValueError, match="declare `requires_role"):
        router.add_api_route("/open", lambda: None, methods=["POST"])


def test_a_router_without_guarded_routes_is_refused():
    router = APIRouter()
    router.add_api_route("/open", lambda: None, methods=["POST"])
    with pytest.raises(ValueError, match="route_class=Guarded"):
        include_router(FastAPI(), router)


class Body:
    """A body of any size that counts how much of it was read."""

    def __init__(self, size_bytes: int, head: bytes = b"") -> None:
        self.size_bytes = size_bytes
        self.head = head
        self.taken_bytes = 0

    async def __aiter__(self):
        block = self.head or bytes(1 << 16)
        while self.taken_bytes < self.size_bytes:
            self.taken_bytes += len(block)
            yield block
            block = bytes(1 << 16)


FORM = {"content-type": "multipart/form-data; boundary=b"}
FILE_FIELDS = {"/api/v1/sources": "file", "/api/v1/predictions": "image"}
MAX_BYTES = 2 << 20  # size limit in the tests below of a file with its form


@pytest.fixture
def strict(settings):
    settings = replace(settings, max_upload_bytes=1 << 20, max_image_bytes=1 << 20)
    return create_app(settings)


@pytest.mark.parametrize("is_stated", [True, False], ids=["Content-Length", "chunked"])
def test_every_route_refuses_too_large_bodies(strict, engine, is_stated):
    headers = bearer(create_token(engine, Role.ADMIN))
    routes = [route for route in every_route(strict) if not is_outside_the_router(route[1])]
    assert set(documented_roles(strict)) - set(routes) == {
        ("GET", "/static/style.css"), ("GET", OPENAPI), ("HEAD", OPENAPI),
    }  # fmt: skip
    with browsing(strict) as http:
        for method, path in routes:
            field = FILE_FIELDS.get(path) if method == "POST" else None
            body, kind = Body(16 << 20, head_of(field)), FORM if field else JSON
            stated = {"content-length": str(body.size_bytes)} if is_stated else {}
            answer = http.request(
                method, filled(path), content=body, headers={**headers, **kind, **stated}
            )
            assert answer.status_code == 413, (method, path)
            bound = MAX_BYTES if field else SMALL_BODY_BYTES
            assert answer.json()["expected"] == f"at most {bound} bytes"
            assert body.taken_bytes <= (0 if is_stated else bound + (1 << 16) + len(body.head))


def is_outside_the_router(path: str) -> bool:
    """Routes of Starlette itself, which ignore the body."""
    return path in {"/static/style.css", OPENAPI}


def head_of(field: str | None) -> bytes:
    """The start of a form with a file."""
    line = f'--b\r\ncontent-disposition: form-data; name="{field}"; filename="a.zip"\r\n\r\n'
    return line.encode() if field else b""


def test_token_and_role_are_checked_before_the_body_is_read(app, http, engine):
    viewer = bearer(create_token(engine, Role.VIEWER))
    beyond = {route for route, least in documented_roles(app).items() if least != Role.VIEWER}
    assert len(beyond) == 9
    for method, path in beyond:
        for headers, status in ((viewer, 403), ({}, 401)):
            body = Body(16 << 20)
            answer = http.request(method, filled(path), content=body, headers={**headers, **JSON})
            assert (answer.status_code, body.taken_bytes) == (status, 0), (method, path)


@pytest.mark.parametrize(
    "beside",
    [
        [("a" * 3_000, "b" * 63_000)],
        [("model", "x" * 10_000)] * 7,
        [("model", "x")] * 17,
    ],
    ids=["one", "together", "number"],
)
@pytest.mark.parametrize(("path", "field"), FILE_FIELDS.items())
def test_form_fields_are_limited_in_total(http, settings, path, field, beside):
    part = '--b\r\ncontent-disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    form = "".join(part.format(*one) for one in beside).encode() + head_of(field)
    answer = http.post(path, content=form + b"x\r\n--b--\r\n", headers=FORM)
    assert answer.status_code == 413, answer.text
    assert answer.json()["expected"] in {"at most 65536 bytes", "at most 16"}
    assert list(settings.uploads.iterdir()) == []


def test_only_the_hash_of_a_token_is_stored(engine, settings):
    token = create_token(engine, Role.ADMIN, "laboratory")
    engine.dispose()
    stored = b"".join(path.read_bytes() for path in settings.home.glob("unetops.db*"))
    assert token.secret.encode() not in stored
    assert token.secret.removeprefix("unetops_").encode() not in stored
    assert [row.label for row in list_tokens(engine)] == ["laboratory"]


def test_token_labels_are_limited_in_bytes(engine):
    assert create_token(engine, Role.VIEWER, "\u6838" * 66)
    with pytest.raises(AppError, match="at most 200 bytes in UTF-8; found 201 bytes"):
        create_token(engine, Role.VIEWER, "\u6838" * 67)
    assert len(list_tokens(engine)) == 1


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.5", ""])
def test_open_mode_refuses_foreign_host_names(http, host):
    assert http.get("/api/v1/jobs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_open_mode_accepts_host_names_of_this_machine(http, host):
    assert http.get("/api/v1/jobs", headers={"host": host}).status_code == 200


def test_open_mode_refuses_other_machines(app):
    with browsing(app, "10.1.2.3") as http:
        assert http.get("/api/v1/jobs").status_code == 401
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded", "via"],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_open_mode_refuses_proxied_requests(http, engine, header, value):
    answer = http.get("/api/v1/jobs", headers={header: value})
    assert answer.status_code == 401
    assert answer.json()["found"] == f"{header}, which a proxy adds"
    assert http.get("/readyz", headers={header: value}).status_code == 401
    token = create_token(engine, Role.VIEWER)
    assert http.get("/api/v1/jobs", headers={header: value, **bearer(token)}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_open_mode_refuses_other_sites(http, headers):
    assert http.post("/api/v1/rules", json=PAPER, headers=headers).status_code == 403


def test_open_mode_accepts_its_own_pages(http):
    headers = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert http.post("/api/v1/rules", json=PAPER, headers=headers).status_code == 201


def proof_of(page: str) -> str:
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]


def log_in(http, token, target: str = "/"):
    page = http.get(target, headers=HTML)
    assert page.status_code == 401
    form = {"csrf_token": proof_of(page.text), "secret": token.secret, "target": target}
    return http.post("/login", data=form)


def test_login_starts_a_session(http, engine):
    token = create_token(engine, Role.ADMIN)
    answer = log_in(http, token, "/jobs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert http.get("/jobs", headers=HTML).status_code == 200


def test_revoking_a_token_ends_its_sessions(http, engine):
    token = create_token(engine, Role.ADMIN)
    log_in(http, token)
    assert http.get("/api/v1/jobs").status_code == 200
    revoke_token(engine, token.id)
    assert http.get("/api/v1/jobs").status_code == 401


def test_logout_ends_the_session(http, engine):
    log_in(http, create_token(engine, Role.ADMIN))
    proof = proof_of(http.get("/", headers=HTML).text)
    assert http.post("/logout", data={"csrf_token": proof}).status_code == 303
    assert http.get("/api/v1/jobs").status_code == 401


def test_wrong_token_shows_the_form_again(http, engine):
    token = create_token(engine, Role.ADMIN)
    answer = log_in(http, replace(token, secret="unetops_wrong"), "/models")
    assert answer.status_code == 401
    assert "unknown or was revoked" in answer.text
    assert 'name="target" value="/models"' in answer.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_login_never_redirects_to_another_site(http, engine, target):
    token = create_token(engine, Role.ADMIN)
    form = {"csrf_token": proof_of(http.get("/", headers=HTML).text), "secret": token.secret}
    answer = http.post("/login", data={**form, "target": target})
    assert answer.headers["location"] == "/"


def test_writes_require_a_csrf_token_besides_the_session(http, engine):
    log_in(http, create_token(engine, Role.ADMIN))
    assert http.post("/api/v1/rules", json=PAPER).status_code == 403
    wrong = {"x-csrf-token": "forged"}
    assert http.post("/api/v1/rules", json=PAPER, headers=wrong).status_code == 403
    proof = re.search(r'csrf-token" content="([^"]+)"', http.get("/", headers=HTML).text)[1]
    right = {"x-csrf-token": proof}
    assert http.post("/api/v1/rules", json=PAPER, headers=right).status_code == 201
    foreign = {**right, "origin": "https://evil.example"}
    assert http.post("/api/v1/rules", json=PAPER, headers=foreign).status_code == 403


def test_csrf_tokens_of_another_browser_are_refused(app, http, engine):
    token = create_token(engine, Role.ADMIN)
    log_in(http, token)
    with browsing(app) as other:
        proof = proof_of(other.get("/", headers=HTML).text)
    assert http.post("/rules", data={**PAPER, "csrf_token": proof}).status_code == 403


def test_forged_sessions_are_refused(http, engine):
    create_token(engine, Role.ADMIN)
    http.cookies.set("unetops_session", "abc.def.ghi")
    assert http.get("/api/v1/jobs").status_code == 401


def test_the_secret_is_readable_only_by_its_owner(http, settings):
    assert (settings.home / "secret").stat().st_mode & 0o777 == 0o600


def test_listening_on_other_addresses_requires_a_token(tmp_path):
    with pytest.raises(AppError, match="unetops token create --role admin"):
        serve("0.0.0.0", 0, tmp_path / "home")


def test_a_data_directory_is_served_once(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with locked(home / "serve.lock", wait_s=0, busy=""), pytest.raises(AppError, match="already"):
        serve("127.0.0.1", 0, home)
