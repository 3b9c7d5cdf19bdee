from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import Split
from tests.drawn import draw_discs
from unet.measurement.overlays import NEGATIVE_RGB, POSITIVE_RGB
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.prediction.predictor import Predictor
from unet.runs.train import train
from unet.scoring.evaluate import evaluate
from unet.scoring.page import draw_example, write_scores_page


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


def test_missed_objects_are_red_in_the_truth_and_extra_ones_in_the_prediction() -> None:
    image, truth = draw_discs(np.random.default_rng(0), count=2)
    truth = truth.astype(np.int32)
    right = draw_example("a", image, truth, found=truth)
    for picture in (right.truth, right.found):
        assert has(picture, NEGATIVE_RGB)
        assert not has(picture, POSITIVE_RGB)
    missed = draw_example("a", image, truth, found=np.where(truth == 1, 7, 0).astype(np.int32))
    assert has(missed.truth, POSITIVE_RGB)
    assert not has(missed.found, POSITIVE_RGB)
    extra = draw_example("a", image, np.where(truth == 1, 1, 0).astype(np.int32), found=truth)
    assert not has(extra.truth, POSITIVE_RGB)
    assert has(extra.found, POSITIVE_RGB)


@pytest.mark.parametrize("kind", ["grey", "deep"])
def test_grey_and_16_bit_images_are_shown_as_8_bit_rgb(kind: str) -> None:
    image, truth = draw_discs(np.random.default_rng(0))
    pixels = image[..., 0] if kind == "grey" else image[..., 0].astype(np.uint16) * 200
    shown = draw_example("a", pixels, truth.astype(np.int32), found=truth.astype(np.int32)).image
    assert shown.dtype == np.uint8
    assert shown.shape == (256, 256, 3)
    assert np.ptp(shown) > 100


def test_the_page_has_scores_intervals_diagram_and_pictures_and_is_self_contained(
    discs: Path, tmp_path: Path
) -> None:
    plan = make_plan(fingerprint([discs]), patches=8).model_copy(
        update={"widths": (4, 8), "batch": 2}
    )
    predictor = Predictor(train([discs], tmp_path / "run", plan=plan))
    scores = evaluate(predictor.folder, discs, Split.VAL, predictor=predictor)
    path = tmp_path / "new folder" / "scores.html"
    write_scores_page(path, scores, discs, predictor=predictor)
    page = path.read_text()
    assert page.count("data:image/jpeg;base64,") == 3 * 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<svg" in page
    document = scores.document()
    assert page.count("<circle") == len(document["calibration"]["bins"]) > 0
    assert f"<dt>Dice</dt><dd>{document['dice_mean']:.3f}</dd>" in page
    for text in ("Panoptic quality", "95 %", "Few groups", "val0", "val1", predictor.artifact.id):
        assert text in page
