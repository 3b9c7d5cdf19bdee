"""Findings from the image headers: size mismatches, bit depth, pages, orientation."""

from collections import defaultdict
from collections.abc import Sequence

from dataset_rules.checks.swapped_masks import swapped_by_size
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.pairs import Pair, Pairing
from dataset_rules.pixels.images import Header
from dataset_rules.sources.headers import Survey


def check_headers(pairing: Pairing, survey: Survey) -> list[Finding]:
    """All findings that the headers of the paired files give."""
    images = [pair.image for pair in pairing.pairs]
    found = [
        *_size_mismatches(pairing.pairs, survey),
        *swapped_by_size(pairing.pairs, survey.headers),
        *_stacks(pairing, survey),
        *_orientation(images, survey),
        *_deep(images, survey),
        *_sizes([header for _, header in survey.among(images)]),
    ]
    counts = {"looked_at": len(survey.headers), "of": len(survey.headers) + len(survey.damage)}
    return [finding.model_copy(update=counts) for finding in found]


def _size_mismatches(pairs: Sequence[Pair], survey: Survey) -> list[Finding]:
    """Pairs whose mask differs in size from the image, grouped by size."""
    groups: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        image = survey.headers.get(pair.image)
        for path, mask in survey.among(pair.masks):
            if image and image.size_px != mask.size_px:
                what = f"the image is {_size(image)} and its mask {_size(mask)}"
                is_rotated = image.orientation > 4 and image.size_px == mask.size_px[::-1]
                hint = ": it was drawn before the EXIF rotation" if is_rotated else ""
                groups[what + hint] += [pair.image, path]
    return [
        Finding(
            code="size_mismatch", severity=Severity.ERROR, paths=tuple(paths), message=what,
            remedy="the files may belong to other pairs; exclude or correct them",
        )
        for what, paths in groups.items()
    ]  # fmt: skip


def _stacks(pairing: Pairing, survey: Survey) -> list[Finding]:
    used = {path for pair in pairing.pairs for path in (pair.image, *pair.masks)}
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for path, header in survey.headers.items():
        if header.pages > 1:
            groups[header.pages, path in used].append(path)
    return [
        Finding(
            code="stack", severity=Severity.ERROR if is_used else Severity.WARNING,
            paths=tuple(sorted(paths)), message=f"the file is a stack of pages: {pages} pages",
            remedy="split it into single images first, or list it in source.exclude",
        )
        for (pages, is_used), paths in groups.items()
    ]  # fmt: skip


def _orientation(images: Sequence[str], survey: Survey) -> list[Finding]:
    rotated = [path for path, header in survey.among(images) if header.orientation != 1]
    if not rotated:
        return []
    return [
        Finding(
            code="orientation", severity=Severity.WARNING, paths=tuple(rotated),
            message=f"{counted(len(rotated), 'image')} turned or mirrored by an EXIF tag: they are "
            "read upright, and a mask that was drawn on the pixels as stored does not fit them",
            remedy="look at the overlay of one; store the images upright if it does not fit",
        )
    ]  # fmt: skip


def _deep(images: Sequence[str], survey: Survey) -> list[Finding]:
    deep = [path for path, header in survey.among(images) if header.bits > 8]
    if not deep:
        return []
    is_mixed = len(deep) < len(survey.among(images))
    return [
        Finding(
            code="deep_images", severity=Severity.WARNING if is_mixed else Severity.INFO,
            paths=tuple(deep),
            message=f"{counted(len(deep), 'image')} with more than 8 bits"
            + (", the others have 8: their brightness cannot be compared" if is_mixed else ""),
            remedy="png and tiff keep 16 bits; for jpg and bmp they are scaled",
        )
    ]  # fmt: skip


def _sizes(headers: Sequence[Header]) -> list[Finding]:
    sizes = {header.size_px for header in headers}
    if len(sizes) < 2:
        return []
    return [
        Finding(
            code="image_sizes", severity=Severity.INFO,
            message="the images have {} sizes, from {} x {} to {} x {} px".format(
                len(sizes), *min(sizes), *max(sizes)
            ),
            remedy="give height, width and fit where a model needs one size",
        )
    ]  # fmt: skip


def _size(header: Header) -> str:
    return "{} x {}".format(*header.size_px)
