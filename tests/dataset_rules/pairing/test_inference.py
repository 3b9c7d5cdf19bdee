"""Readings other than one image and one mask template: text, panels, classes, lists."""

import json

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import read_dataset, read_sample
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import Rules, parse_rules, rules_from_mapping
from tests.messy import put, tissue, two_folders


def masks_of(out):
    return {sample.name: read_sample(out, sample)[1] for sample in read_dataset(out).samples}


def codes(report):
    return [finding.code for finding in report.findings]


def text_source(folder, sign=" "):
    labels = {}
    for number in range(3):
        image, instances = tissue(number)
        labels[str(number)] = np.minimum(instances, 2).astype(np.uint8)
        put(folder, f"{number}.png", image)
        rows = [sign.join(map(str, row)) for row in labels[str(number)]]
        (folder / f"{number}.txt").write_text("\n".join(rows) + "\n")
    return labels


@pytest.mark.parametrize("sign", [" ", ",", "\t"])
def test_labels_as_text_become_equal_masks(tmp_path, sign):
    labels = text_source(tmp_path / "source", sign)
    document = examine(tmp_path / "source").document()
    assert (document["mask_kind"], document["rules"]["source"]["mask"]) == ("text", "{name}.txt")
    assert [rule["source_values"] for rule in document["classes"]] == [[0], [1], [2]]
    out = format_dataset(tmp_path / "source", tmp_path / "out", Rules())
    masks = masks_of(out)
    assert masks.keys() == labels.keys()
    assert all(np.array_equal(masks[name], labels[name]) for name in labels)


def test_text_that_is_not_a_grid_is_not_a_mask(tmp_path):
    for number in range(3):
        put(tmp_path, f"{number}.png", tissue(number)[0])
        (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n")
    assert "no_masks" in codes(examine(tmp_path))


def test_text_notes_next_to_the_images_are_not_left_out_images(tmp_path):
    two_folders(tmp_path)
    (tmp_path / "README.txt").write_text("Tissue of 2021\n")
    report = examine(tmp_path)
    assert "other_files" in codes(report)
    again = examine(tmp_path, report.rules)
    assert again.pairing.pairs == report.pairing.pairs
    assert "left_out" not in codes(again)
    assert "other_files" in codes(again)


def test_text_mask_of_another_size_is_an_error_with_both_paths(tmp_path):
    text_source(tmp_path)
    (tmp_path / "1.txt").write_text("0 1 0 1\n" * 4)
    report = examine(tmp_path, rules_from_mapping(
        {"version": 2, "source": {"image": "{n}.png", "mask": "{n}.txt"}}
    ))  # fmt: skip
    assert ("1.png", "1.txt") in [f.paths for f in report.findings if f.code == "size_mismatch"]


def test_damaged_text_mask_is_reported(tmp_path):
    text_source(tmp_path)
    (tmp_path / "1.txt").write_text((tmp_path / "1.txt").read_text()[:-9])
    (damage,) = [f for f in examine(tmp_path).findings if f.code == "damaged"]
    assert damage.paths == ("1.txt",)


def panels(folder, count=3, *, extra=()):
    """Image on the left, mask on the right, in one file."""
    for number in range(count):
        image, instances = tissue(number)
        mask = np.repeat(((instances > 0) * 255).astype(np.uint8)[..., None], 3, axis=2)
        put(folder, f"both/{number}.png", np.concatenate([image, *extra, mask], axis=1))
    return folder


def test_image_and_mask_side_by_side_are_read_without_a_question(tmp_path):
    rules = examine(panels(tmp_path / "source")).rules
    assert rules.source.panel.model_dump() == {"columns": 2, "rows": 1, "image": 0, "mask": 1}
    out = format_dataset(tmp_path / "source", tmp_path / "out", rules)
    samples = read_dataset(out).samples
    assert [sample.name for sample in samples] == ["0", "1", "2"]
    for sample in samples:
        image, label, _ = read_sample(out, sample)
        drawn, instances = tissue(int(sample.name))
        assert np.array_equal(image, drawn)
        assert np.array_equal(label, instances > 0)


def test_three_panels_are_a_finding_with_the_rules_that_read_them(tmp_path):
    report = examine(panels(tmp_path, extra=(255 - tissue(9)[0],)))
    (finding,) = [f for f in report.findings if f.code == "composites"]
    rules = parse_rules('{"version": 2, ' + finding.remedy.partition("rules ")[2] + "}")
    assert rules.source.panel.mask == 2
    assert len(examine(tmp_path, rules).pairing.pairs) == 3


def classes_of_files(folder):
    """Even objects in `red`, odd ones in `blue`."""
    for number in range(4):
        image, instances = tissue(number)
        put(folder, f"photos/{number}.png", image)
        for parity, word in enumerate(("red", "blue")):
            area = (instances > 0) & (instances % 2 == parity)
            put(folder, f"masks/{number}_{word}.png", (area * 255).astype(np.uint8))
    return folder


def test_disjoint_masks_are_classes_and_are_merged(tmp_path):
    source = classes_of_files(tmp_path / "source")
    document = examine(source).document()
    assert document["rules"]["source"]["mask"] == [
        {"template": "masks/{name}_blue.png", "class": 1},
        {"template": "masks/{name}_red.png", "class": 2},
    ]
    assert [rule["name"] for rule in document["classes"]] == ["background", "blue", "red"]
    made = masks_of(format_dataset(source, tmp_path / "out", Rules()))
    for number in range(4):
        instances = tissue(number)[1]
        expected = np.where(instances > 0, np.where(instances % 2 == 1, 1, 2), 0)
        assert np.array_equal(made[str(number)], expected)


def test_numbered_files_are_classes_with_several_areas_and_objects_with_one(tmp_path):
    for number in range(4):
        image, instances = tissue(number)
        for kind in ("classes", "objects"):
            put(tmp_path, f"{kind}/images/{number}.png", image)
        for parity in (0, 1):
            area = (instances > 0) & (instances % 2 == parity)
            path = f"classes/masks/{number}_class{parity + 1}.png"
            put(tmp_path, path, (area * 255).astype(np.uint8))
        for value in (1, 2, 3):
            area = (instances == value) * 255
            put(tmp_path, f"objects/masks/{number}_{value}.png", area.astype(np.uint8))
    classes = examine(tmp_path / "classes").rules
    assert [mask.class_id for mask in classes.source.mask] == [1, 2]
    objects = examine(tmp_path / "objects").rules
    assert objects.source.mask == "masks/{name}_{object:int}.png"
    assert objects.source.mask_kind == "instance_files"


def test_list_in_the_rules_restricts_the_pairs(tmp_path):
    two_folders(tmp_path)
    (tmp_path / "train.txt").write_text("/data/set/images/1.png\n/data/set/images/3.png\n")
    report = examine(
        tmp_path, rules_from_mapping({"version": 2, "source": {"list": ["train.txt"]}})
    )
    assert [pair.image for pair in report.pairing.pairs] == ["images/1.png", "images/3.png"]
    why = {item["path"]: item["why"] for item in report.document()["ignored"]}
    assert why["masks/2.png"] == "excluded by the rules"
    assert json.loads(json.dumps(report.document()["rules"]))["source"]["list"] == ["train.txt"]


def test_list_of_stems_is_recognised_and_absent_files_are_counted(tmp_path):
    two_folders(tmp_path)
    (tmp_path / "train.txt").write_text("1\n2\n")
    (tmp_path / "test.txt").write_text("images/4.png masks/4.png\nimages/9.png masks/9.png\n")
    (finding,) = [f for f in examine(tmp_path).findings if f.code == "absent_files"]
    assert finding.paths == ("test.txt",)
    assert (
        "lists 2 samples, 1 of them are here; 2 files that it names are absent" in finding.message
    )
    rules = rules_from_mapping({"version": 2, "source": {"list": ["train.txt"]}})
    assert len(examine(tmp_path, rules).pairing.pairs) == 2


def test_text_file_that_is_not_a_list_is_rejected(tmp_path):
    (two_folders(tmp_path) / "notes.txt").write_text("nothing of use")
    rules = rules_from_mapping({"version": 2, "source": {"list": ["notes.txt"]}})
    with pytest.raises(RulesError, match=r"notes\.txt: source\.list is not a list of the images"):
        examine(tmp_path, rules)
