import numpy as np
import pytest

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.pairing.groups import inferred_group
from dataset_rules.rules.rules import Rules, rules_from_mapping
from tests.messy import put, tissue, two_folders


@pytest.mark.parametrize(
    ("images", "template"),
    [
        (["x/case1_0.png", "x/case1_1.png", "x/case10_0.png"], "case{case:int}_*"),
        (["Patient 7-a.png", "Patient 7-b.png", "Patient 8-a.png"], "Patient {patient:int}-*"),
        (["s/patient1_slide1.png", "s/patient1_slide2.png", "s/patient2_slide1.png"],
         "patient{patient:int}_*"),
        (["TCGA-18-5592-01Z-00.tif", "TCGA-18-5592-01Z-01.tif", "TCGA-A7-A13E-01Z-00.tif"],
         "TCGA-{site}-{patient}-*"),
        (["d/case_a/images/1.png", "d/case_a/images/2.png", "d/case_b/images/1.png"],
         "*/case_{case}/*/*"),
        (["showcase1_0.png", "showcase1_1.png", "showcase2_0.png"], None),
        (["case1_0.png", "case2_0.png", "case3_0.png"], None),  # one image each: no groups
        (["case1_0.png", "case1_1.png"], None),  # one group cannot be split
        (["0001TP_006690.png", "0001TP_006720.png", "0016E5_07959.png"], None),
    ],
)  # fmt: skip
def test_group_is_inferred_from_group_words(images, template):
    assert inferred_group(images) == template


def test_inferred_group_is_never_divided_between_splits(tmp_path):
    for number in range(24):
        image, instances = tissue(number)
        name = f"patient{number // 4:02d}_{number % 4}"
        put(tmp_path / "source", f"images/{name}.png", image)
        put(tmp_path / "source", f"masks/{name}.png", (instances > 0).astype(np.uint8))
    report = examine(tmp_path / "source")
    assert "group_inferred" in [finding.code for finding in report.findings]
    samples = read_dataset(format_dataset(tmp_path / "source", tmp_path / "out", Rules())).samples
    splits = {}
    for sample in samples:
        splits.setdefault(sample.name[:9], set()).add(sample.split)
    assert len(splits) == 6
    assert all(len(found) == 1 for found in splits.values())


def test_listed_groups_get_their_split_and_unknown_ones_are_reported(tmp_path):
    rules = rules_from_mapping(
        {"version": 2, "split": {"groups": {"val": ["1", "2"], "test": ["3", "nobody"]}}}
    )
    source = two_folders(tmp_path / "source")
    (finding,) = [f for f in examine(source, rules).findings if f.code == "groups_unknown"]
    assert "nobody" in finding.message
    samples = read_dataset(format_dataset(source, tmp_path / "out", rules)).samples
    splits = {sample.name: sample.split.value for sample in samples}
    assert (splits["1"], splits["2"], splits["3"]) == ("val", "val", "test")
