"""Out of memory in training: recognised, and smaller batches from then on."""

import ctypes
import gc
from pathlib import Path

import torch

from unet.errors import GroupError, UnetError
from unet.planning.decisions import shrunk_sizes
from unet.planning.lr_schedule import Shrink
from unet.planning.plan import Plan

REFUSED = "memory was refused in training"
NOTE = "memory-refused"  # in a run's folder: who goes on with it shrinks the plan first

OUT_OF_MEMORY = (
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN, of which torch tells no more
)


def shrunk(plan: Plan, step: int) -> Plan:
    """The plan with about half the pixels in each batch from `step` on, written into it.

    Raises:
        UnetError: if a batch is one small patch already.
    """
    batch, patch_px = plan.sizes(step)
    found = shrunk_sizes(batch, patch_px, stride=plan.stride)
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


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory was refused, of the machine or of a GPU; torch has no one name for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in OUT_OF_MEMORY)


def give_back() -> None:
    """Give what was freed back to the system, for use in another form.

    Freed tensors of some MiB stay with the heap of C: after a refusal, less and less was left for
    what lies outside of it, until a single small patch was refused too.
    """
    gc.collect()
    torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim:
        trim(0)
