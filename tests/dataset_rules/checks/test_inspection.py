"""Every kind of defect, planted in a source and found by the doctor and the formatter."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_rules.checks.inspection import Depth
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import Rules, rules_from_mapping
from tests.messy import object_files, put, tissue, two_folders

COUNT = 12


@pytest.fixture
def source(tmp_path):
    return two_folders(tmp_path / "source", COUNT)


def found(source, code, **options):
    findings = [f for f in examine(source, **options).findings if f.code == code]
    assert len(findings) <= 1, findings
    return findings[0] if findings else None


def save(source, path, image, **options):
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    image.save(source / path, **options)


def test_intact_source_has_only_notes(source):
    findings = examine(source).findings
    assert {f.code for f in findings if f.severity != "info"} == set()


def test_every_warning_and_error_has_a_remedy_and_files(source):
    (source / "masks/2.png").unlink()
    put(source, "masks/3.png", np.zeros((9, 9), np.uint8))
    (source / "images/5.png").write_bytes((source / "images/4.png").read_bytes())
    put(source, "logo.png", tissue(70)[0])
    serious = [f for f in examine(source).findings if f.severity != "info"]
    assert {f.code for f in serious} - {"leak"} == {
        "unpaired_images", "size_mismatch", "equal_images", "left_out",
    }  # fmt: skip
    assert all(f.remedy and f.paths for f in serious)


def test_truncated_file_is_found_without_decoding(source):
    file = source / "images/7.png"
    file.write_bytes(file.read_bytes()[:-50])
    finding = found(source, "damaged", depth=Depth.HEADERS)
    assert finding.paths == ("images/7.png",)
    assert finding.severity == "error"


def test_damage_inside_a_file_is_found_by_decoding(source):
    file = source / "images/7.png"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert found(source, "damaged", depth=Depth.FULL).paths == ("images/7.png",)


def test_empty_and_full_masks_are_distinguished(source):
    put(source, "masks/3.png", np.zeros((40, 40), np.uint8))
    put(source, "masks/4.png", np.full((40, 40), 255, np.uint8))
    assert found(source, "empty_masks").paths == ("masks/3.png",)
    full = found(source, "full_masks")
    assert (full.paths, full.looked_at, full.of) == (("masks/4.png",), COUNT, COUNT)


def test_empty_object_file_is_not_an_empty_mask(tmp_path):
    object_files(tmp_path)
    assert found(tmp_path, "empty_masks") is None


@pytest.mark.parametrize("path", ["images/3.png", "masks/3.png"])
def test_transparent_pixels_are_reported(source, path):
    image = Image.open(source / path).convert("RGBA" if "images" in path else "LA")
    image.putalpha(Image.fromarray(np.full((40, 40), 200, np.uint8)))
    save(source, path, image)
    assert found(source, "alpha").paths == (path,)


def test_fully_opaque_alpha_is_no_finding(source):
    save(source, "images/3.png", Image.open(source / "images/3.png").convert("RGBA"))
    assert found(source, "alpha") is None


def test_exif_rotation_is_reported_and_explains_a_size_mismatch(source):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(source, "images/3.png", Image.fromarray(tissue(3, size=40)[0][:30]), exif=exif)
    put(source, "masks/3.png", np.zeros((30, 40), np.uint8))
    assert found(source, "orientation").paths == ("images/3.png",)
    assert found(source, "size_mismatch").message == (
        "the image is 40 x 30 and its mask 30 x 40: it was drawn before the EXIF rotation"
    )


def test_16_bit_images_among_others_are_a_warning(source):
    put(source, "images/3.png", tissue(3)[0].astype(np.uint16) * 200)
    finding = found(source, "deep_images")
    assert (finding.paths, finding.severity) == (("images/3.png",), "warning")


def test_multi_page_stack_is_reported(source):
    tifffile.imwrite(source / "images/20.tif", np.zeros((5, 40, 40), np.uint8))
    finding = found(source, "stack")
    assert finding.paths == ("images/20.tif",)
    assert "5 pages" in finding.message


def test_junk_and_other_ignored_files_are_reported(source):
    for path in ("images/Thumbs.db", "images/desktop.ini", "__MACOSX/._1.png", "readme.txt"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_bytes(b"\0\5\x16\7")
    put(source, "images/1_overlay.png", tissue(1)[0])
    assert set(found(source, "junk").paths) == {
        "images/Thumbs.db", "images/desktop.ini", "__MACOSX/._1.png",
    }  # fmt: skip
    assert found(source, "other_files").paths == ("readme.txt",)


def test_values_of_no_class_are_an_error_that_lists_them(source):
    for number in range(1, COUNT + 1):
        values = np.minimum(tissue(number)[1], 2).astype(np.uint8) * 3
        put(source, f"masks/{number}.png", values)
    rules = rules_from_mapping({
        "version": 2, "source": {"mask_kind": "label"}, "classes": [
            {"id": 0, "name": "b", "source_values": [0]},
            {"id": 1, "name": "o", "source_values": [3]},
        ],
    })  # fmt: skip
    finding = found(source, "unknown_values", rules=rules)
    assert finding.severity == "error"
    assert finding.message == "the mask holds values of no class: 6"
    assert len(finding.paths) == COUNT


def test_copy_in_another_predefined_split_is_a_leak(tmp_path):
    for part, numbers in (("train", range(1, 9)), ("test", range(20, 24))):
        for number in numbers:
            image, instances = tissue(number)
            put(tmp_path, f"{part}/images/{number}.png", image)
            put(tmp_path, f"{part}/masks/{number}.png", (instances > 0).astype(np.uint8))
    (tmp_path / "test/images/20.png").write_bytes((tmp_path / "train/images/2.png").read_bytes())
    findings = {f.message: f for f in examine(tmp_path).findings if f.code == "leak"}
    (own,) = [f for message, f in findings.items() if "own splits" in message]
    assert own.paths == ("test/images/20.png", "train/images/2.png")
    assert "train 8, test 4" in found(tmp_path, "own_splits").message


def test_sample_is_deterministic(source):
    assert examine(source).document() == examine(source).document()


def test_progress_counts_decoded_files(source):
    calls = []  # masks are decoded once for their values and once for their objects
    examine(source, depth=Depth.FULL, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 3 * COUNT) for done in range(1, 3 * COUNT + 1)]


def problems_of(dataset):
    return {p["code"]: p for p in json.loads((dataset / "problems.json").read_bytes())}


def test_formatter_reports_the_same_as_a_full_examination(source, tmp_path):
    put(source, "masks/3.png", np.zeros((40, 40), np.uint8))
    image = tissue(5)[0]
    put(source, "images/6.png", image[:, ::-1])
    save(source, "images/7.png", Image.fromarray(np.dstack([tissue(7)[0], tissue(7)[0][..., 0]])))
    problems = problems_of(format_dataset(source, tmp_path / "out", Rules()))
    report = examine(source, depth=Depth.FULL)
    full = {f.code: f.model_dump(mode="json") for f in report.source_findings}
    assert {"empty_masks", "near_duplicates", "alpha"} <= full.keys()
    for code in ("empty_masks", "near_duplicates", "alpha"):
        assert problems[code]["paths"] == full[code]["paths"]
    assert set(problems) - {"empty_split"} == set(full)


def test_inferred_and_given_rules_give_the_same_id(source, tmp_path):
    put(source, "logo.png", tissue(70)[0])
    given = examine(source).rules
    ids = [
        (format_dataset(source, tmp_path / name, rules) / "manifest.json").read_bytes()
        for name, rules in (("inferred", Rules()), ("given", given))
    ]
    assert ids[0] == ids[1]


def test_formatter_rejects_header_errors_before_writing(source, tmp_path):
    file = source / "images/7.png"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(RulesError, match=r"images/7\.png"):
        format_dataset(source, tmp_path / "out", Rules())
    assert not (tmp_path / "out").exists()
