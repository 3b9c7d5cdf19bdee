"""Out of memory in training: recognise it and continue with smaller batches."""

import ctypes
import gc
from pathlib import Path

import torch

from unet.errors import GroupError, UnetError
from unet.planning.decisions import shrunk_sizes
from unet.planning.lr_schedule import Shrink
from unet.planning.plan import Plan

REFUSED = "memory was refused in training"  # part of plan reasons, which are hashed
OUT_OF_MEMORY_MARKER = "memory-refused"  # in a run's folder: shrink the plan when resuming

OUT_OF_MEMORY_TEXTS = (
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN; torch reports no details
)


def shrink_plan(plan: Plan, step: int) -> Plan:
    """The plan with about half the pixels per batch from `step` on.

    Raises:
        UnetError: if a batch is already one small patch.
    """
    batch, patch_px = plan.sizes(step)
    smaller = shrunk_sizes(batch, patch_px, stride=plan.stride)
    if smaller is None:
        raise UnetError(
            "out of memory even with a single small patch",
            found=f"a batch of {batch} patches of {patch_px} px, widths {plan.widths}",
            remedy="end other programs, or plan a narrower network: unetops plan --memory",
        )
    if step == 0:
        why = f"{REFUSED} to {batch} patches of {patch_px} px"
        reasons = plan.reasons | {"batch": why, "patch_px": why}
        update = {"batch": smaller[0], "patch_px": smaller[1], "shrinks": (), "reasons": reasons}
        return plan.model_copy(update=update)
    why = f"{REFUSED} at step {step}"
    shrinks = (*plan.shrinks, Shrink(step=step, batch=smaller[0], patch_px=smaller[1]))
    reasons = plan.reasons | {"shrinks": why}
    return plan.model_copy(update={"shrinks": shrinks, "reasons": reasons})


def group_out_of_memory(out: Path) -> GroupError:
    """Mark the run as needing a smaller plan; the other processes wait and must be ended.

    Args:
        out: the run's folder, shared by all processes of one machine.
    """
    (out / OUT_OF_MEMORY_MARKER).touch()
    return GroupError(
        "out of memory in one of the training processes", where=str(out),
        remedy="continue with --resume, in smaller batches; torchrun does this by itself with "
        "--max-restarts",
    )  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """True for out of memory, on CPU or GPU; torch has no single exception type for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in OUT_OF_MEMORY_TEXTS
    )


def release_memory() -> None:
    """Return freed memory to the operating system.

    Freed tensors of a few MiB stay in the C heap. Without this, less and less memory was left
    outside it after each out of memory, until even a single small patch did not fit.
    """
    gc.collect()
    torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim:
        trim(0)
