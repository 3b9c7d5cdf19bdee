import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataset_rules.artifacts.dataset import DatasetClass, Split, read_dataset
from dataset_rules.pixels.images import encode
from tests.drawn import write_dataset
from unet.errors import UnetError
from unet.planning.fingerprint import fingerprint, refuse_unseen_classes
from unet.planning.lr_schedule import Shrink
from unet.planning.plan import Plan, make_plan
from unet.planning.sample_statistics import nearest_distances
from unet.scoring.evaluate import evaluate
from unet.training.patches import Patches, prepare, split_samples

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


def test_shares_of_a_batch_put_together_are_the_batch(discs: Path) -> None:
    patches, plan = patches_of(discs)
    whole = patches.batch(4)
    parts = [patches.batch(4, range(0, 1)), patches.batch(4, range(1, plan.batch))]
    for name in ("image_BCHW", "mask_BHW", "distance_B1HW"):
        assert (torch.cat([getattr(part, name) for part in parts]) == getattr(whole, name)).all()


def test_a_shrunk_batch_is_drawn_from_its_step_on(discs: Path) -> None:
    patches, plan = patches_of(discs, batch=4)
    patches.plan = plan.model_copy(update={"shrinks": (Shrink(step=3, batch=2, patch_px=32),)})
    assert patches.batch(2).mask_BHW.shape == (4, 64, 64)
    assert patches.batch(3).mask_BHW.shape == (2, 32, 32)


def test_uncached_samples_are_read_again_bit_identically(discs: Path) -> None:
    """Files that change between two batches show which of the two reads them again."""
    kept, plan = patches_of(discs)
    unkept = Patches(split_samples([discs])[0], plan, cache_bytes=0)
    before = kept.batch(1).image_BCHW
    assert (unkept.batch(1).image_BCHW == before).all()
    assert (unkept.batch(1).image_BCHW == before).all()
    for path in (discs / "train" / "images").glob("*.png"):
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    assert (kept.batch(1).image_BCHW == before).all()
    assert (unkept.batch(1).image_BCHW != before).any()


def test_stain_jitter_applies_only_to_stained_images_on_bright_background(discs: Path) -> None:
    """The discs are on a dark background; inverted, on a bright one."""
    batches = [patches_of(discs, stain_jitter=s)[0].batch(0).image_BCHW for s in (0.0, 0.5)]
    assert (batches[0] == batches[1]).all()
    for path in (discs / "train" / "images").glob("*.png"):
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    batches = [patches_of(discs, stain_jitter=s)[0].batch(0).image_BCHW for s in (0.0, 0.5)]
    assert (batches[0] - batches[1]).abs().mean() > 0.01


def test_every_sample_is_drawn_once_per_epoch(discs: Path) -> None:
    patches, plan = patches_of(discs)
    drawn = [patches._index(step, i) for step in range(4) for i in range(plan.batch)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))


def test_image_mask_and_distance_are_transformed_together(discs: Path) -> None:
    """Discs are brighter than their background, in every patch."""
    batch = patches_of(discs)[0].batch(0)
    inside = batch.mask_BHW == 1
    assert batch.image_BCHW.mean(1)[inside].mean() > batch.image_BCHW.mean(1)[~inside].mean() + 0.3
    assert (batch.distance_B1HW[:, 0][inside] > 0.05).float().mean() > 0.9
    assert batch.distance_B1HW[:, 0][~inside].mean() < 0.05


def test_patches_beyond_the_image_are_padded_by_reflection(tmp_path: Path) -> None:
    """Patches turned by quarters, about half of all, are the reflected sample without a change."""
    dataset = write_dataset(tmp_path / "small", size=40)
    patches, _ = patches_of(dataset, patch_px=64, **STILL)
    masks = [prepare(*sample, patches.plan).mask for sample in patches.samples]
    reflected = [np.pad(mask, 12, mode="reflect") for mask in masks]
    turned = [np.rot90(way, n) for mask in reflected for way in (mask, mask.T) for n in range(4)]
    drawn = [mask for step in range(4) for mask in patches.batch(step).mask_BHW.numpy()]
    straight = [mask for mask in drawn if any((mask == way).all() for way in turned)]
    assert len(straight) >= len(drawn) // 3


def test_facts_of_the_drawn_discs(discs: Path) -> None:
    facts = fingerprint([discs])
    assert (facts.train, facts.val, facts.test, facts.channels) == (6, 2, 2, 3)
    assert facts.height_px == facts.width_px == (64, 64, 64)
    assert 7 < facts.thickness_px[1] < 15
    assert 2 < facts.objects_per_image <= 5
    assert sum(facts.class_share) == pytest.approx(1, abs=1e-5)
    assert facts.has_instances
    assert facts.groups == 6
    assert facts.bright_share == 0
    assert 50 < facts.area_px[1] < 180
    assert 5 < facts.apart_px[1] < 40


def test_a_class_missing_from_the_training_masks_is_refused(discs: Path) -> None:
    document = json.loads((discs / "dataset.json").read_text())
    document["classes"].append({"id": 2, "name": "stroma"})
    (discs / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(
        UnetError, match="no pixels in the training split; found none of class 2 st"
    ):
        fingerprint([discs])


def test_masks_without_any_object_are_refused(discs: Path) -> None:
    for path in (discs / "train" / "masks").glob("*.png"):
        path.write_bytes(encode(np.zeros((64, 64), np.uint8), ".png"))
    with pytest.raises(UnetError, match="all background"):
        fingerprint([discs])


def test_a_rare_class_outside_the_sampled_masks_is_not_missing(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=3)
    samples = split_samples([dataset])[0]
    unseen = np.zeros(256, np.int64)
    classes = read_dataset(dataset).classes
    refuse_unseen_classes(classes, unseen, samples)  # reads all masks
    absent = DatasetClass(id=2, name="stroma")
    with pytest.raises(UnetError, match="found none of class 2 stroma; "):
        refuse_unseen_classes((*classes, absent), unseen, samples)


def test_distances_to_the_nearest_centre() -> None:
    centres = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 3.0]])
    np.testing.assert_allclose(nearest_distances(centres), [3, 3, 4])
    assert not len(nearest_distances(centres[:1]))


def test_a_dataset_without_training_samples_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=0)
    with pytest.raises(UnetError, match="no training samples"):
        fingerprint([dataset])


def test_an_empty_split_is_refused_and_the_split_sizes_are_reported(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", test=0)
    with pytest.raises(UnetError, match="6 in train, 2 in val, 0 in test"):
        evaluate(tmp_path, dataset, Split.TEST)


def test_light_spread_ignores_exposure_but_not_contrast(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(20, 60, (64, 64, 3), np.uint8)
    spreads = []
    for name, others in (("exposure", [2 * image, 3 * image, 4 * image]),
                         ("contrast", [np.uint8(image.astype(float) ** 3 / 900)] * 3)):  # fmt: skip
        dataset = write_dataset(tmp_path / name, train=6)
        paths = sorted((dataset / "train" / "images").glob("*.png"))
        for path, pixels in zip(paths, [image, *others, image, image], strict=True):
            path.write_bytes(encode(pixels, ".png"))
        spreads.append(fingerprint([dataset]).light_spread)
    assert spreads[0] < 0.01
    assert spreads[1] > 0.05
