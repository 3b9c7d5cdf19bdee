"""Single decisions of a plan: each a value and the reason for it; arithmetic only."""

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
THICKNESS_PX = 32.0  # an object this thick is seen whole by the third stage
RARE_SHARE = 0.05  # of the pixels, below which a class weighs more in the loss
FEWEST_BATCH = 4  # two patches, even of 256 px, cost a tenth of the Dice by batch norm
SMALLEST_PATCH_PX = 64
FULL_JITTER_SPREAD = 0.28  # of the images' mean light, of 1: beyond it colours are jittered in full
LEAST_JITTER = 0.2
FEW_IMAGES = 5  # too few to tell how much images differ
VALIDATION_PX = 4_000_000  # at the plan's scale
CHOICE_PX = 2_000_000  # of the images: twelve ways to split them take some seconds
FORWARD_GAIN = 3.0  # a pixel is predicted so much faster than learnt from
VALIDATION_SHARE = 0.012  # of the time limit, for one validation
CHOICE_SHARE = 0.015


@dataclass(frozen=True)
class Sizes:
    """What the memory of a training step follows from."""

    patch_px: int
    widths: tuple[int, ...]
    batch: int

    def bytes(self, budget: Budget) -> int:
        """Memory that a training of these sizes needs."""
        return training_bytes(
            self.widths, batch=self.batch, patch_px=self.patch_px, precision=budget.precision
        )


def scale_of(facts: Fingerprint) -> tuple[float, str]:
    """Network pixels per image pixel: thick objects are made smaller."""
    thickness = facts.thickness_px[1]
    scale = min(1.0, max(0.125, THICKNESS_PX / max(thickness, 1e-6)))
    if scale > 0.75:
        return 1.0, f"objects are {thickness:g} px thick: fine as they are"
    return round(scale, 3), (
        f"objects are {thickness:g} px thick: brought to {THICKNESS_PX:g} px, so that the network "
        "sees them whole and steps cost less"
    )


def wanted_sizes(largest_px: int, budget: Budget) -> Sizes:
    """Sizes where memory does not count."""
    patch = min(PATCH_PX, max(32, -(-largest_px // 32) * 32))
    wide = GPU_WIDTHS if budget.device == "cuda" else WIDTHS
    widths = wide if patch >= SMALLEST_PATCH_PX else wide[:3]
    return Sizes(patch, widths, GPU_BATCH if budget.device == "cuda" else BATCH)


def fitting_sizes(wanted: Sizes, budget: Budget) -> Sizes:
    """The first sizes on the way down that fit into the memory.

    Raises:
        UnetError: if not even the smallest do.
    """
    for sizes in _ways_down(wanted):
        if budget.memory_bytes is None or sizes.bytes(budget) <= budget.memory_bytes:
            return sizes
    raise UnetError(
        "the memory is too small for any training",
        expected=f"at least {gigabytes(sizes.bytes(budget))}",
        found=gigabytes(budget.memory_bytes or 0), remedy="give more by --memory",
    )  # fmt: skip


def smaller(batch: int, patch_px: int, *, stride: int) -> tuple[int, int] | None:
    """Batch and patch with about half the pixels: first fewer patches, then smaller ones."""
    if batch > FEWEST_BATCH:
        return max(FEWEST_BATCH, batch // 2), patch_px
    if patch_px > max(SMALLEST_PATCH_PX, stride):
        return batch, max(SMALLEST_PATCH_PX, int(0.71 * patch_px) // stride * stride, stride)
    return (batch // 2, patch_px) if batch > 1 else None


def _ways_down(sizes: Sizes) -> Iterator[Sizes]:
    yield sizes
    while step := smaller(sizes.batch, sizes.patch_px, stride=2 ** (len(sizes.widths) - 1)):
        sizes = replace(sizes, batch=step[0], patch_px=step[1])
        yield sizes
    while sizes.widths[0] > 4:
        sizes = replace(sizes, widths=tuple(width // 2 for width in sizes.widths))
        yield sizes


def size_reasons(found: Sizes, wanted: Sizes, budget: Budget, *, largest_px: int) -> dict[str, str]:
    """Why patch, widths and batch are what they are."""
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
    """1, and more for classes below a twentieth of the pixels: inverse square root, at most 4."""
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
    """Strength of the jitter of light and colours: as much as the images differ, at least some.

    What is jittered by more takes longer to learn: a network with all of the jitter needed twice
    the steps for the same Dice on a tissue that it had not seen (docs/experiments.md).
    """
    spread = facts.light_spread
    if facts.looked_at < FEW_IMAGES:
        return 1.0, f"{facts.looked_at} images do not tell how much others differ"
    strength = round(min(1.0, max(LEAST_JITTER, spread / FULL_JITTER_SPREAD)), 2)
    return strength, (
        f"the mean light of an image differs by {spread:.3f} (of 1) from image to image; all of "
        f"the jitter from {FULL_JITTER_SPREAD:g} on, at least {LEAST_JITTER:g} of it"
    )


def looked_at_px(budget: Budget, patch_px: int) -> tuple[int, int, str]:
    """Pixels of a validation and of the choice of thresholds, and why."""
    if budget.seconds is None or budget.patches_per_s is None:
        return VALIDATION_PX, CHOICE_PX, "more would cost time and change the choice little"
    speed = FORWARD_GAIN * budget.patches_per_s * patch_px**2
    seen = int(VALIDATION_SHARE * budget.seconds * speed)
    # Watershed in its twelve ways runs on one core about as fast as the network learns on two.
    chosen = int(CHOICE_SHARE * budget.seconds * speed / FORWARD_GAIN)
    return (
        max(100_000, min(VALIDATION_PX, seen)),
        max(100_000, min(CHOICE_PX, chosen)),
        f"as many as take about a hundredth of {budget.seconds:.0f} s on this machine",
    )


def gigabytes(size: int) -> str:
    """A size of memory as people read it."""
    return f"{size / 1e9:.1f} GB"
