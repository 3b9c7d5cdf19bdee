"""Checks of dataset, plan and disk before and during training: errors and warnings."""

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dataset_rules.artifacts.dataset import DatasetClass
from unet.errors import UnetError
from unet.planning.budget import parameters
from unet.planning.decisions import MIN_PATCH_PX, scale_of
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
COPIES = 15  # of the weights: two checkpoints of four, one being written, best weights, the model
SCALE_APART = 1.5  # between the scale of a plan and the scale suited to the dataset
FEW_IMAGES = 5


def preflight_warnings(facts: Fingerprint, plan: Plan, *, validated: int) -> list[str]:
    """Warnings that a user should read before the training ends."""
    found = []
    if facts.train == 1:
        found.append(
            "there is only one training image: the model will work for similar images only"
        )
    elif facts.train < FEW_IMAGES:
        found.append(f"there are only {facts.train} training images")
    if not validated:
        found.append(
            "no images are held out: the last weights are kept, without scores; raise "
            "split.val in the rules, or add images of a second group"
        )
    largest = max(facts.height_px[2], facts.width_px[2]) * plan.scale
    if largest < MIN_PATCH_PX:
        found.append(
            f"the largest image is {largest:.0f} px at the plan's scale, smaller than a patch of "
            f"{plan.patch_px} px: patches are padded by reflection"
        )
    wanted = scale_of(facts)[0]
    if not 1 / SCALE_APART < wanted / plan.scale < SCALE_APART:
        found.append(
            f"the plan's scale is {plan.scale:g}, for objects of a different size; this "
            f"dataset, with objects {facts.thickness_px[1]:g} px thick, calls for {wanted:g}"
        )
    return found


def refuse_foreign_plan(plan: Plan, facts: Fingerprint) -> None:
    """Refuse a plan whose classes differ from the dataset's."""
    if plan.classes != facts.classes:
        raise UnetError(
            "the plan is for a different dataset", expected=_names(facts.classes),
            found=_names(plan.classes), remedy="make a plan for this dataset: unetops plan",
        )  # fmt: skip


def refuse_full_disk(out: Path, plan: Plan) -> None:
    """Refuse to start a training that cannot be saved."""
    weights = 4 * parameters(plan.widths, channels=plan.channels, classes=len(plan.classes))
    needed, free = COPIES * weights, shutil.disk_usage(out).free
    if free < needed:
        raise UnetError(
            "too little disk space for checkpoints", where=str(out),
            expected=f"{needed / 1e6:.0f} MB", found=f"{free / 1e6:.0f} MB free",
            remedy="free some space, or choose a folder on another disk",
        )  # fmt: skip


@contextmanager
def report_full_disk(out: Path) -> Iterator[None]:
    """Turn a full disk into a clear error; the last complete checkpoint stays.

    Raises:
        UnetError: instead of the system's `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        for part in out.glob(".*.part"):
            part.unlink(missing_ok=True)
        raise UnetError(
            "the disk is full", where=str(error.filename or out), found=error.strerror,
            remedy="free some space, then continue from the last checkpoint with --resume",
        ) from error  # fmt: skip


def _names(classes: Sequence[DatasetClass]) -> str:
    return "classes " + ", ".join(f"{c.id} {c.name}" for c in classes)
