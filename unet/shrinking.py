"""A plan that needs less memory, from a step on."""

from pathlib import Path

from unet.decisions import smaller
from unet.errors import GroupError, UnetError
from unet.plan import Plan
from unet.schedule import Shrink

REFUSED = "memory was refused in training"
NOTE = "memory-refused"  # in a run's folder: who goes on with it shrinks the plan first


def shrunk(plan: Plan, step: int) -> Plan:
    """The plan with about half the pixels in each batch from `step` on, written into it.

    Raises:
        UnetError: if a batch is one small patch already.
    """
    batch, patch_px = plan.sizes(step)
    found = smaller(batch, patch_px, stride=plan.stride)
    if found is None:
        raise UnetError(
            "the memory does not hold a single small patch",
            found=f"a batch of {batch} patches of {patch_px} px, widths {plan.widths}",
            remedy="end other programs, or plan a narrower network: unetops plan --memory",
        )
    if step == 0:
        why = f"{REFUSED} to {batch} patches of {patch_px} px"
        reasons = plan.reasons | {"batch": why, "patch_px": why}
        update = {"batch": found[0], "patch_px": found[1], "shrinks": (), "reasons": reasons}
        return plan.model_copy(update=update)
    why = f"{REFUSED} at step {step}"
    shrinks = (*plan.shrinks, Shrink(step=step, batch=found[0], patch_px=found[1]))
    reasons = plan.reasons | {"shrinks": why}
    return plan.model_copy(update={"shrinks": shrinks, "reasons": reasons})


def refused_in_group(out: Path) -> GroupError:
    """Note that the run needs a smaller plan; the others wait for this process and must be ended.

    Args:
        out: the run's folder, which all processes of one machine see.
    """
    (out / NOTE).touch()
    return GroupError(
        "memory was refused to one of the processes that train together", where=str(out),
        remedy="go on with --resume: the batch will be smaller; torchrun does so by itself with "
        "--max-restarts",
    )  # fmt: skip
