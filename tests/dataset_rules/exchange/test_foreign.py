"""Folders made by other tools, and their possible defects."""

import json

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import IGNORE, Split, read_dataset, read_sample
from dataset_rules.exchange.importing import import_dataset
from dataset_rules.exchange.layout import Layout
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import rules_from_mapping
from tests.messy import put, tissue

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
IMAGE = tissue(1, size=20)[0]
SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]


def imported(folder, layout, **rules):
    given = rules_from_mapping({"version": 2, **rules}) if rules else None
    return import_dataset(folder, folder.with_name("made"), layout, rules=given)


def error_of(folder, layout):
    with pytest.raises(RulesError) as caught:
        imported(folder, layout)
    assert not folder.with_name("made").exists()
    return str(caught.value)


def first(out):
    return read_sample(out, read_dataset(out).samples[0])


def problems(out):
    return {p["code"]: p for p in json.loads((out / "problems.json").read_bytes())}


def coco(folder, *, name="annotations.json", items=(), image=None, categories=None):
    document = {
        "images": [image or {"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "annotations": [{"id": n, "image_id": 1, **item} for n, item in enumerate(items)],
        "categories": categories or [{"id": 18, "name": "cat"}, {"id": 90, "name": "dog"}],
    }
    put(folder, "images/a.png", IMAGE)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document))
    return folder


def item(**fields):
    return {"category_id": 18, "segmentation": SQUARE, "iscrowd": 0, **fields}


def test_coco_polygons_keep_category_numbers_and_the_later_object_wins(tmp_path):
    later = item(category_id=90, segmentation=[[6, 6, 12, 6, 12, 12, 6, 12]])
    out = imported(coco(tmp_path / "set", items=[item(), later]), Layout.COCO)
    _, label, instances = first(out)
    assert (label[2:6, 2:6] == 18).all()
    assert (label[6:12, 6:12] == 90).all()
    assert ((label > 0) == (instances > 0)).all()
    assert (np.count_nonzero(instances == 1), np.count_nonzero(instances == 2)) == (32, 36)
    assert "4 px" in problems(out)["overlaps"]["message"]
    assert [c.id for c in read_dataset(out).classes] == [0, 18, 90]


def test_coco_crowd_becomes_ignored(tmp_path):
    crowd = item(segmentation={"size": [20, 20], "counts": [0, 40, 360]}, iscrowd=1)
    out = imported(coco(tmp_path / "set", items=[crowd, item()]), Layout.COCO)
    label = first(out)[1]
    assert (label[:, :2] == IGNORE).all()
    assert problems(out)["crowds_ignored"]["severity"] == "info"


def test_coco_category_numbers_that_do_not_fit_a_mask_are_renumbered(tmp_path):
    categories = [{"id": 0, "name": "all"}, {"id": 18, "name": "cat"}, {"id": 999, "name": "emu"}]
    out = imported(coco(tmp_path / "set", items=[item()], categories=categories), Layout.COCO)
    assert [(c.id, c.name) for c in read_dataset(out).classes] == [
        (0, "background"), (1, "all"), (2, "cat"), (3, "emu"),
    ]  # fmt: skip
    assert set(np.unique(first(out)[1])) == {0, 2}


def test_coco_split_is_taken_from_the_file_name_and_absent_images_are_left_out(tmp_path):
    folder = coco(tmp_path / "set", name="annotations/instances_val2017.json", items=[item()])
    missing = {"id": 1, "file_name": "gone.png", "width": 20, "height": 20}
    coco(folder, name="annotations/instances_train2017.json", image=missing)
    out = imported(folder, Layout.COCO)
    assert [s.split for s in read_dataset(out).samples] == [Split.VAL]
    assert problems(out)["absent_images"]["paths"] == ["gone.png"]


def test_caption_files_are_ignored(tmp_path):
    folder = coco(tmp_path / "set", items=[item()])
    (folder / "captions.json").write_text(json.dumps({"images": [], "annotations": []}))
    assert len(read_dataset(imported(folder, Layout.COCO)).samples) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (item(segmentation=[]), "annotation 0 of a.png: a polygon is not a list"),
        (item(segmentation={"size": [20, 20], "counts": [3]}), "do not cover the image"),
        (item(segmentation={"size": [9, 20], "counts": [180]}), "an image of another size"),
        (item(category_id=5), "the category is not listed"),
        (item(object_number="x"), "object_number is not a number"),
        (item(object_number=70_000), "too many objects"),
        (item(image_id=7), "images that are not listed; found image_id 7"),
        (item(image_id=None), 'no "image_id"'),
    ],
)
def test_damaged_coco_annotations_are_reported(tmp_path, wrong, message):
    assert message in error_of(coco(tmp_path / "set", items=[wrong]), Layout.COCO)


def test_two_lists_of_one_image_are_rejected_until_one_is_excluded(tmp_path):
    folder = coco(tmp_path / "set", items=[item()])
    coco(folder, name="person_keypoints.json", items=[item()])
    assert "two entries describe images/a.png" in error_of(folder, Layout.COCO)
    out = imported(folder, Layout.COCO, source={"exclude": ["person_*"]})
    assert len(read_dataset(out).samples) == 1


def test_image_name_that_matches_several_images_is_rejected(tmp_path):
    folder = coco(tmp_path / "set")
    put(folder, "more/a.png", IMAGE)
    assert "several images match the listed name a.png" in error_of(folder, Layout.COCO)


def test_all_damaged_samples_are_reported_at_once(tmp_path):
    folder = tmp_path / "set"
    for name in "abc":
        put(folder, f"{name}.png", IMAGE)
        put(folder, f"{name}_masks.png", np.zeros((20, 20), np.uint16))
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:200])
    put(folder, "b_masks.png", np.zeros((9, 9), np.uint16))
    message = error_of(folder, Layout.CELLPOSE)
    assert "2 samples cannot be imported, nothing was written" in message
    assert "a.png: " in message
    assert "b.png: image and mask differ in size" in message
    assert str(folder) not in message


def nnunet(folder, **fields):
    document = {"labels": {"background": 0, "cell": 1, "ignore": 2}, "file_ending": ".png",
                "channel_names": {"0": "R"}, "numTraining": 1, **fields}  # fmt: skip
    put(folder, "imagesTr/a_0000.png", IMAGE)
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5], mask[9:, 9:] = 1, 2
    put(folder, "labelsTr/a.png", mask)
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def test_nnunet_ignore_label_becomes_ignored_and_images_without_labels_are_reported(tmp_path):
    folder = nnunet(tmp_path / "set")
    put(folder, "imagesTs/b_0000.png", IMAGE)
    out = imported(folder, Layout.NNUNET)
    assert set(np.unique(first(out)[1])) == {0, 1, IGNORE}
    assert [s.name for s in read_dataset(out).samples] == ["a"]
    assert problems(out)["unlabelled"]["paths"] == ["imagesTs/b_0000.png"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file_ending": ".nii.gz"}, "volumes cannot be read"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "region-based labels"),
        ({"labels": {"background": 0, "cell": 1}}, "values of no label; found [2]"),
        ({"labels": None}, "not in nnU-Net format"),
        ({"modality": {"0": "MRI"}}, "nnU-Net v1"),
    ],
)
def test_unsupported_nnunet_datasets_are_rejected(tmp_path, fields, message):
    assert message in error_of(nnunet(tmp_path / "set", **fields), Layout.NNUNET)


def test_nnunet_channels_in_separate_files_are_rejected(tmp_path):
    folder = nnunet(tmp_path / "set")
    put(folder, "imagesTr/a_0001.png", IMAGE)
    assert "imagesTr/a_0001.png: channels in separate files" in error_of(folder, Layout.NNUNET)


def test_cellpose_finds_images_next_to_masks_and_calls_the_class_cell(tmp_path):
    folder = tmp_path / "set"
    put(folder, "train/w_0_img.tif", IMAGE)
    put(folder, "train/w_0_masks.tif", tissue(1, size=20)[1])
    put(folder, "train/lone_masks.png", tissue(1, size=20)[1])
    out = imported(folder, Layout.CELLPOSE)
    (sample,) = read_dataset(out).samples
    assert (sample.name, sample.split) == ("w_0", Split.TRAIN)
    assert np.array_equal(first(out)[2], tissue(1, size=20)[1])
    assert [c.name for c in read_dataset(out).classes] == ["background", "cell"]
    assert problems(out)["lone_masks"]["paths"] == ["train/lone_masks.png"]


def yolo(folder, lines, *, data="names: [cell, debris]\ntrain: ../train/images\n"):
    put(folder, "train/images/a.png", IMAGE)
    (folder / "train/labels").mkdir(parents=True)
    (folder / "train/labels/a.txt").write_text(lines)
    (folder / "data.yaml").write_text(data)
    return folder


def test_yolo_outline_is_filled_and_a_list_of_images_is_followed(tmp_path):
    folder = yolo(tmp_path / "set", "1 0.1 0.1 0.45 0.1 0.45 0.45 0.1 0.45\n\n")
    put(folder, "other/b.png", IMAGE)
    (folder / "val.txt").write_text("./other/b.png\n")
    with (folder / "data.yaml").open("a") as file:
        file.write("val: val.txt\n")
    out = imported(folder, Layout.YOLO)
    with_objects, without = read_dataset(out).samples
    assert (with_objects.split, without.split) == (Split.TRAIN, Split.VAL)
    _, label, instances = read_sample(out, with_objects)
    assert (label[2:10, 2:10] == 2).all()
    assert np.count_nonzero(label) == np.count_nonzero(instances == 1) == 64
    assert not read_sample(out, without)[1].any()
    assert problems(out)["no_label_file"]["paths"] == ["other/b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "a.txt, object 1: the label is a box"),
        ("0 0.1 0.1 0.2 0.2 0.3", "the outline is invalid"),
        ("0 0.1 0.1 0.2 x 0.3 0.3", "not a number"),
        ("7 0.1 0.1 0.2 0.2 0.3 0.3", "the class has no name"),
        ("0 0.1 0.1 0.2 0.2 0.3 nan", "is outside the image"),
        ("0 10 10 20 20 30 30", "is outside the image"),
    ],
)
def test_damaged_yolo_labels_are_reported(tmp_path, lines, message):
    assert message in error_of(yolo(tmp_path / "set", lines), Layout.YOLO)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("names: [a]\ntrain: ../../../etc\n", "refers to nothing inside the folder"),
        ("names: [a]\ntrain: /etc\n", "refers to nothing inside the folder"),
        ("names: {1: a}\ntrain: train/images\n", "class names are invalid"),
        (f"{BOMB}names: *i\ntrain: train/images\n", "class names are invalid"),
        (f"{BOMB}names: [*i]\ntrain: train/images\n", "class names are invalid"),
        (f"{BOMB}names: [a]\ntrain: *i\n", "splits must be strings"),
        ("names: []\ntrain: train/images\n", "no classes, or too many"),
        ("train: train/images\n", "defines no classes"),
        ("names: [a\n", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("names: [a]\n", "no sample was found"),
    ],
)
def test_damaged_yolo_documents_are_rejected(tmp_path, data, message):
    assert message in error_of(yolo(tmp_path / "set", "", data=data), Layout.YOLO)


@pytest.mark.parametrize("layout", Layout)
def test_folder_in_another_layout_is_rejected_with_the_expected_files(tmp_path, layout):
    put(tmp_path / "set", "photo.png", IMAGE)
    assert "expected" in error_of(tmp_path / "set", layout)


def test_import_records_its_source_files(tmp_path):
    out = imported(coco(tmp_path / "set", items=[item()]), Layout.COCO)
    (source,) = (out / "lineage").glob("*/manifest.json")
    files = json.loads(source.read_bytes())["files"]
    assert sorted(files) == ["annotations.json", "images/a.png"]
