import numpy as np
import pytest

from dataset_rules.ground.errors import RulesError
from dataset_rules.masks.decode import decode_label, decode_masks
from dataset_rules.rules.fields import ClassRule, MaskKind, MaskTemplate, SourceRule
from dataset_rules.rules.rules import Rules
from tests.messy import put


def rules(kind, *values, ignore=()):
    classes = tuple(
        ClassRule(id=i, name=f"c{i}", source_values=tuple(v)) for i, v in enumerate(values)
    )
    return Rules(source=SourceRule(mask_kind=kind), classes=classes, ignore_values=ignore)


def gray(*rows):
    return np.array(rows, np.uint8)


def test_label_values_become_ids_and_ignored_values_255(tmp_path):
    path = put(tmp_path, "m.png", gray([0, 128, 255, 9]))
    decoded = decode_label(path, rules(MaskKind.LABEL, [0], [128], [255], ignore=(9,)))
    assert decoded.tolist() == [[0, 1, 2, 255]]


def test_value_of_no_class_is_rejected_and_reported(tmp_path):
    path = put(tmp_path, "m.png", gray([0, 128, 77]))
    with pytest.raises(RulesError, match="values of no class") as caught:
        decode_label(path, rules(MaskKind.LABEL, [0], [128]))
    assert caught.value.found == "77"


def test_several_values_merge_into_one_class(tmp_path):
    path = put(tmp_path, "m.png", gray([0, 1, 2, 3]))
    assert decode_label(path, rules(MaskKind.LABEL, [0], [1, 3], [2])).tolist() == [[0, 1, 2, 1]]


def test_soft_values_map_to_the_nearer_extreme_and_128_to_the_object(tmp_path):
    path = put(tmp_path, "m.png", gray([0, 127, 128, 255]))
    assert decode_label(path, rules(MaskKind.BINARY, [0], [255])).tolist() == [[0, 0, 1, 1]]


def test_inverted_mask_has_dark_objects(tmp_path):
    path = put(tmp_path, "m.png", gray([0, 255]))
    assert decode_label(path, rules(MaskKind.INVERTED, [255], [0])).tolist() == [[1, 0]]


def test_colours_map_to_the_nearest_class(tmp_path):
    pixels = np.array([[[0, 0, 0], [250, 9, 9], [10, 0, 240], [0, 250, 0]]], np.uint8)
    path = put(tmp_path, "m.png", pixels)
    found = rules(MaskKind.COLORS, [(0, 0, 0)], [(0, 0, 255)], [(255, 0, 0)], ignore=((0, 255, 0),))
    assert decode_label(path, found).tolist() == [[0, 2, 1, 255]]


def test_grey_mask_stored_as_colour_is_read_as_grey(tmp_path):
    path = put(tmp_path, "m.png", np.repeat(gray([0, 128])[..., None], 3, axis=2))
    assert decode_label(path, rules(MaskKind.LABEL, [0], [128])).tolist() == [[0, 1]]


def test_later_object_file_wins_where_objects_overlap(tmp_path):
    files = [put(tmp_path, f"{i}.png", gray(row)) for i, row in
             enumerate(([255, 255, 0, 0], [0, 255, 255, 0], [0, 0, 0, 0]))]  # fmt: skip
    decoded = decode_masks(files, [None] * 3, rules(MaskKind.INSTANCE_FILES, [0], [255]))
    assert decoded.label.tolist() == [[1, 1, 1, 0]]
    assert decoded.instances.tolist() == [[1, 2, 2, 0]]
    assert (decoded.overlap_px, decoded.empty_files) == (1, 1)


def test_instance_map_keeps_object_numbers(tmp_path):
    path = put(tmp_path, "m.png", np.array([[0, 300, 7]], np.uint16))
    decoded = decode_masks([path], [None], rules(MaskKind.INSTANCES, [0], []))
    assert decoded.instances.tolist() == [[0, 300, 7]]
    assert decoded.label.tolist() == [[0, 1, 1]]


def test_classes_in_separate_files_are_merged(tmp_path):
    files = [
        put(tmp_path, "a.png", gray([255, 0, 255])),
        put(tmp_path, "b.png", gray([0, 255, 255])),
    ]
    masks = (MaskTemplate(template="a", class_id=2), MaskTemplate(template="b", class_id=1))
    of_two = Rules(
        source=SourceRule(image="i", mask=masks, mask_kind=MaskKind.BINARY),
        classes=rules(MaskKind.LABEL, [0], [255], [254]).classes,
    )
    decoded = decode_masks(files, [2, 1], of_two)
    assert decoded.label.tolist() == [[2, 1, 1]]


def test_object_files_of_different_sizes_are_rejected(tmp_path):
    files = [put(tmp_path, "a.png", gray([255, 0])), put(tmp_path, "b.png", gray([0, 255, 255]))]
    with pytest.raises(RulesError, match="different sizes"):
        decode_masks(files, [None, None], rules(MaskKind.INSTANCE_FILES, [0], [255]))
