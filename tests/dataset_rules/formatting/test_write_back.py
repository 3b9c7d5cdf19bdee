import json
from datetime import UTC, datetime

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import IGNORE, read_dataset
from dataset_rules.artifacts.lineage import is_intact, trace
from dataset_rules.artifacts.manifest import Step, begin, contradictions, finish, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.exchange.export import export_dataset
from dataset_rules.exchange.importing import import_dataset
from dataset_rules.exchange.layout import Layout
from dataset_rules.formatting.format import format_dataset
from dataset_rules.formatting.write_back import write_back
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.pixels.images import read_image, read_mask
from dataset_rules.pixels.values import gray_if_equal
from dataset_rules.rules.rules import Rules, read_rules, rules_from_mapping
from tests.messy import object_files, put, tissue, tree_of, two_folders


def formatted(folder, out, /, **fields):
    return format_dataset(folder, out, rules_from_mapping({"version": 2, **fields}), jobs=1)


def compared(dataset, masks, source, *, read=read_mask):
    """Number of masks that were restored, all equal to the source's."""
    samples = read_dataset(dataset).samples
    for sample in samples:
        (path,) = sample.mask.sources
        written = read(masks / f"{sample.name}.png")
        assert np.array_equal(written, read(source / path)), path
    return len(samples)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (60, 200), (255, 0), (0, 40_000)])
def test_grey_values_of_two_valued_masks_are_restored(tmp_path, values):
    source = tmp_path / "source"
    for number in range(4):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image)
        kind = np.uint16 if max(values) > 255 else np.uint8
        put(source, f"masks/{number}.png", np.where(instances > 0, *values[::-1]).astype(kind))
    dataset = formatted(source, tmp_path / "set", source={"object_value": values[1],
                                                         "mask_kind": "binary"})  # fmt: skip
    masks = write_back(dataset, tmp_path / "masks")
    assert compared(dataset, masks, source) == 4
    assert altered_files(masks) == contradictions(masks) == []
    assert is_intact(trace(masks / "0.png"))


def test_colours_including_the_ignored_one_are_restored(tmp_path):
    source = tmp_path / "source"
    for number in range(4):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image)
        colors = np.zeros((*instances.shape, 3), np.uint8)
        colors[instances % 2 == 1] = (255, 0, 0)
        colors[(instances > 0) & (instances % 2 == 0)] = (0, 0, 255)
        colors[:3] = (0, 255, 0)
        put(source, f"masks/{number}.png", colors)
    dataset = formatted(source, tmp_path / "set")
    masks = write_back(dataset, tmp_path / "masks")
    assert compared(dataset, masks, source, read=read_image) == 4


def test_object_files_are_restored(tmp_path):
    source = object_files(tmp_path / "source")
    dataset = formatted(source, tmp_path / "set")
    masks = write_back(dataset, tmp_path / "masks")
    samples = read_dataset(dataset).samples
    for sample in samples:
        for number, path in enumerate(sample.mask.sources, start=1):
            written = read_mask(masks / sample.name / f"{number:05}.png")
            assert np.array_equal(written, read_mask(source / path))
    written = [path for sample in samples for path in sample.mask.sources]
    assert set(written) == {path for path in tree_of(source) if "/masks/" in path}


def test_object_numbers_are_restored(tmp_path):
    source = tmp_path / "source"
    for number in range(4):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image)
        put(source, f"masks/{number}.png", instances)
    dataset = formatted(source, tmp_path / "set", source={"mask_kind": "instances"})
    assert compared(dataset, write_back(dataset, tmp_path / "masks"), source) == 4


def test_class_files_are_restored(tmp_path):
    source = tmp_path / "source"
    for number in range(4):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image)
        for class_id in (1, 2):
            area = (instances > 0) & (instances % 2 == class_id % 2)
            put(source, f"c{class_id}/{number}.png", (area * 255).astype(np.uint8))
    dataset = formatted(source, tmp_path / "set", source={
        "image": "images/{name}.png",
        "mask": [{"template": f"c{n}/{{name}}.png", "class": n} for n in (1, 2)],
    })  # fmt: skip
    masks = write_back(dataset, tmp_path / "masks")
    for class_id in (1, 2):
        for number in range(4):
            written = read_mask(masks / f"{class_id}_class_{class_id}" / f"{number}.png")
            assert np.array_equal(written, read_mask(source / f"c{class_id}/{number}.png"))


def merged_classes(source, out):
    classes = [{"id": 0, "name": "background", "source_values": [0]},
               {"id": 1, "name": "cell", "source_values": [128, 255]}]  # fmt: skip
    for number in range(3):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image)
        values = np.array([0, 128, 255], np.uint8)[instances % 3]
        put(source, f"masks/{number}.png", values)
    return formatted(source, out, classes=classes, source={"mask_kind": "label"})


def test_rules_that_merge_values_are_rejected_until_one_is_chosen(tmp_path):
    dataset = merged_classes(tmp_path / "source", tmp_path / "set")
    with pytest.raises(RulesError, match=r"class 1 'cell' has 2 values \(128, 255\)"):
        write_back(dataset, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    document = json.loads((dataset / "rules.json").read_bytes())
    document["classes"][1]["source_values"] = [255]
    write_json(tmp_path / "rules.json", document)
    masks = write_back(dataset, tmp_path / "masks", rules=read_rules(tmp_path / "rules.json"))
    assert set(np.unique(read_mask(masks / "1.png"))) == {0, 255}


def test_ignored_pixels_without_a_value_are_rejected(tmp_path):
    source = two_folders(tmp_path / "source")
    dataset = formatted(source, tmp_path / "set", fit="pad", height=50, width=50)
    with pytest.raises(RulesError, match=f"without a unique source value; found {IGNORE}"):
        write_back(dataset, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_dataset_of_another_tool_has_no_source_values(tmp_path):
    dataset = formatted(two_folders(tmp_path / "source"), tmp_path / "set")
    coco = export_dataset(dataset, tmp_path / "coco", Layout.COCO)
    back = import_dataset(coco, tmp_path / "back", Layout.COCO)
    with pytest.raises(RulesError, match=r"found mask_kind null; .*export-dataset"):
        write_back(back, tmp_path / "masks")
    with pytest.raises(ArtifactError, match="contains no label masks"):
        write_back(coco, tmp_path / "masks")


def prediction(folder, datasets):
    """A prediction artifact with realistic lineage, made without a network."""
    _, instances = tissue(5)
    step = Step("prediction", 1, tuple(read_artifact(dataset) for dataset in datasets))
    begin(folder, step)
    put(folder, "new_mask.png", (instances > 0).astype(np.uint8))
    put(folder, "new_instances.png", instances)
    rows = [{"mask": "new_mask.png", "instances": "new_instances.png"}]
    write_json(folder / "predictions.json", {"images": rows})
    content = dict.fromkeys(["new_mask.png", "new_instances.png", "predictions.json"])
    finish(folder, step, content=content, started=datetime.now(UTC))
    return folder, instances


def test_prediction_uses_the_values_of_its_dataset(tmp_path):
    dataset = formatted(two_folders(tmp_path / "source"), tmp_path / "set")
    made, instances = prediction(tmp_path / "prediction", [dataset])
    masks = write_back(made, tmp_path / "masks")
    assert np.array_equal(read_mask(masks / "new.png"), (instances > 0) * 255)


def test_prediction_from_two_datasets_needs_rules(tmp_path):
    sets = [formatted(two_folders(tmp_path / f"s{v}", values=(0, v)), tmp_path / f"d{v}")
            for v in (255, 100)]  # fmt: skip
    made, instances = prediction(tmp_path / "prediction", sets)
    with pytest.raises(RulesError, match="2 rules documents in the lineage; specify the rules"):
        write_back(made, tmp_path / "masks")
    masks = write_back(made, tmp_path / "masks", rules=read_rules(sets[1] / "rules.json"))
    assert np.array_equal(read_mask(masks / "new.png"), (instances > 0) * 100)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("monuseg_crops_triplets", 20),
        pytest.param("wbc", 300, marks=pytest.mark.long),
        pytest.param("camvid_segnet", 40, marks=pytest.mark.long),
    ],
)
def test_masks_of_real_datasets_are_restored(real_data, tmp_path, name, count):
    source = real_data(name)
    dataset = format_dataset(source, tmp_path / "set", Rules())
    masks = write_back(dataset, tmp_path / "masks")
    assert compared(dataset, masks, source, read=grey) == count


def grey(path):
    return gray_if_equal(read_mask(path))
