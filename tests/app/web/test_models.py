from pathlib import Path

import pytest

from app.store.intake import adopt
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.runs.train import train


@pytest.fixture
def run(discs: Path, tmp_path: Path) -> Path:
    plan = make_plan(fingerprint([discs]), patches=4)
    plan = plan.model_copy(update={"widths": (4, 8), "batch": 2})
    return train([discs], tmp_path / "run", plan=plan)


def test_the_card_of_a_model_is_read_and_linked(http, settings, run: Path) -> None:
    adopt(settings.home, [run])
    answer = http.get("/api/v1/models/production/card")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == (run / "model" / "CARD.md").read_text()
    assert f'href="/api/v1/models/{http.get("/api/v1/models").json()[0]["id"]}/card"' in (
        http.get("/models").text
    )
    assert http.get("/api/v1/models/nothing/card").status_code == 404
