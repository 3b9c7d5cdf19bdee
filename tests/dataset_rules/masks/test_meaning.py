import numpy as np
import pytest

from dataset_rules.masks.meaning import meaning_of
from dataset_rules.masks.profile import compactness_of, profile_file
from dataset_rules.masks.value_counts import count_values
from dataset_rules.rules.fields import MaskKind, SourceRule
from dataset_rules.rules.rules import Rules
from tests.messy import SIZE, put, tissue

SMALL = np.zeros((SIZE, SIZE), np.uint8)
SMALL[5:15, 5:15] = 1  # 100 of 1600 px


def meaning(tmp_path, *masks, suffix=".png", rules=None, is_many=False):
    files = [put(tmp_path, f"{i}{suffix}", mask) for i, mask in enumerate(masks)]
    shapes = [compactness_of(file) for file in files]
    counts = count_values(
        [profile_file(file) for file in files], compactness=float(np.median(shapes))
    )
    return meaning_of(counts, rules or Rules(), is_many=is_many)


def table(found):
    return {rule.id: rule.source_values for rule in found.classes}


@pytest.mark.parametrize("bright", [1, 255, 200])
def test_bright_minority_is_the_object(tmp_path, bright):
    found = meaning(tmp_path, SMALL * np.uint8(bright))
    assert found.kind is MaskKind.BINARY
    assert table(found) == {0: (0,), 1: (bright,)}


def test_bright_majority_raises_a_question_about_the_object_value(tmp_path):
    found = meaning(tmp_path, (1 - SMALL) * np.uint8(255))
    assert found.kind is None
    assert [(q.field, q.options) for q in found.questions] == [("source.object_value", (0, 255))]


def test_answer_to_that_question_can_invert_the_mask(tmp_path):
    rules = Rules(source=SourceRule(object_value=0))
    found = meaning(tmp_path, (1 - SMALL) * np.uint8(255), rules=rules)
    assert found.kind is MaskKind.INVERTED
    assert table(found) == {0: (255,), 1: (0,)}


def test_object_value_that_does_not_occur_is_an_error(tmp_path):
    rules = Rules(source=SourceRule(object_value=7))
    found = meaning(tmp_path, SMALL * np.uint8(255), rules=rules)
    assert [f.code for f in found.findings] == ["absent_object_value"]


def test_jpeg_mask_is_two_valued_with_a_note(tmp_path):
    found = meaning(tmp_path, np.kron(SMALL, np.ones((4, 4), np.uint8)) * 255, suffix=".jpg")
    assert found.kind is MaskKind.BINARY
    assert table(found) == {0: (0,), 1: (255,)}
    assert [f.code for f in found.findings] == ["soft_masks"]


def test_class_values_that_are_not_valid_ids_are_renumbered(tmp_path):
    mask = SMALL * np.uint8(128)
    mask[7:12, 7:12] = 255
    found = meaning(tmp_path, mask, mask.T.copy())
    assert found.kind is MaskKind.LABEL
    assert table(found) == {0: (0,), 1: (128,), 2: (255,)}


def test_class_ids_are_kept_and_255_far_above_them_is_ignored(tmp_path):
    mask = np.repeat(np.arange(4, dtype=np.uint8), 400).reshape(SIZE, SIZE)
    mask[0, :] = 255
    found = meaning(tmp_path, mask)
    assert table(found) == {0: (0,), 1: (1,), 2: (2,), 3: (3,)}
    assert found.ignore_values == (255,)


def test_16_bit_numbers_of_blobs_are_instances(tmp_path):
    found = meaning(tmp_path, *[tissue(seed)[1] for seed in range(3)])
    assert found.kind is MaskKind.INSTANCES


def test_8_bit_numbers_of_blobs_whose_count_varies_are_instances(tmp_path):
    first, second = (tissue(seed)[1].astype(np.uint8) for seed in range(2))
    second[second == second.max()] = 0
    assert meaning(tmp_path, first, second).kind is MaskKind.INSTANCES


def test_several_two_valued_files_per_image_are_one_object_each(tmp_path):
    found = meaning(tmp_path, SMALL * np.uint8(255), SMALL.T * np.uint8(255), is_many=True)
    assert found.kind is MaskKind.INSTANCE_FILES


def test_colours_become_classes_and_blends_map_to_the_nearest(tmp_path):
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[5:15, 5:15] = (250, 250, 0)
    mask[20:30, 5:15] = (0, 200, 200)
    mask[0, 0] = (130, 120, 10)
    found = meaning(tmp_path, mask)
    assert found.kind is MaskKind.COLORS
    assert table(found) == {0: ((0, 0, 0),), 1: ((0, 200, 200),), 2: ((250, 250, 0),)}
    assert [f.code for f in found.findings] == ["blended_colors"]


def test_stain_palette_is_recognised(tmp_path):
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[5:15, 5:15], mask[20:30, 5:15], mask[30:35, 5:15] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    found = meaning(tmp_path, mask)
    assert [rule.name for rule in found.classes] == ["background", "negative", "positive"]
    assert found.ignore_values == ((0, 255, 0),)


def test_photograph_as_mask_raises_a_question(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    assert [q.field for q in meaning(tmp_path, noise).questions] == ["source.mask_kind"]
