"""Known defects of the real datasets are all reported, with their files."""

import pytest

from dataset_rules.doctor.examine import examine

# dataset: finding code -> number of files, and some of them
EXPECTED = {
    "monuseg2018": {
        "unpaired_masks": (2, ["TCGA-BC-A217-01Z-00-DX1.png"]),
        "junk": (22, [".DS_Store", "__MACOSX/"]),
        "alpha": (10, ["masks/TCGA-A7-A13E-01Z-00-DX1.png"]),
    },
    "monuseg_crops_triplets": {
        "derived_files": (20, ["pred_0.png", "pred_19.png"]),
        "prefix_names": (0, []),
    },
    "pitsun_ihc_2021": {
        "two_populations": (10, [f"image/{n}.png" for n in range(14, 24)]),
        "leak": (18, ["test/0.png", "test/0f.png", "train/image/8.png"]),
        "equal_images": (14, ["test/0.png", "train/image/8.png"]),
        "derived_files": (8, ["0_predict.png"]),
    },
    "wbc": {
        "equal_images": (2, ["112.bmp", "139.bmp"]),
        "leak": (8, ["112.bmp", "139.bmp", "157.bmp", "158.bmp"]),
    },
    "isbi2012_em": {"derived_files": (10, ["0_predict.png"])},
    "camvid_segnet": {"own_splits": (22, ["CamVid/train/"])},
    "stardist_sample": {
        "stack": (4, ["img3d.tif", "mask3d.tif"]),
        "deep_images": (1, ["img2d.tif"]),
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_known_defects_of_a_real_dataset_are_reported(real_data, name):
    findings = {finding.code: finding for finding in examine(real_data(name)).findings}
    for code, (count, some) in EXPECTED[name].items():
        paths = findings[code].paths
        assert len(paths) == count, (code, paths)
        assert all(any(part in path for path in paths) for part in some), (code, paths)


def test_cells_that_were_photographed_twice_are_near_duplicates(real_data):
    found = [f.paths for f in examine(real_data("wbc")).findings if f.code == "near_duplicates"]
    pairs = [("157", "158"), ("166", "171"), ("167", "169")]
    assert found == [tuple(f"Dataset 1/{number}.bmp" for number in pair) for pair in pairs]


@pytest.mark.parametrize("name", ["monuseg_crops_triplets", "isbi2012_em", "camvid_segnet"])
def test_neighbours_in_tissue_or_time_are_not_copies(real_data, name):
    codes = {finding.code for finding in examine(real_data(name)).findings}
    assert not codes & {"near_duplicates", "equal_images", "leak", "likely_swap"}
