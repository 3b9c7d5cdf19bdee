import csv
import html
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import grey_dilation, grey_erosion

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import (
    RECORD_KEY,
    Step,
    begin,
    contradictions,
    finish,
    read_artifact,
)
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import ArtifactError, UserError
from dataset_rules.pixels.images import encode, read_image
from dataset_rules.pixels.png import png_text
from tests.drawn import write_dataset
from unet.measurement.ihc import (
    Comparison,
    Intensity,
    Measurements,
    Thresholds,
    measure,
    pool_measurements,
)
from unet.measurement.mask_objects import MaskKind, connected_components, read_instances
from unet.measurement.measure_files import measure_files, pair_masks
from unet.measurement.stains import mix_stains
from unet.measurement.synthetic import draw_field

CLASSES = {0.05: "negative", 0.3: "1+", 0.5: "2+", 0.9: "3+"}


def squares(*dab_od):
    """A row of 20 px squares of given DAB densities on white, and their map."""
    dab = np.zeros((60, 40 * len(dab_od)))
    instances = np.zeros(dab.shape, np.uint16)
    for number, value in enumerate(dab_od):
        place = np.s_[20:40, 40 * number + 10 : 40 * number + 30]
        dab[place], instances[place] = value, number + 1
    return np.round(250 * mix_stains(dab * 0 + 0.0, dab)).astype(np.uint8), instances


@pytest.fixture(scope="module")
def field():
    return draw_field(np.random.default_rng(8))


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels, path.suffix))
    return path


@pytest.fixture
def predicted(tmp_path):
    """An image and an artifact as written by `predict`."""
    image, instances = squares(*CLASSES)
    path = write(tmp_path / "images" / "a.png", image)
    folder, step = tmp_path / "prediction", Step("prediction", 1)
    begin(folder, step)
    write(folder / "a_instances.png", instances)
    write(folder / "a_mask.png", (instances > 0).astype(np.uint8))
    row = {"image_sha256": file_hash(path), "instances": "a_instances.png"}
    write_json(folder / "predictions.json", {"images": [row]})
    names = ["a_instances.png", "a_mask.png"]
    finish(folder, step, content=dict.fromkeys(names), started=datetime.now(UTC), stamped=names)
    return path, folder


def test_each_nucleus_gets_the_class_of_its_mean_dab_density():
    found = measure(*squares(*CLASSES))
    assert [n.intensity for n in found.nuclei] == list(CLASSES.values())
    assert [n.dab_od_mean for n in found.nuclei] == pytest.approx(list(CLASSES), abs=0.02)
    assert [n.haematoxylin_od_mean for n in found.nuclei] == pytest.approx([0] * 4, abs=0.02)


def test_scores_follow_their_formulas():
    found = measure(*squares(*CLASSES))
    assert (found.count, found.positive_count, found.positive_share) == (4, 3, 0.75)
    assert found.h_score == 100 * (1 + 2 + 3) / 4
    assert found.intensities == dict.fromkeys(Intensity, 1)


def test_scores_without_nuclei_are_undefined():
    image, instances = squares(0.5)
    found = measure(image, np.zeros_like(instances))
    assert found.count == 0
    assert found.positive_share is None
    assert found.h_score is None


def test_counts_of_a_drawn_field_are_exact(field):
    found = measure(field.image, field.instances)
    assert [n.is_positive for n in found.nuclei] == field.positive.tolist()


@pytest.mark.parametrize("change", [grey_dilation, grey_erosion])
def test_a_border_off_by_a_pixel_keeps_the_share(field, change):
    shifted = np.where(field.instances > 0, change(field.instances, 3), 0)
    grown = grey_dilation(field.instances, 3) if change is grey_dilation else shifted
    found = measure(field.image, grown)
    assert found.positive_share == pytest.approx(field.positive.mean(), abs=0.02)


def test_numbering_of_nuclei_changes_no_score(field):
    mixed = np.append(0, np.random.default_rng(1).permutation(field.count) + 1)
    renumbered = mixed.astype(np.uint16)[field.instances]
    a, b = measure(field.image, field.instances), measure(field.image, renumbered)
    assert a.summary() == b.summary()


def test_pool_weighs_nuclei_not_images():
    one, two = measure(*squares(0.5)), measure(*squares(0.0, 0.0, 0.0))
    assert pool_measurements((one, two)).positive_share == 0.25


def test_image_and_map_of_different_size_are_refused():
    image, instances = squares(0.5)
    with pytest.raises(UserError, match="differ in size; expected a mask of 60 x 40 px"):
        measure(image, instances[:-1])


def test_unordered_thresholds_are_refused():
    with pytest.raises(UserError, match="not in ascending order"):
        Thresholds(0.5, 0.4, 0.6)


@given(st.floats(-0.5, 3), st.floats(-0.5, 3))
def test_more_dab_is_never_a_lower_class(a, b):
    low, high = (list(Intensity).index(Thresholds().intensity(od)) for od in sorted((a, b)))
    assert low <= high


def test_comparison_knows_both_tolerances():
    assert Comparison(found=90, found_positive=45, known=100, known_positive=50).is_within
    assert not Comparison(found=89, found_positive=45, known=100, known_positive=50).is_within
    assert not Comparison(found=100, found_positive=56, known=100, known_positive=50).is_within
    assert Comparison(0, 0, 0, 0).is_within
    assert not Comparison(3, 0, 0, 0).is_within


def test_measurements_are_an_artifact_with_the_predictions_record(predicted, tmp_path):
    image, folder = predicted
    events = []
    out = measure_files(
        [image], folder, tmp_path / "out", pixel_size_um=0.5, on_event=events.append
    )
    prediction, made = read_artifact(folder), read_artifact(out, "measurements")
    document = json.loads((out / "measurements.json").read_bytes())
    rows = list(csv.DictReader((out / "measurements.csv").read_text("utf-8").splitlines()))
    assert document["record"] == prediction.record
    assert {row["record"] for row in rows} == {prediction.record}
    assert prediction.record in (out / "report.html").read_text(encoding="utf-8")
    assert png_text((out / "overlays" / "a.png").read_bytes(), RECORD_KEY) == made.record
    assert altered_files(out) == contradictions(out) == []
    assert (document["count"], document["positive_count"], document["h_score"]) == (4, 3, 150)
    assert [row["intensity"] for row in rows] == list(CLASSES.values())
    assert {row["area_um2"] for row in rows} == {"100.0"}
    assert document["images"][0]["nuclei"][0]["area_px"] == 400
    assert events == [{"event": "measured", "image": "a.png", "count": 4, "done": 1, "of": 1}]


def test_id_depends_on_neither_time_nor_location(predicted, tmp_path):
    image, folder = predicted
    moved = write(tmp_path / "elsewhere" / "a.png", squares(*CLASSES)[0])
    a = measure_files([image], folder, tmp_path / "a")
    b = measure_files([moved], folder, tmp_path / "b")
    assert read_artifact(a).id == read_artifact(b).id


def test_finished_measurements_are_kept_and_others_not_overwritten(predicted, tmp_path):
    image, folder = predicted
    out = measure_files([image], folder, tmp_path / "out")
    before = (out / "provenance.json").read_bytes()
    measure_files([image], folder, out)
    assert (out / "provenance.json").read_bytes() == before
    with pytest.raises(ArtifactError, match="another result"):
        measure_files([image], folder, out, thresholds=Thresholds(weak_od=0.1))


def test_loose_masks_become_a_source(tmp_path):
    image, instances = squares(0.5, 0.1)
    path = write(tmp_path / "a.png", image)
    mask = write(tmp_path / "drawn by hand.png", instances)
    out = measure_files([path], [mask], tmp_path / "out", known={"a": (2, 1)})
    document = json.loads((out / "measurements.json").read_bytes())
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert (document["count"], document["positive_count"]) == (2, 1)
    assert manifest["inputs"][0]["kind"] == "source"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("✓ within") == 2  # the image and the total
    assert "✗ outside" not in page


def test_masks_in_an_artifact_of_another_kind_are_refused(predicted, tmp_path):
    image, folder = predicted
    measured = measure_files([image], folder, tmp_path / "out")
    with pytest.raises(ArtifactError, match="this is no prediction"):
        measure_files([image], [measured / "a.png"], tmp_path / "again")


def test_image_that_was_changed_after_prediction_is_refused(predicted, tmp_path):
    image, folder = predicted
    write(image, 255 - squares(*CLASSES)[0])
    with pytest.raises(UserError, match="not in this prediction or has changed since"):
        measure_files([image], folder, tmp_path / "out")


def test_a_predicted_image_is_recognised_under_another_name(predicted, tmp_path):
    image, folder = predicted
    renamed = image.rename(tmp_path / "renamed.png")
    assert pair_masks([renamed], folder)[0].mask == folder / "a_instances.png"


def test_masks_are_found_by_name_and_instance_maps_come_first(tmp_path):
    images = [tmp_path / "images" / name for name in ("a.png", "b.jpg")]
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a_mask.png", "a_instances.png", "b_mask.png"):
        (masks / name).touch()
    found = [pair.mask.name for pair in pair_masks(images, masks)]
    assert found == ["a_instances.png", "b_mask.png"]
    assert pair_masks(images, list(masks.iterdir())) == pair_masks(images, masks)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a.png", "c.png"], "no mask"), (["a.png", "a.jpg"], "not unique"), ([], "no image")],
)
def test_images_that_cannot_be_paired_are_refused(tmp_path, names, message):
    (tmp_path / "a_mask.png").touch()
    with pytest.raises(UserError, match=message):
        pair_masks([tmp_path / "images" / name for name in names], tmp_path)


def test_a_binary_mask_is_split_into_connected_components(tmp_path):
    _, instances = squares(0, 0, 0)
    path = write(tmp_path / "m.png", (instances > 0).astype(np.uint8) * 255)
    assert (read_instances(path) == instances).all()


def discs(*values):
    """A row of 4 px squares, far apart, of these values (uint8)."""
    mask = np.zeros((8, 8 * len(values)), np.uint8)
    for place, value in enumerate(values):
        mask[2:6, 8 * place + 2 : 8 * place + 6] = value
    return mask


def numbers(found):
    return sorted(set(np.unique(found).tolist()) - {0})


@pytest.mark.parametrize("name", ["a_mask.png", "a.png"])
@pytest.mark.parametrize(
    ("values", "objects"),
    [((1, 1, 1), 3), ((1, 1, 1, 2, 2, 2), 6), ((1, 1, 1, 1, 255), 4), ((255, 255), 2)],
)
def test_components_of_a_class_are_objects_without_ignored_pixels(tmp_path, name, values, objects):
    assert numbers(read_instances(write(tmp_path / name, discs(*values)))) == [
        *range(1, objects + 1)
    ]  # fmt: skip


def test_touching_components_of_two_classes_are_two_objects(tmp_path):
    mask = discs(1)
    mask[2:6, 4:6] = 2
    found = read_instances(write(tmp_path / "a_mask.png", mask))
    assert numbers(found) == [1, 2]
    assert len(set(found[mask == 1])) == len(set(found[mask == 2])) == 1


def test_an_ignored_border_is_not_a_nucleus(tmp_path):
    image, instances = squares(0.5, 0.5)
    mask = (instances > 0).astype(np.uint8)
    mask[:5] = 255
    files = write(tmp_path / "a.png", image), write(tmp_path / "a_mask.png", mask)
    out = measure_files([files[0]], [files[1]], tmp_path / "out")
    assert json.loads((out / "measurements.json").read_bytes())["count"] == 2


@pytest.mark.parametrize("values", [(7, 3, 300), (5, 1, 1, 9)])
def test_an_instance_map_by_name_keeps_its_numbers_even_if_objects_are_split(tmp_path, values):
    mask = discs(*[0] * len(values)).astype(np.uint16)
    for place, value in enumerate(values):
        mask[2:6, 8 * place + 2 : 8 * place + 6] = value
    found = read_instances(write(tmp_path / "a_instances.png", mask))
    assert (found == mask).all()


def test_instances_are_detected_even_if_one_object_in_ten_is_split(tmp_path):
    mask = discs(*range(1, 12), 4)
    assert (read_instances(write(tmp_path / "a.png", mask)) == mask).all()


@pytest.mark.parametrize("values", [(1, 2, 2), (1, 2, 255)], ids=["cut", "ignored or 255th"])
def test_an_ambiguous_mask_is_refused_unless_its_kind_is_given(tmp_path, values):
    path = write(tmp_path / "a.png", discs(*values))
    with pytest.raises(UserError, match=r"ambiguous.*--masks classes or --masks instances"):
        read_instances(path)
    assert numbers(read_instances(path, MaskKind.INSTANCES)) == sorted(set(values))
    pieces = len([value for value in values if value != 255])
    assert numbers(read_instances(path, MaskKind.CLASSES)) == [*range(1, pieces + 1)]


def test_masks_of_a_dataset_have_the_kind_it_lists(tmp_path):
    dataset = write_dataset(tmp_path / "set", train=1, val=0, test=0)
    sample = read_dataset(dataset).samples[0]
    mask = read_image(dataset / sample.mask.path)
    objects = read_image(dataset / sample.instances)
    components = connected_components(mask)
    assert (objects != components).any()
    assert (mask != components).any()
    assert (read_instances(dataset / sample.instances) == objects).all()
    assert (read_instances(dataset / sample.mask.path) == components).all()


@pytest.mark.parametrize(
    ("dpi", "given", "said"),
    [
        (None, None, "not given and not in the image"),
        (None, 0.5, "0.5 µm, as given"),
        (101_600, None, "0.25 µm, from the image"),
        (101_600, 0.5, "0.5 µm, as given"),
    ],
)
def test_the_page_states_the_pixel_size_and_its_origin(tmp_path, dpi, given, said):
    image, instances = squares(0.5)
    Image.fromarray(image).save(tmp_path / "a.png", **({"dpi": (dpi, dpi)} if dpi else {}))
    mask = write(tmp_path / "a_instances.png", instances)
    out = measure_files([tmp_path / "a.png"], [mask], tmp_path / "out", pixel_size_um=given)
    assert said in html.unescape((out / "report.html").read_text(encoding="utf-8"))
    (row,) = csv.DictReader((out / "measurements.csv").read_text("utf-8").splitlines())
    used = given or (0.25 if dpi else 0)
    assert float(row["area_um2"] or 0) == pytest.approx(400 * used**2, rel=1e-3)


def test_different_pixel_sizes_are_listed_with_their_images(tmp_path):
    image, instances = squares(0.5)
    for name, dpi in (("a", (101_600, 101_600)), ("b", (50_800, 50_800)), ("c", (50_800, 25_400))):
        Image.fromarray(image).save(tmp_path / f"{name}.png", dpi=dpi)
        write(tmp_path / "masks" / f"{name}_instances.png", instances)
    images = [tmp_path / f"{name}.png" for name in "abc"]
    out = measure_files(images, tmp_path / "masks", tmp_path / "out")
    page = html.unescape((out / "report.html").read_text(encoding="utf-8"))
    assert "a: 0.25 µm, from" in page
    assert "b: 0.5 µm, from" in page
    assert "c: not given" in page


def test_grey_image_is_refused_with_its_path(tmp_path):
    image, instances = squares(0.5)
    path = write(tmp_path / "grey.png", image[..., 0])
    mask = write(tmp_path / "grey_mask.png", instances)
    with pytest.raises(UserError, match=r"grey\.png: stains can only be separated"):
        measure_files([path], [mask], tmp_path / "out")


def test_pooling_no_measurements_gives_none():
    assert pool_measurements(()) == Measurements(())
