"""Memory that was refused: how it is told, and how what is free is given back."""

import ctypes
import gc

import torch

OUT_OF_MEMORY = (
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN, of which torch tells no more
)


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
