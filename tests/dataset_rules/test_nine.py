"""The nine real datasets in their original layout: findings, pairs, and every mask pixel.

Expected pairs and masks are computed from the conventions of each dataset with plain numpy and
Pillow, independent of the code under test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.doctor.examine import Report, examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.rules.fields import SourceRule
from dataset_rules.rules.rules import Rules

MAX_SOME = 4  # pairs formatted in the quick run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def grays(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def bright_is_object(masks: list[Path]) -> np.ndarray:
    return (grays(masks[0]) >= 128).astype(np.uint8)


def dark_is_object(masks: list[Path]) -> np.ndarray:
    return (grays(masks[0]) < 128).astype(np.uint8)


def as_they_are(masks: list[Path]) -> np.ndarray:
    return pixels(masks[0]).astype(np.uint8)


def any_object(masks: list[Path]) -> np.ndarray:
    return np.maximum.reduce([(pixels(path) > 127).astype(np.uint8) for path in masks])


def cells(masks: list[Path]) -> np.ndarray:
    values = grays(masks[0])
    assert set(np.unique(values)) <= {0, 128, 255}
    return np.select([values == 128, values == 255], [1, 2]).astype(np.uint8)


def stained(masks: list[Path]) -> np.ndarray:
    """Black, blue, red and green become 0, 1, 2 and 255; other colours map to the nearest."""
    colors = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0], [0, 255, 0]])
    distance = ((pixels(masks[0])[..., None, :].astype(int) - colors) ** 2).sum(-1)
    return np.array([0, 1, 2, 255], np.uint8)[distance.argmin(-1)]


def numbers(masks: list[Path]) -> np.ndarray:
    return pixels(masks[0]).astype(np.uint16)


def numbered(masks: list[Path]) -> np.ndarray:
    """Number the files in the order of their names; later ones win."""
    found = np.zeros(pixels(masks[0]).shape, np.uint16)
    for number, path in enumerate(masks, start=1):
        found[pixels(path) > 127] = number
    return found


@dataclass(frozen=True)
class Real:
    """The expected result for one dataset."""

    pairs: int
    images: str  # glob pattern of the images with a mask
    mask_of: Callable[[Path], list[Path]]
    kind: str | None
    values: tuple  # source values of each class
    label: Callable[[list[Path]], np.ndarray]
    instances: Callable[[list[Path]], np.ndarray] | None = None
    unpaired_images: int = 0
    unpaired_masks: int = 0
    ignored: int = 0
    ignore_values: tuple = ()
    question: str | None = None
    findings: tuple = ()  # code, and a substring of a path or the message
    distractors: tuple = ()  # substrings that no path of a pair contains


def replaced(*changes: tuple[str, str]) -> Callable[[Path], list[Path]]:
    """The mask path is the image path with these substrings replaced."""

    def mask_of(image: Path) -> list[Path]:
        text = image.as_posix()
        for old, new in changes:
            text = text.replace(old, new)
        return [Path(text)]

    return mask_of


NINE = {
    "dsb2018_nuclei": Real(
        pairs=330, images="stage1_train/*/images/*.png",
        mask_of=lambda image: sorted((image.parent.parent / "masks").glob("*.png")),
        kind="instance_files", values=((0,), (255,)), label=any_object, instances=numbered,
        ignored=2, findings=(("image_sizes", "from 256 x 256 to 520 x 696"),),
    ),
    "monuseg2018": Real(
        pairs=10, images="data/MoNuSegTrainData/tissue_image/*.tif",
        mask_of=replaced(("/tissue_image/", "/masks/"), (".tif", ".png")),
        kind="binary", values=((0,), (255,)), label=bright_is_object,
        unpaired_masks=2, ignored=24, distractors=("__MACOSX", "._"),
        findings=(("alpha", "masks/TCGA-18-5592-01Z-00-DX1.png"), ("junk", "/._TCGA-18-5592"),
                  ("unpaired_masks", "TCGA-BC-A217-01Z-00-DX1.png"),
                  ("unpaired_masks", "TCGA-F9-A8NY-01Z-00-DX1.png")),
    ),
    "monuseg_crops_triplets": Real(
        pairs=20, images="MoNuSeg_results/img_*.png", mask_of=replaced(("/img_", "/label_")),
        kind="binary", values=((0,), (255,)), label=bright_is_object,
        ignored=21, distractors=("pred_",),
        findings=(("derived_files", "pred_10.png"), ("prefix_names", "img_1 and img_10")),
    ),
    "deepliif_sample": Real(
        pairs=4, images="Datasets/Sample_Dataset/test_cli/*.png",
        mask_of=replaced(("/test_cli/", "/test_groundtruth/")),
        kind="colors", values=(((0, 0, 0),), ((0, 0, 255),), ((255, 0, 0),)), label=stained,
        ignored=11, ignore_values=((0, 255, 0),), distractors=("/train/", "/test/"),
        findings=(("composites", "train/Lung1.png"), ("composites", "6 panels"),
                  ("composites", "test/22_2.png"), ("composites", "hold no label"),
                  ("stain_colors", "blue negative, red positive"), ("blended_colors", "9 further")),
    ),
    "pitsun_ihc_2021": Real(
        pairs=24, images="data/membrane/train/image/*.png",
        mask_of=replaced(("/image/", "/label/")),
        kind="inverted", values=((255,), (0,)), label=dark_is_object, ignored=23,
        question="source.object_value", distractors=("predict", "/test/"),
        findings=(("soft_masks", "between 0 and 255"), ("two_populations", "train/image/14.png"),
                  ("leak", "test/0.png"), ("equal_images", "test/0.png"),
                  ("near_duplicates", "test/1f.png"), ("derived_files", "test/0_predict.png")),
    ),
    "wbc": Real(
        pairs=300, images="Dataset 1/*.bmp", mask_of=replaced((".bmp", ".png")),
        kind="label", values=((0,), (128,), (255,)), label=cells, ignored=4,
        findings=(("image_sizes", "30 sizes"), ("equal_images", "Dataset 1/112.bmp")),
    ),
    "isbi2012_em": Real(
        pairs=24, images="data/membrane/train/image/*.png",
        mask_of=replaced(("/image/", "/label/")),
        kind="inverted", values=((255,), (0,)), label=dark_is_object, ignored=23,
        question="source.object_value", distractors=("predict", "/test/"),
        findings=(("derived_files", "test/0_predict.png"), ("left_out", "test/0.png")),
    ),
    "camvid_segnet": Real(
        pairs=40, images="CamVid/*/*.png",
        mask_of=replaced(("/train/", "/trainannot/"), ("/val/", "/valannot/")),
        kind="label", values=tuple((value,) for value in range(12)), label=as_they_are, ignored=4,
        findings=(("absent_files", "lists 367 samples, 29 of them"),
                  ("absent_files", "lists 101 samples, 11 of them"),
                  ("absent_files", "lists 233 samples, 0 of them")),
    ),
    "stardist_sample": Real(
        pairs=2, images="**/img2d.tif", mask_of=replaced(("/img2d", "/mask2d")),
        kind="instances", values=((0,), ()), label=lambda masks: numbers(masks) > 0,
        instances=numbers, unpaired_images=1, ignored=6, distractors=("3d",),
        findings=(("stack", "31 pages"), ("stack", "tests/data/img3d.tif"),
                  ("unpaired_images", "histo.jpg"), ("deep_images", "data/images/img2d.tif")),
    ),
}  # fmt: skip


def expected_pairs(name: str, folder: Path) -> dict[str, list[str]]:
    """Image -> masks by the convention of the dataset, as relative paths."""
    real = NINE[name]
    pairs = {}
    for image in sorted(folder.glob(real.images)):
        masks = real.mask_of(image)
        if "annot" not in image.parent.name and all(path.is_file() for path in masks):
            pairs[image.relative_to(folder).as_posix()] = [
                path.relative_to(folder).as_posix() for path in masks
            ]
    return pairs


@cache
def first_report(folder: Path) -> Report:
    return examine(folder)


@cache
def report_of(folder: Path) -> Report:
    """The report after answering its question, if there is one."""
    questions = first_report(folder).questions
    if not questions:
        return first_report(folder)
    return examine(folder, Rules(source=SourceRule(object_value=0)))


@pytest.mark.parametrize("name", NINE)
def test_every_pair_is_found_and_no_distractor(real_data, name):
    folder, real = real_data(name), NINE[name]
    report = report_of(folder)
    pairs = {pair.image: list(pair.masks) for pair in report.pairing.pairs}
    assert len(pairs) == real.pairs
    assert pairs == expected_pairs(name, folder)
    paths = [path for image, masks in pairs.items() for path in (image, *masks)]
    assert not [path for path in paths if any(word in path for word in real.distractors)]


@pytest.mark.parametrize("name", NINE)
def test_counts_mask_kind_and_classes_are_as_expected(real_data, name):
    real, document = NINE[name], report_of(real_data(name)).document()
    counts = [len(document[key]) for key in ("unpaired_images", "unpaired_masks", "ignored")]
    assert counts == [real.unpaired_images, real.unpaired_masks, real.ignored]
    assert document["mask_kind"] == real.kind
    values = [rule["source_values"] for rule in document["classes"]]
    assert values == [[list(v) if isinstance(v, tuple) else v for v in of] for of in real.values]
    assert document["rules"]["ignore_values"] == [list(value) for value in real.ignore_values]
    assert document["rules"]["fit"] == "keep"


@pytest.mark.parametrize("name", NINE)
def test_questions_are_asked_only_if_necessary_and_answered_in_one_line(real_data, name):
    folder, real = real_data(name), NINE[name]
    first = first_report(folder)
    assert [q.field for q in first.questions] == ([real.question] if real.question else [])
    if real.question:
        assert first.questions[0].options == (0, 255)
        assert first.document()["mask_kind"] is None
    assert not report_of(folder).questions


@pytest.mark.parametrize("name", NINE)
def test_defects_are_reported(real_data, name):
    findings = report_of(real_data(name)).findings
    for code, words in NINE[name].findings:
        texts = [" ".join((f.message, *f.paths)) for f in findings if f.code == code]
        assert [text for text in texts if words in text], (code, words, texts)
    assert not [finding for finding in findings if finding.severity == "error"]


def assert_formatted_as_expected(name: str, folder: Path, out: Path) -> int:
    """Compare every mask of the dataset with the expected one; return their number."""
    real, pairs = NINE[name], expected_pairs(name, folder)
    samples = read_dataset(out).samples
    for sample in samples:
        masks = [folder / path for path in pairs[sample.image.source]]
        assert np.array_equal(pixels(out / sample.mask.path), real.label(masks)), sample.name
        assert (sample.instances is not None) == (real.instances is not None)
        if sample.instances and real.instances:
            assert np.array_equal(pixels(out / sample.instances), real.instances(masks))
    return len({sample.image.source for sample in samples})


def some_of(name: str, folder: Path, target: Path) -> Path:
    """Symlinks to a few pairs."""
    pairs = expected_pairs(name, folder)
    for image in list(pairs)[:: -(-len(pairs) // MAX_SOME)]:
        for path in (image, *pairs[image]):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).symlink_to(folder / path)
    return target


@pytest.mark.parametrize("name", NINE)
def test_proposed_rules_give_the_expected_masks_for_a_few_pairs(real_data, tmp_path, name):
    folder = real_data(name)
    some = some_of(name, folder, tmp_path / "source")
    out = format_dataset(some, tmp_path / "out", report_of(folder).rules, jobs=1)
    assert assert_formatted_as_expected(name, folder, out) == min(NINE[name].pairs, MAX_SOME)


@pytest.mark.long
@pytest.mark.parametrize("name", NINE)
def test_proposed_rules_give_every_expected_mask(real_data, tmp_path, name):
    folder = real_data(name)
    out = format_dataset(folder, tmp_path / "out", report_of(folder).rules)
    compared = assert_formatted_as_expected(name, folder, out)
    print(f"{name}: {compared} of {NINE[name].pairs} masks equal")  # noqa: T201
    assert compared == NINE[name].pairs


def test_source_with_only_stacks_is_rejected_with_a_clear_message(real_data, tmp_path):
    stardist = real_data("stardist_sample") / "tests/data"
    for name in ("img3d.tif", "mask3d.tif"):
        (tmp_path / name).symlink_to(stardist / name)
    errors = [f for f in examine(tmp_path).findings if f.severity == "error"]
    assert [(f.code, f.message) for f in errors if "stack" in f.message] == [
        ("stack", "the file is a stack of pages: 31 pages")
    ]


def test_duplicate_cell_is_reported(real_data):
    findings = report_of(real_data("wbc")).findings
    assert ("Dataset 1/112.bmp", "Dataset 1/139.bmp") in [finding.paths for finding in findings]


def test_composites_are_read_with_the_rules_proposed_by_their_finding(real_data, tmp_path):
    folder = real_data("deepliif_sample")
    (line,) = [
        finding.remedy.partition("rules ")[2]
        for finding in report_of(folder).findings
        if finding.code == "composites" and "panel 5" in finding.message
    ]
    rules = Rules.model_validate_json('{"version": 2, ' + line + "}")
    out = format_dataset(folder, tmp_path / "out", rules)
    dataset = read_dataset(out)
    assert [sample.name for sample in dataset.samples] == ["Bladder1", "Lung1"]
    for sample in dataset.samples:
        composite = pixels(folder / sample.image.source)
        assert np.array_equal(pixels(out / sample.image.path), composite[:, :512])
        assert pixels(out / sample.mask.path).shape == (512, 512)
