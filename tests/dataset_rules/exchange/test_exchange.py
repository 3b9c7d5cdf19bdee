"""Round trips: everything a layout can represent is restored exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from dataset_rules.artifacts.dataset import DATASET, IGNORE, Split, read_dataset, read_sample
from dataset_rules.artifacts.lineage import is_intact, trace
from dataset_rules.artifacts.manifest import (
    Step,
    begin,
    contradictions,
    finish,
    make_source,
    read_artifact,
)
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.exchange.export import export_dataset, export_files
from dataset_rules.exchange.importing import import_dataset
from dataset_rules.exchange.layout import EXPORT, Layout
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.pixels.images import encode
from dataset_rules.rules.fields import SourceRule
from dataset_rules.rules.rules import Rules, rules_document, rules_from_mapping
from tests.messy import put, tissue, two_folders

CLASSES = [{"id": 0, "name": "background"}, {"id": 2, "name": "tumour cell"},
           {"id": 5, "name": "ümlaut"}]  # fmt: skip
SPLITS = ["train", "train", "train", "val", "test"]


def draw(seed):
    """Image, label mask (two classes, ignored pixels), instance map (a ring, a split object)."""
    rng = np.random.default_rng(seed)
    image, instances = tissue(seed, size=48)
    label = np.where(instances % 2 == 1, 2, 5).astype(np.uint8) * (instances > 0)
    ring = np.hypot(*np.mgrid[-24:24, -24:24])
    instances[(ring < 20) & (ring > 16)] = 40  # a ring around other objects
    label[instances == 40] = 2
    instances[:3, :3] = instances[40:44, 44:46] = 41  # an object of two parts
    label[instances == 41] = 5
    label[44:47, 5:9] = IGNORE
    instances[44:47, 5:9] = 0
    return image + rng.integers(0, 3, image.shape, np.uint8) // 2, label.astype(np.uint8), instances


def write(folder, *, has_instances=True, suffix=".png", grey=False, classes=CLASSES, pixels=draw):
    """A finished dataset with gaps in its class ids."""
    rules = rules_document(Rules(color_model="grayscale" if grey else "rgb"))
    source = make_source({"a.png": "0" * 64}, location="drawn", started=datetime.now(UTC))
    step = Step("dataset", 1, (source,), {"rules": rules})
    begin(folder, step)
    samples = []
    for seed, split in enumerate(SPLITS):
        image, label, instances = pixels(seed)
        name = f"slide {seed}"
        paths = [f"{split}/images/{name}{suffix}", f"{split}/masks/{name}_mask.png",
                 f"instances/{name}.png"]  # fmt: skip
        put(folder, paths[0], image[..., 0] if grey else image)
        put(folder, paths[1], label)
        if has_instances:
            put(folder, paths[2], instances)
        samples.append({
            "name": name, "split": split, "group": f"patient {seed // 2}",
            "image": {"path": paths[0], "source": "x.png"},
            "mask": {"path": paths[1], "sources": ["x.png"]},
            "instances": paths[2] if has_instances else None, "pixel_size_um": 0.25,
        })  # fmt: skip
    write_json(folder / DATASET, {"samples": samples, "classes": classes})
    write_json(folder / "rules.json", rules)
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.is_file()]
    content = dict.fromkeys(f for f in files if not f.startswith("."))
    finish(folder, step, content=content, started=datetime.now(UTC))
    return folder


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "dataset")


def round_trip(dataset, tmp_path, layout):
    out = export_dataset(dataset, tmp_path / "out", layout)
    back = import_dataset(out, tmp_path / "back", layout)
    for folder in (out, back):
        assert altered_files(folder) == contradictions(folder) == []
    return out, back


def pairs(dataset, back):
    """(image, label, instances) of each sample before and after; checks names and splits."""
    before, after = read_dataset(dataset), read_dataset(back)
    assert [(s.name, s.split) for s in before.samples] == [(s.name, s.split) for s in after.samples]
    for original, restored in zip(before.samples, after.samples, strict=True):
        yield read_sample(dataset, original), read_sample(back, restored)


def notes(out):
    return " ".join(json.loads((out / EXPORT).read_bytes())["said"])


def facts(out):
    return json.loads((out / EXPORT).read_bytes())["facts"]


@pytest.mark.parametrize("has_instances", [True, False])
@pytest.mark.parametrize(("suffix", "grey"), [(".png", False), (".bmp", True), (".jpg", False)])
def test_coco_restores_every_pixel(tmp_path, has_instances, suffix, grey):
    dataset = write(tmp_path / "dataset", has_instances=has_instances, suffix=suffix, grey=grey)
    out, back = round_trip(dataset, tmp_path, Layout.COCO)
    for before, after in pairs(dataset, back):
        assert np.array_equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])
        assert np.array_equal(before[2], after[2]) if has_instances else after[2] is None
    assert [c.model_dump() for c in read_dataset(back).classes] == CLASSES
    assert {s.pixel_size_um for s in read_dataset(back).samples} == {0.25}
    assert [s.group for s in read_dataset(back).samples] == [f"patient {n // 2}" for n in range(5)]
    assert ("connected parts" in notes(out)) is not has_instances


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and numpy 2
def test_pycocotools_decodes_our_coco_to_equal_masks(dataset, tmp_path, capsys):
    out = export_dataset(dataset, tmp_path / "out", Layout.COCO)
    samples = {sample.name: sample for sample in read_dataset(dataset).samples}
    seen = set()
    for split in Split:
        coco = COCO(out / "annotations" / f"instances_{split}.json")
        for entry in coco.loadImgs(coco.getImgIds()):
            name = entry["file_name"].removesuffix(".png")
            seen.add(name)
            _, label, instances = read_sample(dataset, samples[name])
            assert (out / split / entry["file_name"]).is_file()
            found = np.zeros_like(label)
            for item in coco.loadAnns(coco.getAnnIds(entry["id"])):
                area = coco.annToMask(item).astype(bool)
                assert area.sum() == item["area"]
                rows, columns = np.nonzero(area)
                left, top, width, height = item["bbox"]
                assert (columns.min(), rows.min()) == (left, top)
                assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (width, height)
                assert (instances[area] == item["object_number"]).all()
                assert not found[area].any()
                found[area] = item["category_id"]
            assert np.array_equal(found, label)
    assert seen == samples.keys()
    capsys.readouterr()


def test_nnunet_restores_the_label_masks(dataset, tmp_path):
    out, back = round_trip(dataset, tmp_path, Layout.NNUNET)
    for before, after in pairs(dataset, back):
        assert np.array_equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])
        assert after[2] is None
    assert [c.model_dump() for c in read_dataset(back).classes] == CLASSES
    document = json.loads((out / "dataset.json").read_bytes())
    assert document == {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "numTraining": 4, "file_ending": ".png",
        "labels": {"background": 0, "tumour cell": 1, "ümlaut": 2, "ignore": 3},
    }  # fmt: skip
    assert json.loads((out / "splits_final.json").read_bytes()) == [
        {"train": ["slide 0", "slide 1", "slide 2"], "val": ["slide 3"]}
    ]
    assert sorted(p.name for p in out.glob("images*/*")) == [
        f"slide {n}_0000.png" for n in range(5)
    ]
    label = np.asarray(Image.open(out / "labelsTs" / "slide 4.png"))
    assert np.array_equal(label, np.array([0, 0, 1, 0, 0, 2], np.uint8)[draw(4)[1] % 255]
                          + (draw(4)[1] == IGNORE) * 3)  # fmt: skip
    assert "instance maps are left out" in notes(out)


def test_nnunet_converts_other_formats_to_png_losslessly(tmp_path):
    dataset = write(tmp_path / "dataset", suffix=".jpg", grey=True)
    out, back = round_trip(dataset, tmp_path, Layout.NNUNET)
    assert all(np.array_equal(b[0], a[0]) for b, a in pairs(dataset, back))
    assert json.loads((out / "dataset.json").read_bytes())["channel_names"] == {"0": "grey"}
    assert facts(out)["reencoded_images"] == 5


def test_cellpose_restores_the_instance_maps(dataset, tmp_path):
    out, back = round_trip(dataset, tmp_path, Layout.CELLPOSE)
    for before, after in pairs(dataset, back):
        assert np.array_equal(before[0], after[0])
        assert np.array_equal(before[2], after[2])
        assert np.array_equal(after[1], before[2] > 0)
    stored = Image.open(out / "test" / "slide 4_masks.png")
    assert stored.mode.startswith("I;16")
    assert np.array_equal(np.asarray(stored), draw(4)[2])
    assert "not told apart" in notes(out)
    assert "ignored pixels became background" in notes(out)


def test_cellpose_keeps_the_name_of_a_single_class(tmp_path):
    def one_class(seed):
        image, label, instances = draw(seed)
        return image, (label == 2).astype(np.uint8) * 2, instances

    dataset = write(tmp_path / "dataset", has_instances=False, pixels=one_class,
                    classes=CLASSES[:2])  # fmt: skip
    _, back = round_trip(dataset, tmp_path, Layout.CELLPOSE)
    assert [c.model_dump() for c in read_dataset(back).classes] == CLASSES[:2]
    for before, after in pairs(dataset, back):
        assert np.array_equal(before[1], after[1])
        count, _ = cv2.connectedComponents((before[1] == 2).astype(np.uint8), connectivity=4)
        assert after[2].max() == count - 1


def test_yolo_restores_everything_except_lines_between_parts(dataset, tmp_path):
    out, back = round_trip(dataset, tmp_path, Layout.YOLO)
    whole = ious = 0
    for before, after in pairs(dataset, back):
        assert np.array_equal(before[0], after[0])
        label = np.where(before[1] == IGNORE, 0, before[1])
        areas = [before[2] == number for number in np.unique(before[2][before[2] > 0])]
        whole += sum(cv2.connectedComponents(a.astype(np.uint8), None, 8)[0] == 2 for a in areas)
        ious += (label > 0)[after[1] > 0].mean() / len(SPLITS)
        assert (after[1] > 0)[label > 0].all()
    assert 0.9 < ious < 1
    assert facts(out)["exact_objects"] == whole < facts(out)["objects"]
    assert 0.1 < facts(out)["iou_min"] < facts(out)["iou_mean"] < 1
    assert f"least {facts(out)['iou_min']}" in notes(out)
    assert [c.model_dump() for c in read_dataset(back).classes] == CLASSES


def test_yolo_outlines_are_filled_the_same_by_a_trainer(tmp_path):
    """Filled like in Ultralytics: corners truncated to integers, cv2.fillPoly."""
    dataset = write(tmp_path / "dataset", has_instances=False)
    out = export_dataset(dataset, tmp_path / "out", Layout.YOLO)
    assert facts(out)["iou_min"] == 1
    for sample in read_dataset(dataset).samples:
        _, label, _ = read_sample(dataset, sample)
        drawn = np.zeros_like(label)
        lines = (out / "labels" / sample.split / f"{sample.name}.txt").read_text().splitlines()
        for line in lines:
            index, *shares = line.split()
            corners = np.array(shares, float).reshape(-1, 2) * label.shape[::-1]
            assert len(corners) >= 3
            cv2.fillPoly(drawn, [corners.astype(np.int32)], [2, 5][int(index)])
        assert np.array_equal(drawn, np.where(label == IGNORE, 0, label))


@pytest.mark.parametrize("layout", Layout)
def test_lineage_of_an_import_leads_through_the_export_to_the_original_source(
    dataset, tmp_path, layout
):
    _, back = round_trip(dataset, tmp_path, layout)
    links = trace(back)
    assert is_intact(links)
    assert [link.kind for link in links if link.kind != "rules"][:4] == [
        "dataset", "export", "dataset", "source",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", Layout)
def test_archive_of_an_export_gives_the_same_pixels_as_its_folder(dataset, tmp_path, layout):
    out, back = round_trip(dataset, tmp_path, layout)
    (tmp_path / "packed").mkdir()
    for file in export_files(dataset, layout):  # as sent by the service: no manifest
        path = tmp_path / "packed" / "top" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        path.write_bytes(data)
        assert data == (out / file.path).read_bytes()
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "packed")
    again = import_dataset(tmp_path / archive, tmp_path / "again", layout)
    of_folder, of_archive = (json.loads(read_artifact(f).manifest) for f in (back, again))
    assert of_folder["files"] == of_archive["files"]
    assert of_folder["inputs"][0]["kind"] == "export"
    assert of_archive["inputs"][0]["kind"] == "source"


@pytest.mark.parametrize("layout", Layout)
def test_ids_do_not_depend_on_the_folder(dataset, tmp_path, layout):
    out, back = round_trip(dataset, tmp_path, layout)
    again = export_dataset(dataset, tmp_path / "again", layout)
    assert read_artifact(again).id == read_artifact(out).id
    once_more = import_dataset(again, tmp_path / "once more", layout)
    assert read_artifact(once_more).id == read_artifact(back).id


def test_finished_folder_is_returned_and_a_different_one_rejected(dataset, tmp_path):
    out, back = round_trip(dataset, tmp_path, Layout.COCO)
    assert export_dataset(dataset, out, Layout.COCO) == out
    assert import_dataset(out, back, Layout.COCO) == back
    with pytest.raises(ArtifactError, match="another result"):
        export_dataset(dataset, out, Layout.YOLO)
    with pytest.raises(ArtifactError, match="inside a finished result"):
        export_dataset(dataset, dataset / "coco", Layout.COCO)


def test_altered_dataset_is_not_exported(dataset, tmp_path):
    put(dataset, "test/masks/slide 4_mask.png", np.zeros((48, 48), np.uint8))
    with pytest.raises(ArtifactError, match="not what was sealed"):
        export_dataset(dataset, tmp_path / "out", Layout.COCO)
    assert not (tmp_path / "out").exists()


def test_rules_decide_size_and_the_split_of_listed_groups(dataset, tmp_path):
    out = export_dataset(dataset, tmp_path / "out", Layout.COCO)
    rules = rules_from_mapping({
        "version": 2, "fit": "stretch", "height": 24, "width": 24, "color_model": "grayscale",
        "split": {"groups": {"test": ["patient 0"]}},
        "classes": [CLASSES[0], {"id": 2, "name": "a"}, {"id": 5, "name": "b"}],
    })  # fmt: skip
    back = import_dataset(out, tmp_path / "back", Layout.COCO, rules=rules)
    dataset = read_dataset(back)
    assert [s.name for s in dataset.of(Split.TEST)] == ["slide 0", "slide 1", "slide 4"]
    assert [c.name for c in dataset.classes] == ["background", "a", "b"]
    assert read_sample(back, dataset.samples[0])[0].shape == (24, 24)
    wrong = rules.model_copy(update={"classes": rules.classes[:2]})
    with pytest.raises(RulesError, match="not those of the folder"):
        import_dataset(out, tmp_path / "other", Layout.COCO, rules=wrong)


def test_names_with_a_special_meaning_in_a_tool_are_rejected(tmp_path):
    dataset = write(tmp_path / "a", classes=[*CLASSES[:2], {"id": 5, "name": "ignore"}])
    with pytest.raises(RulesError, match="identifies classes by name"):
        export_dataset(dataset, tmp_path / "out", Layout.NNUNET)
    assert not (tmp_path / "out").exists()
    source = two_folders(tmp_path / "source", 3)
    for folder in ("images", "masks"):
        (source / folder / "1.png").rename(source / folder / "1_masks.png")
    dataset = format_dataset(source, tmp_path / "b", Rules(), jobs=1)
    with pytest.raises(RulesError, match="its own results"):
        export_dataset(dataset, tmp_path / "out", Layout.CELLPOSE)


RUN = """
import sys
from pathlib import Path
from dataset_rules.exchange.export import export_dataset
from dataset_rules.exchange.importing import import_dataset
from dataset_rules.exchange.layout import Layout
step = {"export": export_dataset, "import": import_dataset}[sys.argv[1]]
step(Path(sys.argv[2]), Path(sys.argv[3]), Layout.COCO)
"""


@pytest.mark.parametrize("what", ["export", "import"])
def test_killed_step_gives_the_same_id_when_run_again(dataset, tmp_path, what):
    out, back = round_trip(dataset, tmp_path, Layout.COCO)
    source, done = (dataset, out) if what == "export" else (out, back)
    target = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", RUN, what, str(source), str(target)])
    while process.poll() is None and not list(target.glob("*/**/*.png")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    step = export_dataset if what == "export" else import_dataset
    assert read_artifact(step(source, target, Layout.COCO)).id == read_artifact(done).id
    assert altered_files(target) == []


def test_export_of_an_image_without_objects_has_no_objects(tmp_path):
    def empty(seed):
        image, label, instances = draw(seed)
        return image, label * 0, instances * 0

    dataset = write(tmp_path / "dataset", pixels=empty)
    for layout in Layout:
        out = export_dataset(dataset, tmp_path / layout, layout)
        back = import_dataset(out, tmp_path / f"{layout}-back", layout)
        assert all(not after[1].any() for _, after in pairs(dataset, back))


def test_image_file_is_copied_unchanged_if_the_tool_can_read_it(dataset, tmp_path):
    out = export_dataset(dataset, tmp_path / "out", Layout.YOLO)
    image = (out / "images" / "test" / "slide 4.png").read_bytes()
    assert image == (dataset / "test" / "images" / "slide 4.png").read_bytes()
    assert image == encode(draw(4)[0], ".png")


@pytest.mark.parametrize(
    "name",
    [
        "deepliif_sample",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in (
                "monuseg_crops_triplets",
                "dsb2018_nuclei",
                "wbc",
                "camvid_segnet",
                "isbi2012_em",
            )
        ),
    ],
)
def test_real_datasets_are_restored_exactly(real_data, tmp_path, name):
    answer = SourceRule(object_value=0 if name == "isbi2012_em" else None)
    rules = Rules(source=answer)
    dataset = format_dataset(real_data(name), tmp_path / "dataset", rules, jobs=2)
    for layout in Layout:
        out = export_dataset(dataset, tmp_path / layout, layout)
        back = import_dataset(out, tmp_path / f"{layout}-back", layout)
        for before, after in pairs(dataset, back):
            assert np.array_equal(before[0], after[0])
            check_masks(layout, before, after)
        assert layout is not Layout.YOLO or facts(out)["iou_mean"] > 0.9999


def check_masks(layout, before, after):
    if layout in {Layout.COCO, Layout.NNUNET}:
        assert np.array_equal(before[1], after[1])
    if layout is Layout.COCO:
        assert (before[2] is None) == (after[2] is None)
    if before[2] is not None and layout in {Layout.COCO, Layout.CELLPOSE}:
        assert np.array_equal(before[2], after[2])
