import re
from dataclasses import replace

import pytest
from starlette.routing import Mount

from app.access.tokens import Role, create_token, list_tokens, revoke_token
from app.ground.errors import AppError
from app.ground.locks import locked
from app.supervisor import serve
from app.web.main import create_app
from tests.app.conftest import PAPER, browsing

HTML = {"accept": "text/html"}


def bearer(token) -> dict:
    return {"authorization": f"Bearer {token.secret}"}


def every_route(app) -> list[tuple[str, str]]:
    """Method and address of every registered route, parameters filled in."""
    found = []
    for path, methods in _paths(app.routes):
        address = re.sub(r"{[^}]*}", "x", path)
        found += [(method, address) for method in methods]
    return found


def _paths(routes, prefix=""):
    for route in routes:
        if isinstance(route, Mount):
            yield f"{prefix}{route.path}/style.css", {"GET"}
        elif hasattr(route, "methods") and hasattr(route, "path"):
            yield prefix + route.path, route.methods
        else:  # FastAPI's included router
            yield from _paths(route.effective_route_contexts(), prefix)


def test_every_route_but_health_asks_once_a_token_exists(app, http, engine):
    create_token(engine, Role.VIEWER)
    routes = every_route(app)
    assert len(routes) > 40
    assert ("POST", "/api/v1/runs") in routes
    for method, address in routes:
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


def test_revoking_the_last_token_opens_nothing(http, engine):
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


@pytest.mark.parametrize(
    ("role", "rules", "runs"), [("viewer", 403, 403), ("annotator", 201, 403), ("admin", 201, 404)]
)
def test_roles(http, engine, role, rules, runs):
    headers = bearer(create_token(engine, Role(role)))
    assert http.get("/api/v1/models", headers=headers).status_code == 200
    assert http.post("/api/v1/rules", json=PAPER, headers=headers).status_code == rules
    body = {"dataset": "x", "time_limit_s": 10}
    assert http.post("/api/v1/runs", json=body, headers=headers).status_code == runs


def test_only_the_hash_of_a_token_is_stored(engine, settings):
    token = create_token(engine, Role.ADMIN, "laboratory")
    engine.dispose()
    stored = b"".join(path.read_bytes() for path in settings.home.glob("unetops.db*"))
    assert token.secret.encode() not in stored
    assert token.secret.removeprefix("unetops_").encode() not in stored
    assert [row.label for row in list_tokens(engine)] == ["laboratory"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.5", ""])
def test_open_mode_refuses_foreign_names(http, host):
    assert http.get("/api/v1/jobs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_open_mode_answers_to_names_of_this_machine(http, host):
    assert http.get("/api/v1/jobs", headers={"host": host}).status_code == 200


def test_open_mode_refuses_other_machines(app):
    with browsing(app, "10.1.2.3") as http:
        assert http.get("/api/v1/jobs").status_code == 401
        assert http.get("/healthz").status_code == 200


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


def test_open_mode_takes_its_own_pages(http):
    headers = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert http.post("/api/v1/rules", json=PAPER, headers=headers).status_code == 201


def proof_of(page: str) -> str:
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]


def log_in(http, token, target: str = "/"):
    page = http.get(target, headers=HTML)
    assert page.status_code == 401
    form = {"csrf_token": proof_of(page.text), "secret": token.secret, "target": target}
    return http.post("/login", data=form)


def test_login_gives_the_pages_a_session(http, engine):
    token = create_token(engine, Role.ADMIN)
    answer = log_in(http, token, "/jobs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert http.get("/jobs", headers=HTML).status_code == 200


def test_revoked_token_ends_its_sessions(http, engine):
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
    assert "not known" in answer.text
    assert 'name="target" value="/models"' in answer.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_login_leads_to_no_other_site(http, engine, target):
    token = create_token(engine, Role.ADMIN)
    form = {"csrf_token": proof_of(http.get("/", headers=HTML).text), "secret": token.secret}
    answer = http.post("/login", data={**form, "target": target})
    assert answer.headers["location"] == "/"


def test_session_alone_changes_nothing(http, engine):
    log_in(http, create_token(engine, Role.ADMIN))
    assert http.post("/api/v1/rules", json=PAPER).status_code == 403
    wrong = {"x-csrf-token": "forged"}
    assert http.post("/api/v1/rules", json=PAPER, headers=wrong).status_code == 403
    proof = re.search(r'csrf-token" content="([^"]+)"', http.get("/", headers=HTML).text)[1]
    right = {"x-csrf-token": proof}
    assert http.post("/api/v1/rules", json=PAPER, headers=right).status_code == 201
    foreign = {**right, "origin": "https://evil.example"}
    assert http.post("/api/v1/rules", json=PAPER, headers=foreign).status_code == 403


def test_proof_of_another_browser_is_worth_nothing(app, http, engine):
    token = create_token(engine, Role.ADMIN)
    log_in(http, token)
    with browsing(app) as other:
        proof = proof_of(other.get("/", headers=HTML).text)
    assert http.post("/rules", data={**PAPER, "csrf_token": proof}).status_code == 403


def test_forged_session_is_no_session(http, engine):
    create_token(engine, Role.ADMIN)
    http.cookies.set("unetops_session", "abc.def.ghi")
    assert http.get("/api/v1/jobs").status_code == 401


def test_secret_is_readable_by_its_owner_alone(http, settings):
    assert (settings.home / "secret").stat().st_mode & 0o777 == 0o600


def test_other_addresses_need_a_token(tmp_path):
    with pytest.raises(AppError, match="unetops token create --role admin"):
        serve("0.0.0.0", 0, tmp_path / "home")


def test_home_is_served_once(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with locked(home / "serve.lock", wait_s=0, busy=""), pytest.raises(AppError, match="already"):
        serve("127.0.0.1", 0, home)
