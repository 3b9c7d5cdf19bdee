"""Individual decisions of a plan, each a value with its reason; arithmetic only.

The reasons are part of `plan.json` and so of the ids of runs and models: changing a text changes
the ids.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unet.errors import UnetError
from unet.planning.budget import Budget, training_bytes
from unet.planning.fingerprint import Fingerprint

WIDTHS = (16, 32, 64, 128, 256)
GPU_WIDTHS = (32, 64, 128, 256, 512)
PATCH_PX = 128
BATCH = 16
GPU_BATCH = 64
THICKNESS_PX = 32.0  # the third stage sees an object this thick whole
RARE_SHARE = 0.05  # of the pixels: rarer classes get a higher weight in the loss
MIN_BATCH = 4  # with two patches, even of 256 px, batch norm costs a tenth of the Dice
MIN_PATCH_PX = 64
FULL_JITTER_SPREAD = 0.28  # spread of the images' mean brightness (0..1) that gets full jitter
MIN_JITTER = 0.2
FEW_IMAGES = 5  # too few to estimate how much images differ
VALIDATION_PX = 4_000_000  # at the plan's scale
CHOICE_PX = 2_000_000  # of the images: twelve ways of splitting take some seconds
FORWARD_GAIN = 3.0  # how much faster a pixel is predicted than trained on
VALIDATION_SHARE = 0.012  # of the time limit, per validation
CHOICE_SHARE = 0.015


@dataclass(frozen=True)
class Sizes:
    """What determines the memory of a training step."""

    patch_px: int
    widths: tuple[int, ...]
    batch: int

    def bytes(self, budget: Budget) -> int:
        """Memory that training with these sizes needs."""
        return training_bytes(
            self.widths, batch=self.batch, patch_px=self.patch_px, precision=budget.precision
        )


def scale_of(facts: Fingerprint) -> tuple[float, str]:
    """Network pixels per image pixel: images with thick objects are scaled down."""
    thickness = facts.thickness_px[1]
    scale = min(1.0, max(0.125, THICKNESS_PX / max(thickness, 1e-6)))
    if scale > 0.75:
        return 1.0, f"objects are {thickness:g} px thick: fine as they are"
    return round(scale, 3), (
        f"objects are {thickness:g} px thick: brought to {THICKNESS_PX:g} px, so that the network "
        "sees them whole and steps cost less"
    )


def wanted_sizes(largest_px: int, budget: Budget) -> Sizes:
    """Sizes for unlimited memory."""
    patch = min(PATCH_PX, max(32, -(-largest_px // 32) * 32))
    all_widths = GPU_WIDTHS if budget.device == "cuda" else WIDTHS
    widths = all_widths if patch >= MIN_PATCH_PX else all_widths[:3]
    return Sizes(patch, widths, GPU_BATCH if budget.device == "cuda" else BATCH)


def fitting_sizes(wanted: Sizes, budget: Budget) -> Sizes:
    """The largest of the decreasing sizes that fit into the memory.

    Raises:
        UnetError: if not even the smallest fit.
    """
    for sizes in _decreasing_sizes(wanted):
        if budget.memory_bytes is None or sizes.bytes(budget) <= budget.memory_bytes:
            return sizes
    raise UnetError(
        "the memory is too small for any training",
        expected=f"at least {gigabytes(sizes.bytes(budget))}",
        found=gigabytes(budget.memory_bytes or 0), remedy="raise --memory",
    )  # fmt: skip


def shrunk_sizes(batch: int, patch_px: int, *, stride: int) -> tuple[int, int] | None:
    """Batch and patch with about half the pixels: first fewer patches, then smaller ones."""
    if batch > MIN_BATCH:
        return max(MIN_BATCH, batch // 2), patch_px
    if patch_px > max(MIN_PATCH_PX, stride):
        return batch, max(MIN_PATCH_PX, int(0.71 * patch_px) // stride * stride, stride)
    return (batch // 2, patch_px) if batch > 1 else None


def _decreasing_sizes(sizes: Sizes) -> Iterator[Sizes]:
    yield sizes
    while step := shrunk_sizes(sizes.batch, sizes.patch_px, stride=2 ** (len(sizes.widths) - 1)):
        sizes = replace(sizes, batch=step[0], patch_px=step[1])
        yield sizes
    while sizes.widths[0] > 4:
        sizes = replace(sizes, widths=tuple(width // 2 for width in sizes.widths))
        yield sizes


def size_reasons(found: Sizes, wanted: Sizes, budget: Budget, *, largest_px: int) -> dict[str, str]:
    """The reasons for patch, widths and batch."""
    patch = (
        f"the largest image is {largest_px} px at the plan's scale: what a patch holds beyond it "
        "is its mirror"
        if largest_px < found.patch_px
        else f"{PATCH_PX} px hold enough surroundings for objects of {THICKNESS_PX:g} px, and more "
        "images share a step than in patches twice as wide (Dice 0.88 to 0.89 against 0.60 to 0.84 "
        "in a minute)"
    )
    widths = (
        "as wide as networks that were published for a GPU; not measured on one by us"
        if budget.device == "cuda"
        else "2.0 million parameters learn within minutes on two cores; a wider network sees too "
        "few patches in that time"
    )
    if len(found.widths) < len(WIDTHS):
        widths = f"three stages: patches of {found.patch_px} px leave nothing to see in a fourth"
    batch = (
        "enough for batch norm, and for each step to see several kinds of image; with half as many "
        "in twice the steps a minute ended 0.01 Dice lower"
    )
    cause = f"{gigabytes(budget.memory_bytes or 0)} of memory do not hold"
    return {
        "patch_px": patch
        if found.patch_px == wanted.patch_px
        else f"{cause} {found.batch} patches of {wanted.patch_px} px",
        "widths": widths if found.widths == wanted.widths else f"{cause} {wanted.widths}",
        "batch": batch
        if found.batch == wanted.batch
        else f"{cause} {wanted.batch} patches of {wanted.patch_px} px "
        f"({gigabytes(wanted.bytes(budget))}); these need {gigabytes(found.bytes(budget))}",
    }


def class_weights(facts: Fingerprint) -> tuple[tuple[float, ...], str]:
    """1; for classes below a twentieth of the pixels up to 4, by the inverse square root."""
    weights = tuple(
        round(min(4.0, max(1.0, (RARE_SHARE / max(share, 1e-6)) ** 0.5)), 4)
        for share in facts.class_share
    )
    shares = ", ".join(f"{100 * share:.1f} %" for share in facts.class_share)
    return weights, (
        f"the classes hold {shares} of the pixels; Dice balances them, and weight goes only to "
        f"classes below {100 * RARE_SHARE:.0f} % (weights everywhere: Dice 0.880 against 0.886)"
    )


def colour_jitter(facts: Fingerprint) -> tuple[float, str]:
    """Strength of brightness and colour jitter: follows how much the images differ.

    More jitter takes longer to learn: a network with full jitter needed twice the steps for the
    same Dice on an unseen tissue (docs/experiments.md).
    """
    spread = facts.light_spread
    if facts.looked_at < FEW_IMAGES:
        return 1.0, f"{facts.looked_at} images do not tell how much others differ"
    strength = round(min(1.0, max(MIN_JITTER, spread / FULL_JITTER_SPREAD)), 2)
    return strength, (
        f"the mean light of an image differs by {spread:.3f} (of 1) from image to image; all of "
        f"the jitter from {FULL_JITTER_SPREAD:g} on, at least {MIN_JITTER:g} of it"
    )


def validation_and_choice_px(budget: Budget, patch_px: int) -> tuple[int, int, str]:
    """Pixels of a validation and for choosing thresholds, and why."""
    if budget.seconds is None or budget.patches_per_s is None:
        return VALIDATION_PX, CHOICE_PX, "more would cost time and change the choice little"
    speed = FORWARD_GAIN * budget.patches_per_s * patch_px**2
    validation = int(VALIDATION_SHARE * budget.seconds * speed)
    # Twelve watersheds on one core are about as fast as training on two.
    choice = int(CHOICE_SHARE * budget.seconds * speed / FORWARD_GAIN)
    return (
        max(100_000, min(VALIDATION_PX, validation)),
        max(100_000, min(CHOICE_PX, choice)),
        f"as many as take about a hundredth of {budget.seconds:.0f} s on this machine",
    )


def gigabytes(size: int) -> str:
    """A memory size for people."""
    return f"{size / 1e9:.1f} GB"
