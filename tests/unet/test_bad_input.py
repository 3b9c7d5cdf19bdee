"""User errors and their messages."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dataset_rules.pixels.images import encode
from tests.drawn import write_dataset
from tests.unet.runs.test_train import small_plan
from unet.errors import UnetError
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.runs.train import train
from unet.scoring.evaluate import evaluate
from unet.training.preflight import preflight_warnings, report_full_disk


def events_of(dataset: Path, out: Path) -> list[dict]:
    events: list[dict] = []
    train([dataset], out, plan=small_plan(dataset), on_event=events.append)
    return events


def warnings_of(events: list[dict]) -> str:
    return "; ".join(e["text"] for e in events if e["event"] == "warning")


def test_training_on_a_single_image_warns(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=1, val=0, test=0)
    said = warnings_of(events_of(dataset, tmp_path / "run"))
    assert "only one training image" in said
    assert "no images are held out" in said


def test_training_on_images_of_ten_pixels_warns(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", size=10)
    plan = make_plan(fingerprint([dataset]), patches=16)
    assert plan.patch_px == 32
    run, events = tmp_path / "run", []
    train([dataset], run, plan=plan.model_copy(update={"batch": 2, "steps": 4}),
          on_event=events.append)  # fmt: skip
    assert "largest image is 10 px" in warnings_of(events)
    assert evaluate(run, dataset).document()["n"] == 2


def test_a_class_missing_from_the_training_split_is_refused(discs: Path, tmp_path: Path) -> None:
    document = json.loads((discs / "dataset.json").read_text())
    document["classes"].append({"id": 2, "name": "stroma"})
    forged = write_dataset(tmp_path / "set")
    (forged / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(UnetError, match="none of class 2 stroma"):
        fingerprint([forged])


def test_masks_that_are_all_background_are_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set")
    for path in (dataset / "train" / "masks").glob("*.png"):
        path.write_bytes(encode(np.zeros((64, 64), np.uint8), ".png"))
    with pytest.raises(UnetError, match=r"all background.*source_values"):
        fingerprint([dataset])


def test_a_plan_for_objects_of_a_different_size_warns(discs: Path) -> None:
    facts = fingerprint([discs])
    plan = make_plan(facts).model_copy(update={"scale": 0.25})
    assert any(
        "the plan's scale is 0.25" in text for text in preflight_warnings(facts, plan, validated=2)
    )
    assert not preflight_warnings(
        facts, make_plan(facts).model_copy(update={"patch_px": 64}), validated=2
    )


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_float_image_is_refused_by_the_doctor(value: float, tmp_path: Path) -> None:
    for folder, pixels in (("images", np.full((20, 20), value, np.float32)),
                           ("masks", np.eye(20, dtype=np.uint8) * 255)):  # fmt: skip
        (tmp_path / "src" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "src" / folder / "a.tif", pixels)
    command = [sys.executable, "-m", "app.cli", "doctor", str(tmp_path / "src"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    errors = [f for f in json.loads(done.stdout)["findings"] if f["severity"] == "error"]
    (said,) = (f["message"] for f in errors)
    assert "unsupported layout: float32 (20, 20)" in said


def test_a_non_finite_loss_is_an_error_and_keeps_the_checkpoint(
    discs: Path, tmp_path: Path
) -> None:
    plan = small_plan(discs).model_copy(update={"learning_rate": 1e30, "validate_at": (1,)})
    with pytest.raises(UnetError, match="step 1: the loss is not finite"):
        train([discs], tmp_path / "run", plan=plan)
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_a_file_that_exceeds_the_size_limit_is_reported_as_a_full_disk(
    discs: Path, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UnetError, match=r"the disk is full.*--resume"):
            train([discs], tmp_path / "run", plan=small_plan(discs))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "run").glob(".*.part"))
    train([discs], tmp_path / "run", plan=small_plan(discs), resume=True)


def test_other_os_errors_are_not_converted(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), report_full_disk(tmp_path):
        raise PermissionError(13, "denied")


@pytest.mark.system
def test_a_full_disk_is_reported_and_the_run_resumes_once_there_is_space(
    discs: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)],
                             capture_output=True, check=False)  # fmt: skip
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        plan = small_plan(discs, steps=12).model_copy(update={"validate_at": (2, 4, 6)})

        def fill_later(event: dict) -> None:
            if event["event"] == "validation":
                _fill(disk)

        with pytest.raises(UnetError, match="disk is full"):
            train([discs], disk / "run", plan=plan, on_event=fill_later)
        for path in disk.glob("fill*"):
            path.unlink()
        train([discs], disk / "run", plan=plan, resume=True)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / f"fill{free}").write_bytes(bytes(max(0, free - 4096)))
