import json
from pathlib import Path

import pytest

from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.rules.rules import Rules
from tests.drawn import write_dataset
from unet.errors import UnetError
from unet.planning.fingerprint import Fingerprint, fingerprint
from unet.planning.plan import make_plan
from unet.prediction.model_card import CARD, card_text, read_card_text, with_scores
from unet.prediction.model_files import ModelCard, read_card
from unet.runs.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = write_dataset(tmp_path_factory.mktemp("card") / "discs")
    plan = make_plan(fingerprint([dataset]), patches=4)
    plan = plan.model_copy(update={"widths": (4, 8), "batch": 2})
    return train([dataset], dataset.parent / "run", plan=plan)


def text_of(run: Path, **changes: object) -> str:
    """The card of the run, with changes to the facts of its data."""
    facts = json.loads((run / "fingerprint.json").read_text()) | changes
    record = json.loads((run / "run.json").read_text())
    return card_text(
        read_card(run / "model"), Fingerprint.model_validate(facts), run=read_artifact(run),
        record=record,
    )  # fmt: skip


def test_training_writes_a_card_with_data_scores_limits_and_lineage(run: Path) -> None:
    card = (run / "model" / CARD).read_text()
    dataset = json.loads((run / "manifest.json").read_text())["inputs"][0]["id"]
    for text in ("segments disc", f"`{dataset}` of drawn", "6 training, 2 validation, 2 test",
                 "not a medical device", "## Limits", "steps: longer training",
                 read_artifact(run).id, "| learning_rate |"):  # fmt: skip
        assert text in card, text
    assert card == text_of(run)
    assert altered_files(run / "model") == []


def test_the_card_has_intervals_of_the_scores(run: Path) -> None:
    scores = json.loads((run / "run.json").read_text())["scores"]
    assert 0 <= scores["val_dice_low"] <= scores["val_dice"] <= scores["val_dice_high"] <= 1
    shown = f"{scores['val_dice']:.3f} | {scores['val_dice_low']:.3f} to "
    assert shown in (run / "model" / CARD).read_text()


def test_the_card_is_not_part_of_the_models_id(run: Path) -> None:
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert CARD not in manifest["files"]
    assert CARD in (run / "model" / "files.sha256").read_text()


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"val": 0}, "no validation split"), ({"groups": 3}, "only 3 groups"),
     ({"class_share": (0.999, 0.001)}, "disc is rare (0.10 % of the pixels)")],
)  # fmt: skip
def test_the_card_lists_the_limits_of_the_model(run: Path, changes: dict, limit: str) -> None:
    assert limit in text_of(run, **changes)
    assert limit not in text_of(run, groups=50)


def test_rules_with_a_size_are_described(run: Path) -> None:
    card = read_card(run / "model")
    stretched = Rules(height=64, width=80, fit="stretch", color_model="grayscale")
    card = ModelCard.model_validate(
        card.model_dump(by_alias=True) | {"rules": stretched.model_dump(by_alias=True)}
    )
    facts = Fingerprint.model_validate_json((run / "fingerprint.json").read_text())
    text = card_text(card, facts, run=read_artifact(run), record={})
    assert "stretched to 64 x 80 px, read as grayscale" in text
    assert "in grey images" in text


DOCUMENT = {
    "split": "test", "n": 9, "groups": 4, "dice_mean": 0.91, "dice_pooled": 0.93,
    "object_f1_50": None, "ap_50_95": 0.4, "panoptic_quality": 0.5,
    "intervals": {"dice_mean": (0.85, 0.95), "dice_pooled": None, "object_f1_50": None,
                  "ap_50_95": (0.3, 0.5), "panoptic_quality": (0.4, 0.6)},
}  # fmt: skip


def test_scores_of_the_test_split_come_before_the_limits(run: Path) -> None:
    text = with_scores(read_card_text(run / "model"), DOCUMENT, "0" * 64)
    assert "9 images in 4 groups" in text
    assert "| 0.910 | 0.850 to 0.950 |" in text
    assert "| undefined | unknown |" in text
    assert text.index("## Scores on the test split") < text.index("## Limits")
    assert with_scores("# A card", DOCUMENT, "0" * 64).startswith("# A card\n\n## Scores on")


def test_a_model_without_a_card_is_an_error(run: Path) -> None:
    with pytest.raises(UnetError, match="no card"):
        read_card_text(run)
