from collections.abc import Sequence

import pytest

from tests.unet.planning.test_plan import NUCLEI
from unet.objects.splitting import Seeds
from unet.runs.threshold_choice import Evidence, choose_settings
from unet.training.validation import FOREGROUNDS, SEEDS


def fold(gains: dict[float, float], *, images: int = 4, best: int = 0) -> Evidence:
    """A fold whose images have a Dice of 0.7 at each level, plus `gains` at some."""
    dice = tuple(images * (0.7 + gains.get(level, 0.0)) for level in FOREGROUNDS)
    objects = tuple((8 if index == best else 2, 1, 1) for index in range(len(SEEDS)))
    return Evidence(images=images, dice=dice, objects=objects, pixels=1, seconds=0.0)


@pytest.mark.parametrize(
    ("folds", "level"),
    [
        ([fold({0.6: 0.02}), fold({0.6: 0.03}), fold({0.6: 0.025})], 0.6),
        ([fold({0.8: 0.03}), fold({0.8: 0.001}), fold({0.8: -0.001})], 0.5),
        ([fold({0.3: 0.01})], 0.3),
        ([fold({}), fold({})], 0.5),
        ([fold({}, images=0)], 0.5),
        ([fold({0.6: 0.02}, images=9), fold({0.6: -0.03}, images=1)], 0.5),
    ],
    ids=["all agree", "one alone", "a single fold", "no gain", "no image", "they disagree"],
)
def test_the_level_changes_only_if_the_folds_agree(folds: Sequence[Evidence], level: float) -> None:
    assert choose_settings(folds, NUCLEI).foreground == level


def test_the_seeds_have_the_best_object_f1_over_all_folds() -> None:
    settings = choose_settings([fold({}, best=0), fold({}, best=9), fold({}, best=9)], NUCLEI)
    assert (settings.seeds, settings.level) == SEEDS[9]
    assert settings.seeds is Seeds.SHAPE
