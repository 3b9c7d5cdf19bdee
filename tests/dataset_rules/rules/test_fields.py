"""Fields of the rules take effect in valid combinations and are rejected in invalid ones."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_rules.artifacts.dataset import read_dataset, read_sample
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import (
    Rules,
    parse_rules,
    rules_document,
    rules_from_mapping,
    rules_id,
)
from tests.messy import put, tissue, two_folders

TWO = [{"id": 0, "name": "b", "source_values": [0]}, {"id": 1, "name": "c", "source_values": [9]}]
THREE = [*TWO, {"id": 2, "name": "d", "source_values": [7]}]
PANEL = {"columns": 2, "image": 0, "mask": 1}
EACH = [{"template": "{n}_a.png", "class": 1}, {"template": "{n}_b.png", "class": 2}]


def formatted(folder, out, **fields):
    return format_dataset(folder, out, rules_from_mapping({"version": 2, **fields}), jobs=1)


def sample_of(out, name="1"):
    (sample,) = [s for s in read_dataset(out).samples if s.name == name]
    return read_sample(out, sample)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlap": 8}, "overlap needs fit 'tile'"),
        ({"fit": "tile", "height": 8, "width": 8, "overlap": 8}, "no step between tiles"),
        ({"depth": "keep", "image_format": "jpg"}, "a 16-bit format"),
        ({"depth": "keep", "color_model": "binary"}, "two-valued images"),
        ({"drop": [9], "classes": TWO}, "more than one of classes, ignore_values and drop: 9"),
        ({"ignore_values": [0], "classes": TWO}, "more than one of classes"),
        ({"source": {"mask_kind": "binary"}, "classes": THREE}, "one class besides background"),
        ({"source": {"mask_kind": "inverted"}, "classes": THREE}, "one class besides background"),
        ({"source": {"mask_kind": "instances"}, "classes": THREE}, "one class besides background"),
        ({"source": {"mask_kind": "label", "object_value": 1}}, "applies to two-valued"),
        ({"source": {"mask_kind": "colors", "object_value": 1}}, "applies to two-valued"),
        ({"source": {"mask_kind": "text", "object_value": 1}}, "applies to two-valued"),
        ({"source": {"mask_kind": "label"}, "drop": [[1, 2, 3]]}, "is a colour"),
        ({"source": {"panel": PANEL}}, "panel needs image"),
        ({"source": {"panel": PANEL, "image": "{n}.png", "mask": "{n}.png"}}, "leave mask null"),
        ({"source": {"panel": PANEL, "image": "{n}.png", "mask_kind": "text"}}, "cannot have"),
        ({"source": {"panel": {**PANEL, "mask": 2}, "image": "{n}.png"}}, "panels 0 to 1"),
        ({"source": {"panel": {**PANEL, "mask": 0}, "image": "{n}.png"}}, "they must differ"),
        ({"source": {"mask": EACH}}, "image is null: give both"),
        ({"source": {"mask": [], "image": "{n}.png"}}, "empty list"),
        ({"source": {"mask": EACH, "image": "{n}.png"}, "classes": TWO}, "unknown class 2"),
    ],
)  # fmt: skip
def test_invalid_combination_is_refused_with_the_reason(fields, message):
    with pytest.raises(RulesError, match="the rules are invalid: ") as caught:
        parse_rules(json.dumps({"version": 2, **fields}))
    assert message in str(caught.value)


def test_added_fields_at_their_defaults_do_not_change_the_id():
    document = rules_document(Rules())
    assert not {"overlap", "depth", "drop"} & document.keys()
    assert not {"panel", "list"} & document["source"].keys()
    expected = "db1860640056a274a423f5370e9f685871f0623b6fcac9670bf66f9706b4d3d3"
    assert rules_id(Rules()) == expected


def test_dropped_values_become_background_and_ignored_values_255(tmp_path):
    image, _ = tissue(1)
    label = np.zeros((40, 40), np.uint8)
    label[:10], label[10:20], label[20:30] = 1, 2, 3
    put(tmp_path / "source", "images/1.png", image)
    put(tmp_path / "source", "masks/1.png", label)
    classes = [{"id": 0, "name": "b", "source_values": [0]},
               {"id": 1, "name": "c", "source_values": [1]}]  # fmt: skip
    out = formatted(tmp_path / "source", tmp_path / "out", classes=classes, drop=[2],
               ignore_values=[3], source={"mask_kind": "label"})  # fmt: skip
    assert np.array_equal(np.unique(sample_of(out)[1][10:20]), [0])
    assert np.array_equal(np.unique(sample_of(out)[1][20:30]), [255])


def test_dropped_and_ignored_objects_are_not_in_the_instance_map(tmp_path):
    image, instances = tissue(2)
    put(tmp_path / "source", "images/1.png", image)
    put(tmp_path / "source", "masks/1.png", instances)
    out = formatted(tmp_path / "source", tmp_path / "out", drop=[1], ignore_values=[2],
               source={"mask_kind": "instances"})  # fmt: skip
    _, label, objects = sample_of(out)
    assert np.array_equal(label, np.select([instances > 2, instances == 2], [1, 255], 0))
    assert np.array_equal(objects, np.where(instances > 2, instances, 0))


def test_instance_maps_of_two_classes_are_merged_with_consecutive_numbers(tmp_path):
    image, instances = tissue(2)
    put(tmp_path / "source", "1.jpg", image)
    for word, values in (("a", (1, 2)), ("b", (3, 4))):
        put(
            tmp_path / "source", f"1_{word}.png", np.where(np.isin(instances, values), instances, 0)
        )
    out = formatted(tmp_path / "source", tmp_path / "out", source={
        "image": "{n}.jpg", "mask": EACH, "mask_kind": "instances",
    })  # fmt: skip
    _, label, objects = sample_of(out)
    assert np.array_equal(label, np.select([instances > 2, instances > 0], [2, 1], 0))
    assert len(np.unique(objects)) == len(np.unique(instances))


def test_tiles_share_the_overlap_and_cover_the_image(tmp_path):
    out = formatted(two_folders(tmp_path / "source", 1), tmp_path / "out", fit="tile", height=16,
               width=16, overlap=4)  # fmt: skip
    samples = read_dataset(out).samples
    assert [sample.name for sample in samples] == [
        f"1_r{i}c{j}" for i in range(3) for j in range(3)
    ]
    assert len({sample.split for sample in samples}) == 1
    image, _ = tissue(1)
    for sample in samples:
        row, column = (12 * int(sample.name[at]) for at in (-3, -1))
        tile, _, _ = read_sample(out, sample)
        assert np.array_equal(tile, image[row : row + 16, column : column + 16])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, np.uint16([[1000, 3000]])),
        ({"depth": "keep"}, np.uint16([[1000, 3000]])),
        ({"depth": "divide"}, np.uint8([[4, 12]])),
        ({"depth": "range"}, np.uint8([[0, 255]])),
        ({"depth": "range", "image_format": "bmp"}, np.uint8([[0, 255]])),
        ({"image_format": "bmp"}, np.uint8([[4, 12]])),
    ],
)
def test_16_bit_images_keep_their_depth_or_are_scaled_as_the_rules_specify(
    tmp_path, fields, expected
):
    for number in range(2):
        _, instances = tissue(number)
        deep = np.where(instances > 0, 3000, 1000).astype(np.uint16)
        put(tmp_path / "source", f"images/{number}.png", deep)
        put(tmp_path / "source", f"masks/{number}.png", (instances > 0).astype(np.uint8) * 255)
    fields = {**fields, "color_model": "grayscale",
              "source": {"image": "images/{n}.png", "mask": "masks/{n}.png"}}  # fmt: skip
    out = formatted(tmp_path / "source", tmp_path / "out", **fields)
    image, label, _ = sample_of(out)
    assert image.dtype == expected.dtype
    assert np.array_equal(image, expected[0, label])
    notes = [p["message"] for p in json.loads((out / "problems.json").read_text())
             if p["code"] == "depth_reduced"]  # fmt: skip
    assert bool(notes) == (expected.dtype == np.uint8)


def test_three_grey_levels_survive_jpeg_and_close_ids_are_refused(tmp_path):
    levels = np.repeat(np.repeat(np.uint8([[0, 128], [255, 0]]), 20, 0), 20, 1)
    for number in range(2):
        put(tmp_path / "source", f"images/{number}.png", tissue(number)[0])
        (tmp_path / "source/masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"source/masks/{number}.jpg"), levels)
    rules = examine(tmp_path / "source").rules
    assert rules.source.mask_kind == "label"
    assert [c.source_values for c in rules.classes] == [(0,), (128,), (255,)]
    out = format_dataset(tmp_path / "source", tmp_path / "out", rules)
    assert np.array_equal(sample_of(out)[1], np.select([levels == 128, levels == 255], [1, 2], 0))
    close = [{"id": i, "name": str(i), "source_values": [i]} for i in range(3)]
    with pytest.raises(RulesError, match="beyond repair"):
        formatted(
            tmp_path / "source", tmp_path / "o2", classes=close, source={"mask_kind": "label"}
        )


def test_masks_with_different_palettes_are_read_as_colours(tmp_path):
    _, instances = tissue(1)
    for number, order in enumerate(([0, 0, 0, 250, 0, 0], [250, 0, 0, 0, 0, 0])):
        put(tmp_path / "source", f"images/{number}.png", tissue(1)[0])
        indices = (instances > 0) ^ (number == 1)
        mask = Image.fromarray(indices.astype(np.uint8), "P")
        mask.putpalette(order)
        (tmp_path / "source/masks").mkdir(exist_ok=True)
        mask.save(tmp_path / f"source/masks/{number}.png")
    document = examine(tmp_path / "source").document()
    assert document["mask_kind"] == "colors"
    out = format_dataset(tmp_path / "source", tmp_path / "out", Rules())
    assert all(np.array_equal(sample_of(out, name)[1], instances > 0) for name in "01")
