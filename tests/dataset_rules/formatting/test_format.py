import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_rules.artifacts.dataset import Split, read_dataset, read_sample
from dataset_rules.artifacts.manifest import contradictions, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.formatting.format import format_dataset
from dataset_rules.formatting.workers import PROGRESS
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.pixels.images import read_image, read_mask
from dataset_rules.rules.rules import Rules, read_rules, rules_from_mapping
from tests.messy import object_files, put, tissue, tree_of, two_folders


def made(folder, out, *, jobs=1, **fields):
    return format_dataset(folder, out, rules_from_mapping({"version": 2, **fields}), jobs=jobs)


def id_of(folder):
    return read_artifact(folder, "dataset").id


@pytest.fixture
def source(tmp_path):
    return two_folders(tmp_path / "source", 12)


def test_dataset_has_the_source_pixels_and_their_provenance(source, tmp_path):
    out = made(source, tmp_path / "out")
    dataset = read_dataset(out)
    assert len(dataset.samples) == 12
    for sample in dataset.samples:
        image, label, instances = read_sample(out, sample)
        assert np.array_equal(image, read_image(source / sample.image.source))
        mask = read_mask(source / sample.mask.sources[0])
        assert np.array_equal(label, (mask > 0).astype(np.uint8))
        assert instances is None
    assert altered_files(out) == []
    assert contradictions(out) == []


def test_layout_separate_and_together(source, tmp_path):
    separate = made(source, tmp_path / "a")
    together = made(source, tmp_path / "b", layout="together")
    sample = next(s for s in read_dataset(separate).samples if s.name == "1")
    assert sample.image.path == f"{sample.split}/images/1.png"
    assert sample.mask.path == f"{sample.split}/masks/1_mask.png"
    sample = next(s for s in read_dataset(together).samples if s.name == "1")
    assert (sample.image.path, sample.mask.path) == (
        f"{sample.split}/1.png", f"{sample.split}/1_mask.png",
    )  # fmt: skip


def test_rules_in_the_dataset_are_complete(source, tmp_path):
    rules = read_rules(made(source, tmp_path / "out") / "rules.json")
    assert rules.source.mask == "masks/{name}.png"
    assert rules.source.mask_kind == "binary"
    assert rules.classes[1].source_values == (255,)


def test_id_is_independent_of_processes_and_file_order(source, tmp_path):
    again = tmp_path / "again"
    paths = sorted(tree_of(source).items())
    random.Random(1).shuffle(paths)
    for path, data in paths:
        (again / path).parent.mkdir(parents=True, exist_ok=True)
        (again / path).write_bytes(data)
    first = id_of(made(source, tmp_path / "a", jobs=1))
    assert id_of(made(again, tmp_path / "b", jobs=2)) == first


def test_id_changes_with_a_single_pixel(source, tmp_path):
    before = id_of(made(source, tmp_path / "a"))
    mask = read_mask(source / "masks/3.png").copy()
    mask[0, 0] ^= 255
    put(source, "masks/3.png", mask)
    assert id_of(made(source, tmp_path / "b")) != before


def test_unrelated_text_file_does_not_change_the_id(source, tmp_path):
    before = id_of(made(source, tmp_path / "a"))
    (source / "notes.txt").write_text("x")
    assert id_of(made(source, tmp_path / "b")) == before


def test_object_files_become_label_mask_and_instance_map(tmp_path):
    out = made(object_files(tmp_path / "source"), tmp_path / "out")
    samples = read_dataset(out).samples
    assert len(samples) == 3
    for sample in samples:
        _, label, instances = read_sample(out, sample)
        truth = tissue(int(sample.name[1:]))[1]
        assert instances.dtype == np.uint16
        assert np.array_equal(instances, truth)
        assert np.array_equal(label, (truth > 0).astype(np.uint8))


def test_equal_stems_are_distinguished_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        image, instances = tissue(1)
        put(tmp_path / "source", f"{folder}/images/1.png", image)
        put(tmp_path / "source", f"{folder}/masks/1.png", (instances > 0).astype(np.uint8))
    out = made(tmp_path / "source", tmp_path / "out")
    assert [s.name for s in read_dataset(out).samples] == ["a__images__1", "b__images__1"]


def test_stretched_dataset_has_the_requested_size_and_format(source, tmp_path):
    out = made(source, tmp_path / "out", fit="stretch", height=20, width=30, image_format="jpg",
               color_model="grayscale")  # fmt: skip
    samples = read_dataset(out).samples
    assert len(samples) == 12
    for sample in samples:
        image, label, _ = read_sample(out, sample)
        assert sample.image.path.endswith(".jpg")
        assert image.shape == label.shape == (20, 30)
        assert set(np.unique(label)) == {0, 1}


def test_large_photographs_shrink_to_within_40_db_of_the_area_mean(real_data, tmp_path):
    tissue_images = real_data("monuseg2018") / "data/MoNuSegTrainData/tissue_image"
    source, means = tmp_path / "source", {}
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    for path in sorted(tissue_images.glob("TCGA*.tif"))[:4]:
        pixels = read_image(path)[:960, :960]
        Image.fromarray(pixels).save(source / f"images/{path.stem}.jpg", quality=92)
        put(source, f"masks/{path.stem}.png", pixels[..., 0] // 128 * 255)
        whole = np.asarray(Image.open(source / f"images/{path.stem}.jpg"), float)
        means[path.stem] = whole.reshape(240, 4, 240, 4, 3).mean((1, 3))
    size = {"fit": "stretch", "height": 240, "width": 240}
    out = made(source, tmp_path / "out", source={"object_value": 255}, **size)
    samples = read_dataset(out).samples
    assert {sample.name for sample in samples} == means.keys()
    for sample in samples:
        error = np.mean((read_sample(out, sample)[0] - means[sample.name]) ** 2)
        assert 10 * np.log10(255**2 / error) > 40


def test_photograph_that_matches_its_mask_only_at_half_size_is_rejected(tmp_path):
    source = tmp_path / "source"
    for name in ("a", "b"):
        image, instances = tissue(1, size=60)
        put(source, f"images/{name}.jpg", image.repeat(2, 0).repeat(2, 1))
        put(source, f"masks/{name}.png", (instances > 0).astype(np.uint8))
    with pytest.raises(RulesError, match="120 x 120"):
        made(source, tmp_path / "out", fit="stretch", height=20, width=20)


def test_binary_images_record_their_threshold(source, tmp_path):
    out = made(source, tmp_path / "out", color_model="binary")
    sample = read_dataset(out).samples[0]
    assert 0 < sample.image.threshold < 255
    assert set(np.unique(read_image(out / sample.image.path))) == {0, 255}


def test_16_bit_images_keep_their_depth_in_png_and_are_scaled_with_a_note_in_bmp(tmp_path):
    source = tmp_path / "source"
    for number in range(3):
        image, instances = tissue(number)
        put(source, f"images/{number}.png", image[..., 0].astype(np.uint16) * 257)
        put(source, f"masks/{number}.png", (instances > 0).astype(np.uint8))
    out = made(source, tmp_path / "a", color_model="grayscale")
    assert read_image(out / read_dataset(out).samples[0].image.path).dtype == np.uint16
    out = made(source, tmp_path / "b", color_model="grayscale", image_format="bmp")
    pixels = read_image(out / read_dataset(out).samples[0].image.path)
    assert np.array_equal(pixels, tissue(0)[0][..., 0])
    problems = json.loads((out / "problems.json").read_bytes())
    assert [len(p["paths"]) for p in problems if p["code"] == "depth_reduced"] == [3]


def test_tiles_of_an_image_are_in_one_split(source, tmp_path):
    out = made(source, tmp_path / "out", fit="tile", height=32, width=32)
    samples = [s for s in read_dataset(out).samples if s.group == "1"]
    assert [s.name for s in samples] == ["1_r0c0", "1_r0c1", "1_r1c0", "1_r1c1"]
    assert len({s.split for s in samples}) == 1


def test_listed_groups_get_their_split_and_an_empty_split_is_a_warning(source, tmp_path):
    groups = {"train": [str(n) for n in range(1, 12)], "val": ["12"]}
    out = made(source, tmp_path / "out", split={"groups": groups})
    assert [s.name for s in read_dataset(out).of(Split.VAL)] == ["12"]
    problems = json.loads((out / "problems.json").read_bytes())
    assert [p["message"] for p in problems if p["code"] == "empty_split"] == [
        "no sample fell into test"
    ]


def test_open_question_is_an_error_with_the_line_to_add(tmp_path):
    source = two_folders(tmp_path / "source", values=(255, 0))
    with pytest.raises(RulesError) as caught:
        made(source, tmp_path / "out")
    assert '"source": {"object_value": 0} or "source": {"object_value": 255}' in str(caught.value)
    assert not (tmp_path / "out").exists()
    out = made(source, tmp_path / "out", source={"object_value": 0})
    _, label, _ = read_sample(out, read_dataset(out).samples[0])
    assert 0 < label.mean() < 0.5


def test_all_damaged_files_are_reported_at_once_and_nothing_is_written(source, tmp_path):
    for path in ("images/1.png", "masks/2.png"):
        (source / path).write_bytes((source / path).read_bytes()[:-60])
    (source / "images/3.png").write_text("no pixels")
    with pytest.raises(RulesError) as caught:
        made(source, tmp_path / "out")
    assert all(
        path in str(caught.value) for path in ("images/1.png", "masks/2.png", "images/3.png")
    )
    assert not (tmp_path / "out").exists()
    damaged = ["images/1.png", "masks/1.png", "*/2.png", "*/3.png"]
    assert (
        len(read_dataset(made(source, tmp_path / "out", source={"exclude": damaged})).samples) == 9
    )


@pytest.mark.parametrize(
    ("name", "keyword", "found"),
    [("\u6838" * 81, "_mask", 252), ("\u6838" * 20, "\u6838" * 64, 256)],
)
def test_names_that_are_too_long_in_bytes_are_refused_and_nothing_is_written(
    tmp_path, name, keyword, found
):
    source = two_folders(tmp_path / "source")
    for folder in ("images", "masks"):
        (source / folder / "1.png").rename(source / folder / f"{name}.png")
    said = f"images/{name}.png: .* {found} bytes, expected at most 249 bytes"
    with pytest.raises(RulesError, match=said):
        made(source, tmp_path / "out", mask_keyword=keyword)
    assert not (tmp_path / "out").exists()


def test_damage_outside_the_sample_is_reported_at_once(tmp_path):
    source = object_files(tmp_path / "source")
    rules = rules_from_mapping({
        "version": 2, "source": {"mask_kind": "label"},
        "classes": [{"id": 0, "name": "b", "source_values": [0]},
                    {"id": 1, "name": "o", "source_values": [7]}],
    })  # fmt: skip
    with pytest.raises(RulesError, match="3 pairs cannot be formatted") as caught:
        format_dataset(source, tmp_path / "out", rules)
    assert "set/s0/masks/" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_source_without_masks_is_rejected(tmp_path):
    put(tmp_path / "source", "1.png", tissue(1)[0])
    with pytest.raises(RulesError, match="'_mask' matches no file, and no other pattern pairs"):
        made(tmp_path / "source", tmp_path / "out")


def test_folder_with_other_content_is_rejected_and_unchanged(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(ArtifactError, match="not empty"):
        made(source, tmp_path / "out")
    assert tree_of(tmp_path / "out") == {"mine.txt": b"x"}


def test_finished_dataset_is_returned_unchanged(source, tmp_path):
    before = tree_of(made(source, tmp_path / "out"))
    assert tree_of(made(source, tmp_path / "out")) == before
    with pytest.raises(ArtifactError, match="another result"):
        made(source, tmp_path / "out", layout="together")


def test_dataset_inside_its_source_does_not_change_the_id(source, tmp_path):
    first = id_of(made(source, source / "formatted"))
    assert id_of(made(source, source / "formatted")) == first
    assert id_of(made(source, tmp_path / "out")) == first


def test_progress_counts_up_to_all_pairs(source, tmp_path):
    calls = []
    format_dataset(
        source, tmp_path / "out", Rules(), jobs=1, on_progress=lambda *n: calls.append(n)
    )
    assert calls == [(done, 12) for done in range(1, 13)]


def stopped(source: Path, out: Path, *, after: int) -> None:
    """A run that fails after a number of samples is written."""

    class StopError(Exception):
        pass

    def stop(done, _total):
        if done == after:
            raise StopError

    with pytest.raises(StopError):
        format_dataset(source, out, Rules(), jobs=1, on_progress=stop)


def test_stopped_run_resumes_without_repeating_finished_samples(source, tmp_path):
    out = tmp_path / "out"
    stopped(source, out, after=5)
    pixels = sorted(out.glob("*/images/*.png"))
    times = {path: path.stat().st_mtime_ns for path in pixels}
    assert len(times) == 5
    made(source, out)
    assert {path: path.stat().st_mtime_ns for path in pixels} == times
    assert id_of(out) == id_of(made(source, tmp_path / "other"))
    assert not (out / PROGRESS).exists()


RUN = """
import sys
from pathlib import Path
from dataset_rules.formatting.format import format_dataset
from dataset_rules.rules.rules import Rules
if __name__ == "__main__":
    format_dataset(Path(sys.argv[1]), Path(sys.argv[2]), Rules(), jobs=2)
"""


def is_gone(group, *, patience_s=10.0):
    """True as soon as all processes of the group have exited."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def started(script, source, out):
    return subprocess.Popen(
        [sys.executable, str(script), str(source), str(out)], start_new_session=True
    )


def noted(out):
    """The notes of finished pairs, with the modification time of each."""
    found = out.glob(f"{PROGRESS}/[!.]*.part")  # files with a leading dot are not renamed yet
    return {path.name: path.stat().st_mtime_ns for path in found}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return path


def test_killed_run_gives_the_same_id_and_leaves_no_process(tmp_path, script):
    source, out = two_folders(tmp_path / "source", 90), tmp_path / "out"
    for _ in range(5):
        process, before = started(script, source, out), noted(out)
        while process.poll() is None and len(noted(out)) < len(before) + 5:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_gone(process.pid)
        assert before.items() <= noted(out).items()
    made(source, out)
    assert id_of(out) == id_of(made(source, tmp_path / "other"))
    assert altered_files(out) == []


@pytest.mark.long
def test_hundred_kills_at_random_times_do_not_change_the_result(tmp_path, script):
    source, out, rng = two_folders(tmp_path / "source", 60), tmp_path / "out", random.Random(0)
    start = time.monotonic()
    expected = id_of(made(source, tmp_path / "other", jobs=2))
    max_s, kills = time.monotonic() - start + 1.0, 0
    while kills < 100:
        process = started(script, source, out)
        try:
            process.wait(rng.uniform(0.1, max_s))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # all of its processes at once, like a power cut
            process.wait()
            kills += 1
        assert is_gone(process.pid)
        if process.returncode == 0:
            assert id_of(out) == expected
            assert altered_files(out) == []
            shutil.rmtree(out)
    made(source, out)
    assert id_of(out) == expected
    assert altered_files(out) == []


def test_note_of_a_lost_file_is_ignored(source, tmp_path):
    out = tmp_path / "out"
    stopped(source, out, after=6)
    images = sorted(out.glob("*/images/*.png"))
    images[0].unlink()
    images[1].write_bytes(b"")  # like a file system after a power cut
    note = next(out.glob(f"{PROGRESS}/*.part"))
    note.write_bytes(note.read_bytes()[:50])
    made(source, out)
    assert id_of(out) == id_of(made(source, tmp_path / "other"))


def test_archive_gives_the_same_id_as_its_folder(source, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    first = id_of(made(source, tmp_path / "a"))
    assert id_of(made(tmp_path / archive, tmp_path / "b")) == first


def test_rules_with_no_class_but_background_are_rejected(tmp_path):
    source = two_folders(tmp_path / "source")
    classes = [{"id": 0, "name": "background", "source_values": [0, 255]}]
    rules = rules_from_mapping({"version": 2, "classes": classes})
    with pytest.raises(RulesError, match="no class but background"):
        format_dataset(source, tmp_path / "out", rules)
    assert not (tmp_path / "out").exists()
