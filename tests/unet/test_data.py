from pathlib import Path

import numpy as np
import pytest

from dataset_rules.dataset import Split
from tests.drawn import write_dataset
from unet.data import Patches, split_samples
from unet.errors import UnetError
from unet.evaluate import evaluate
from unet.fingerprint import fingerprint
from unet.plan import Plan, make_plan

STILL = {"zoom_min": 1.0, "zoom_max": 1.0, "colour_jitter": 0.0}


def patches_of(dataset: Path, **changes) -> tuple[Patches, Plan]:
    plan = make_plan(fingerprint([dataset]), patches=64).model_copy(update={"batch": 3, **changes})
    return Patches(split_samples([dataset])[0], plan), plan


def test_a_step_draws_the_same_batch_whatever_was_drawn_before(discs: Path) -> None:
    one, other = patches_of(discs)[0], patches_of(discs)[0]
    for step in (0, 1, 2):
        one.batch(step)
    for name in ("image_BCHW", "mask_BHW", "distance_B1HW"):
        assert (getattr(one.batch(5), name) == getattr(other.batch(5), name)).all()
    assert (one.batch(5).image_BCHW != one.batch(6).image_BCHW).any()


def test_every_sample_is_drawn_once_an_epoch(discs: Path) -> None:
    patches, plan = patches_of(discs)
    drawn = [patches._index(step, i) for step in range(4) for i in range(plan.batch)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))


def test_image_mask_and_distance_are_turned_together(discs: Path) -> None:
    """Discs are brighter than their ground; they stay so wherever a patch puts them."""
    batch = patches_of(discs)[0].batch(0)
    inside = batch.mask_BHW == 1
    assert batch.image_BCHW.mean(1)[inside].mean() > batch.image_BCHW.mean(1)[~inside].mean() + 0.3
    assert (batch.distance_B1HW[:, 0][inside] > 0.05).float().mean() > 0.9
    assert batch.distance_B1HW[:, 0][~inside].mean() < 0.05


def test_a_distant_corner_is_filled_by_its_mirror_not_by_black(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "small", size=40)
    batch = patches_of(dataset, patch_px=64, **STILL)[0].batch(0)
    assert batch.image_BCHW.shape[-2:] == (64, 64)
    assert set(np.unique(batch.mask_BHW)) <= {0, 1}
    assert batch.image_BCHW.std() > 0.1


def test_facts_of_the_drawn_discs(discs: Path) -> None:
    facts = fingerprint([discs])
    assert (facts.train, facts.val, facts.test, facts.channels) == (6, 2, 2, 3)
    assert facts.height_px == facts.width_px == (64, 64, 64)
    assert 7 < facts.thickness_px[1] < 15
    assert 2 < facts.objects_per_image <= 5
    assert sum(facts.class_share) == pytest.approx(1, abs=1e-5)
    assert facts.has_instances


def test_a_dataset_without_training_samples_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=0)
    with pytest.raises(UnetError, match="no training samples"):
        fingerprint([dataset])


def test_an_empty_split_is_refused_and_says_what_is_there(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", test=0)
    with pytest.raises(UnetError, match="6 in train, 2 in val, 0 in test"):
        evaluate(tmp_path, dataset, Split.TEST)
