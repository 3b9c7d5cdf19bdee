"""Real datasets as archives: the report equals that on the folder."""

import tarfile
import zipfile

import pytest
import zstandard

from dataset_rules.doctor.examine import examine

NAMES = [
    "dsb2018_nuclei", "monuseg2018", "monuseg_crops_triplets", "deepliif_sample",
    "pitsun_ihc_2021", "wbc", "isbi2012_em", "camvid_segnet", "stardist_sample",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_report_on_a_packed_dataset_equals_that_on_its_folder(real_data, tmp_path, name):
    folder = real_data(name)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in paths:
            packed.write(path, path.relative_to(folder))
    with (
        (tmp_path / "a.tar.zst").open("wb") as out,
        zstandard.ZstdCompressor(level=1).stream_writer(out) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        for path in reversed(paths):
            tar.add(path, path.relative_to(folder))
    expected = examine(folder).document()
    assert examine(tmp_path / "a.zip").document() == expected
    assert examine(tmp_path / "a.tar.zst").document() == expected
