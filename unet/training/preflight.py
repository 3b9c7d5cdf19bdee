"""What is wrong, or not quite right, with a dataset, a plan or the disk before and in training."""

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
COPIES = 15  # of the weights: two checkpoints of four, one on its way, best ones, the model
SCALE_APART = 1.5  # between the scale of a plan and what the dataset asks for
FEW_IMAGES = 5


def concerns(facts: Fingerprint, plan: Plan, *, validated: int) -> list[str]:
    """Sentences that a person should read before the training ends."""
    found = []
    if facts.train == 1:
        found.append("there is one single training image: what is learnt will hold for its like")
    elif facts.train < FEW_IMAGES:
        found.append(f"there are only {facts.train} training images")
    if not validated:
        found.append(
            "nothing is held out: the last weights are kept, and no score is known; raise "
            "split.val in the rules, or give images of a second group"
        )
    largest = max(facts.height_px[2], facts.width_px[2]) * plan.scale
    if largest < MIN_PATCH_PX:
        found.append(
            f"the largest image is {largest:.0f} px at the plan's scale, smaller than a patch of "
            f"{plan.patch_px} px: the rest of each patch is its mirror"
        )
    wanted = scale_of(facts)[0]
    if not 1 / SCALE_APART < wanted / plan.scale < SCALE_APART:
        found.append(
            f"the plan's scale is {plan.scale:g}, for objects of other size; this dataset, with "
            f"objects {facts.thickness_px[1]:g} px thick, would be given {wanted:g}"
        )
    return found


def refuse_foreign_plan(plan: Plan, facts: Fingerprint) -> None:
    """Refuse a plan whose classes are not the dataset's."""
    if plan.classes != facts.classes:
        raise UnetError(
            "the plan is for another dataset", expected=_names(facts.classes),
            found=_names(plan.classes), remedy="make a plan for this dataset: unetops plan",
        )  # fmt: skip


def refuse_full_disk(out: Path, plan: Plan) -> None:
    """Refuse to begin what cannot be saved."""
    weights = 4 * parameters(plan.widths, channels=plan.channels, classes=len(plan.classes))
    needed, free = COPIES * weights, shutil.disk_usage(out).free
    if free < needed:
        raise UnetError(
            "the disk has too little room for checkpoints", where=str(out),
            expected=f"{needed / 1e6:.0f} MB", found=f"{free / 1e6:.0f} MB free",
            remedy="make room, or name a folder on another disk",
        )  # fmt: skip


@contextmanager
def full_disk_said(out: Path) -> Iterator[None]:
    """Say clearly that the disk is full; the last whole checkpoint stays.

    Raises:
        UnetError: instead of an error of the system.
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
            remedy="make room, then go on from the last checkpoint with --resume",
        ) from error  # fmt: skip


def _names(classes: Sequence[DatasetClass]) -> str:
    return "classes " + ", ".join(f"{c.id} {c.name}" for c in classes)
