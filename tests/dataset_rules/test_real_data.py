"""The real datasets as they lie: what a good reader finds in each."""

import numpy as np
import pytest

from dataset_rules.dataset import read_dataset, read_sample
from dataset_rules.doctor import examine
from dataset_rules.format import format_dataset
from dataset_rules.rules import Rules, SourceRule

# dataset: pairs, images and masks without partner, kind, values of the classes, questions
EXPECTED = {
    "dsb2018_nuclei": (330, 0, 0, "instance_files", [[0], [255]], []),
    "wbc": (300, 0, 0, "label", [[0], [128], [255]], []),
    "monuseg_crops_triplets": (20, 0, 0, "binary", [[0], [255]], []),
    "monuseg2018": (10, 0, 2, "binary", [[0], [255]], []),
    "camvid_segnet": (40, 0, 0, "label", [[value] for value in range(12)], []),
    "isbi2012_em": (24, 0, 0, None, [], ["source.object_value"]),
    "pitsun_ihc_2021": (24, 0, 0, None, [], ["source.object_value"]),
    "deepliif_sample": (4, 0, 0, "colors", [[[0, 0, 0]], [[0, 0, 255]], [[255, 0, 0]]], []),
    "stardist_sample": (4, 0, 0, "instances", [[0], []], []),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_dataset_is_read_rightly(real_data, name):
    document = examine(real_data(name)).document()
    found = (
        len(document["pairs"]),
        len(document["unpaired_images"]),
        len(document["unpaired_masks"]),
        document["mask_kind"],
        [rule["source_values"] for rule in document["classes"]],
        [question["field"] for question in document["questions"]],
    )
    assert found == EXPECTED[name]


def test_crops_pair_by_whole_numbers_and_no_prediction_is_the_truth(real_data):
    document = examine(real_data("monuseg_crops_triplets")).document()
    for pair in document["pairs"]:
        assert pair["masks"] == [pair["image"].replace("img_", "label_")]
    why = {item["path"]: item["why"] for item in document["ignored"]}
    assert all("prediction" in reason for path, reason in why.items() if "pred_" in path)


def test_junk_of_an_operating_system_is_ignored(real_data):
    document = examine(real_data("monuseg2018")).document()
    ignored = [item["path"] for item in document["ignored"]]
    assert sum("/._" in path for path in ignored) == 21
    assert not any("__MACOSX" in pair["image"] for pair in document["pairs"])


def test_stacks_are_damage_that_names_the_pages(real_data):
    findings = examine(real_data("stardist_sample")).findings
    (stack,) = [finding for finding in findings if finding.code == "stack"]
    assert stack.severity == "error"
    assert stack.message == "the file is a stack of pages: 31 pages"


def test_same_cell_under_two_numbers_is_reported(real_data):
    findings = examine(real_data("wbc")).findings
    assert ("Dataset 1/112.bmp", "Dataset 1/139.bmp") in [finding.paths for finding in findings]


@pytest.mark.parametrize(
    ("name", "classes"), [("wbc", {0, 1, 2}), ("monuseg_crops_triplets", {0, 1})]
)
def test_real_dataset_is_formatted(real_data, tmp_path, name, classes):
    out = format_dataset(real_data(name), tmp_path / "out", Rules())
    dataset = read_dataset(out)
    assert len(dataset.samples) == EXPECTED[name][0]
    for sample in dataset.samples[:20]:
        image, label, _ = read_sample(out, sample)
        assert image.shape[:2] == label.shape
        assert set(np.unique(label)) <= classes


def test_answered_question_makes_the_membrane_the_object(real_data, tmp_path):
    rules = Rules(source=SourceRule(object_value=0))
    out = format_dataset(real_data("isbi2012_em"), tmp_path / "out", rules)
    shares = [read_sample(out, sample)[1].mean() for sample in read_dataset(out).samples]
    assert 0.15 < np.mean(shares) < 0.3
