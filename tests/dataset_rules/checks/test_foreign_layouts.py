from pathlib import Path

import numpy as np
import pytest

from dataset_rules.doctor.examine import examine
from dataset_rules.exchange.export import export_dataset
from dataset_rules.exchange.layout import Layout
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Severity
from dataset_rules.rules.rules import Rules
from tests.messy import put, tissue, two_folders


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    return format_dataset(two_folders(place / "source", 6), place / "dataset", Rules(), jobs=1)


def found(source: Path):
    return [f for f in examine(source).findings if f.code == "other_tool"]


@pytest.mark.parametrize("layout", Layout)
def test_export_is_recognised_and_the_import_command_suggested(dataset, tmp_path, layout):
    folder = export_dataset(dataset, tmp_path / "out", layout)
    (finding,) = found(folder)
    assert f"unetops import-dataset SRC OUT --from {layout}" in finding.remedy
    is_read = bool(examine(folder).pairing.pairs)
    assert finding.severity is (Severity.INFO if is_read else Severity.ERROR)


def test_formatting_a_coco_folder_suggests_the_import_command(dataset, tmp_path):
    folder = export_dataset(dataset, tmp_path / "out", Layout.COCO)
    with pytest.raises(RulesError, match="import-dataset SRC OUT --from coco"):
        format_dataset(folder, tmp_path / "made", Rules())


def test_unrelated_documents_are_not_a_layout(tmp_path):
    two_folders(tmp_path)
    for name, text in {
        "config.json": '{"images": "images", "epochs": 3}', "dataset.json": "{", "a.yaml": "a: 1",
        "labels/notes.txt": "none",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    put(tmp_path, "imagesTr/1.png", tissue(1)[0])
    assert found(tmp_path) == []


def test_masks_next_to_images_are_paired_and_cellpose_is_only_mentioned(tmp_path):
    for number in range(4):
        image, instances = tissue(number)
        put(tmp_path, f"{number}.png", image)
        put(tmp_path, f"{number}_masks.png", instances.astype(np.uint16))
    (finding,) = found(tmp_path)
    assert finding.severity is Severity.INFO
    assert "cellpose" in finding.remedy
