from tests.app.conftest import PAPER


def test_rules_in_the_short_form_return_the_canonical_document(http):
    answer = http.post("/api/v1/rules", json=PAPER)
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/rules/{body['id']}"
    assert (body["kind"], body["status"], body["job"]) == ("rules", "succeeded", None)
    assert (body["rules"]["height"], body["rules"]["width"]) == (48, 32)
    assert http.get(body["links"]["self"]).json() == body["rules"]


def test_both_forms_of_the_same_rules_have_one_id(http):
    first = http.post("/api/v1/rules", json=PAPER).json()
    assert http.post("/api/v1/rules", json=first["rules"]).json()["id"] == first["id"]


def test_the_short_form_is_returned_without_its_token(http):
    made = http.post("/api/v1/rules", json=PAPER).json()
    paper = http.get(f"/api/v1/rules/{made['id']}", params={"form": "paper"}).json()
    assert paper == {name: value for name, value in PAPER.items() if name != "_token"}


def test_convert_stores_nothing(http):
    made = http.post("/api/v1/rules/convert", json=PAPER).json()
    assert made["rules"]["width"] == 32
    assert http.get(f"/api/v1/rules/{made['id']}").status_code == 404


def test_schema_is_published(http):
    assert "mask_keyword" in http.get("/api/v1/rules/schema").json()["properties"]


def test_rules_beyond_the_short_form_are_refused_in_it(http):
    made = http.post("/api/v1/rules", json={"version": 2}).json()
    answer = http.get(f"/api/v1/rules/{made['id']}", params={"form": "paper"})
    assert answer.status_code == 422
    assert "stretch" in answer.json()["expected"]
