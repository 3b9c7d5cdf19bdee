from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import DatasetClass, Split
from tests.drawn import write_dataset
from unet.errors import UnetError
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.runs.train import train
from unet.scoring.calibration import BINS, Reliability
from unet.scoring.compare import Comparison, compare
from unet.scoring.metrics import AP_THRESHOLDS, Counts, Panoptic
from unet.scoring.scores import ClassScores, ImageScores, Scores

CLASSES = (DatasetClass(id=0, name="background"), DatasetClass(id=1, name="disc"))
NO_BINS = Reliability((0,) * BINS, (0.0,) * BINS, (0,) * BINS)


def scores_of(hits: list[int]) -> Scores:
    """One image per group; `hits` of its 1000 true pixels, and of its 10 objects, were found."""
    images = []
    for index, tp in enumerate(hits):
        objects = (Counts(tp // 100, 0, 10 - tp // 100),) * len(AP_THRESHOLDS)
        found = ClassScores(Counts(tp, 0, 1000 - tp), objects, Panoptic(objects[0], 0.8), NO_BINS)
        images.append(ImageScores(f"i{index}", f"g{index}", found, (found,)))
    return Scores(Split.TEST, CLASSES, tuple(images))


def hits(rng: np.random.Generator) -> list[int]:
    return [int(n) for n in rng.integers(400, 900, 30)]


def test_a_small_consistent_gain_is_significant() -> None:
    first = hits(np.random.default_rng(0))
    comparison = Comparison(scores_of(first), scores_of([n + 20 for n in first]))
    dice = comparison.differences()["dice_mean"]
    assert dice.is_significant
    assert dice.interval[0] < dice.amount < dice.interval[1]
    assert ": significant, B is higher" in dice.sentence()
    assert "over 30 groups" in dice.sentence()
    assert (
        ": significant, A is higher"
        in Comparison(comparison.second, comparison.first).differences()["dice_mean"].sentence()
    )


def test_a_random_difference_is_not_significant() -> None:
    first, second = (hits(np.random.default_rng(seed)) for seed in (1, 2))
    document = Comparison(scores_of(first), scores_of(second)).document()
    assert not document["differences"]["dice_mean"]["told_apart"]
    assert ": not significant (" in document["sentences"][0]
    differences = [abs(image["difference"]) for image in document["images"]]
    assert differences == sorted(differences, reverse=True)


def test_a_model_does_not_differ_from_itself() -> None:
    scores = scores_of(hits(np.random.default_rng(0)))
    differences = Comparison(scores, scores).differences()
    assert {"dice_mean", "object_f1_50", "panoptic_quality"} <= differences.keys()
    for difference in differences.values():
        assert difference.amount == 0
        assert not difference.is_significant


def test_one_group_of_images_gives_no_significance() -> None:
    dice = Comparison(scores_of([500]), scores_of([900])).differences()["dice_mean"]
    assert dice.interval is None
    assert "not significant, one group" in dice.sentence()


def test_the_difference_is_undefined_without_objects() -> None:
    nothing = ClassScores(
        Counts(0, 0, 0), (Counts(0, 0, 0),) * 10, Panoptic(Counts(0, 0, 0), 0.0), NO_BINS
    )
    empty = Scores(Split.TEST, CLASSES, (ImageScores("a", "a", nothing, (nothing,)),))
    assert "undefined" in Comparison(empty, empty).differences()["dice_mean"].sentence()


def test_two_trained_models_are_compared_on_the_same_images(discs: Path, tmp_path: Path) -> None:
    plan = make_plan(fingerprint([discs]), patches=4).model_copy(
        update={"widths": (4, 8), "batch": 2}
    )
    runs = [train([discs], tmp_path / str(seed), plan=plan, seed=seed) for seed in (0, 1)]
    events: list[dict] = []
    comparison, ids = compare(*runs, discs, split=Split.VAL, on_event=events.append)
    assert [image.name for image in comparison.first.images] == ["val0", "val1"]
    assert [event["done"] for event in events] == [1, 2, 3, 4]
    assert len(set(ids)) == 2
    document = comparison.document()
    assert {"a", "b", "difference", "interval", "told_apart"} == document["differences"][
        "dice_mean"
    ].keys()
    with pytest.raises(UnetError, match="is empty"):
        compare(*runs, write_dataset(tmp_path / "untested", test=0))
