"""Folds of two real datasets with common tissue, verified by pixel correlation."""

import json
from pathlib import Path

import cv2
import pytest

from dataset_rules.doctor.examine import examine_folder
from dataset_rules.formatting.format import format_dataset
from dataset_rules.rules.rules import rules_document, rules_from_mapping
from dataset_rules.sources.files import open_files
from tests.conftest import ROOT
from unet.runs.folds import Fold, make_folds, read_fold_rule

pytestmark = [pytest.mark.long]

SAME = (
    0.5  # correlation of a crop with the place in a whole image that it was cut from: 0.58 to 0.7
)
OTHER = 0.3  # of crops with images of other tissue: at most 0.25


def formatted(source: Path, out: Path) -> Path:
    with open_files(source) as files:
        document = rules_document(examine_folder(files, None).rules)
    document["split"] |= {"train": 1.0, "val": 0.0, "test": 0.0}
    format_dataset(source, out, rules_from_mapping(document))
    return out


def grey(fold_side: tuple, dataset: Path) -> dict:
    return {s.name: cv2.imread(str(d / s.image.path), cv2.IMREAD_GRAYSCALE)
            for d, s in fold_side if d == dataset}  # fmt: skip


def correlations(fold: Fold, crops: Path, whole: Path) -> dict[str, float]:
    """Highest correlation of each held-out crop with any whole training image."""
    images = [cv2.resize(image, (1024, 1024)) for image in
              grey(fold.training, whole).values()]  # fmt: skip
    return {
        name: max(float(cv2.matchTemplate(image, crop, cv2.TM_CCOEFF_NORMED).max())
                  for image in images)
        for name, crop in grey(fold.held_out, crops).items()
    }  # fmt: skip


def test_no_fold_trains_on_the_tissue_of_a_crop_that_it_is_scored_on(real_data, tmp_path: Path):
    whole = formatted(real_data("monuseg2018"), tmp_path / "whole")
    crops = formatted(real_data("monuseg_crops_triplets"), tmp_path / "crops")
    rule = read_fold_rule(str(ROOT / "benchmarks" / "monuseg_folds.json"))
    folds = make_folds([whole, crops], rule)
    held_out = [s.name for fold in folds.folds for d, s in fold.held_out if d == crops]
    assert sorted(held_out) == sorted(f"img_{i}" for i in range(20))
    found = [correlations(fold, crops, whole) for fold in folds.folds]
    assert max(value for row in found for value in row.values()) < OTHER


def test_without_the_rule_tissues_would_leak(real_data, tmp_path: Path) -> None:
    whole = formatted(real_data("monuseg2018"), tmp_path / "whole")
    crops = formatted(real_data("monuseg_crops_triplets"), tmp_path / "crops")
    stated = json.loads((ROOT / "benchmarks" / "monuseg_folds.json").read_text())
    tissue = "TCGA-AR-A1AS-01Z-00-DX1"
    folds = make_folds([whole, crops], read_fold_rule(str(ROOT / "benchmarks/monuseg_folds.json")))
    first = folds.folds[0]
    slide = next(cv2.imread(str(d / s.image.path), cv2.IMREAD_GRAYSCALE)
                 for d, s in first.held_out if s.name == tissue)  # fmt: skip
    slide = cv2.resize(slide, (1024, 1024))
    assert {s.name for d, s in first.held_out if d == crops} == set(stated["same"][tissue])
    for crop in grey(first.held_out, crops).values():
        assert cv2.matchTemplate(slide, crop, cv2.TM_CCOEFF_NORMED).max() > SAME
