from pathlib import Path

from app.store.intake import import_artifacts


def test_the_card_of_a_model_is_read_and_linked(http, settings, run: Path) -> None:
    import_artifacts(settings.home, [run])
    answer = http.get("/api/v1/models/production/card")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == (run / "model" / "CARD.md").read_text()
    assert f'href="/api/v1/models/{http.get("/api/v1/models").json()[0]["id"]}/card"' in (
        http.get("/models").text
    )
    absent = http.get("/api/v1/models/nothing/card")
    assert (absent.status_code, absent.json()["what"]) == (404, "no such artifact")
