"""Findings in the decoded pixels, of a sample or of all files; pure, no file access."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dataset_rules.artifacts.dataset import Split
from dataset_rules.checks.duplicates import MAX_COMPARED, equal_pixels, near_duplicates
from dataset_rules.checks.pixel_scan import PixelScan
from dataset_rules.checks.populations import check_populations
from dataset_rules.checks.split_leakage import check_leaks
from dataset_rules.checks.swapped_masks import swapped_by_content
from dataset_rules.checks.thumbnails import ImageThumbnail
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import Header
from dataset_rules.sources.headers import sample_paths

MAX_GROUPS = 4  # of duplicates up to which each group gets a separate finding

Group = tuple[str, ...]


def check_pixels(
    scan: PixelScan,
    pairs: Sequence[Pair],
    splits: Mapping[str, Split],
    equal: Sequence[Group],
    *,
    headers: Mapping[str, Header],
) -> list[Finding]:
    """All findings from the decoded pixels.

    Args:
        scan: the decoded files.
        pairs: of the source.
        splits: image path of each pair -> its split.
        equal: groups of identical files, found earlier.
        headers: of the images.
    """
    return [
        *check_copies(scan, splits, equal),
        *_with_counts(check_populations(_paired(scan, pairs), headers), scan.of_pairs),
        *_with_counts(swapped_by_content(pairs, scan.images, scan.masks), scan.of_pairs,
                      looked_at=len(scan.masks)),
        *_one_sided(scan, pairs),
        *_transparency(scan),
    ]  # fmt: skip


def check_copies(
    scan: PixelScan, splits: Mapping[str, Split], equal: Sequence[Group]
) -> list[Finding]:
    """Copies among the images, and copies in different splits."""
    chosen = sample_paths(sorted(scan.images), MAX_COMPARED)
    same = [group for group in equal_pixels(scan.images) if not _is_within(group, equal)]
    near = near_duplicates({path: scan.images[path] for path in chosen})
    copies = [
        *_copies("equal_images", "images are equal byte for byte", equal),
        *_copies("equal_pixels", "images have equal pixels in files that differ", same),
        *_copies("near_duplicates", "images show nearly the same", near),
    ]
    counts = {"equal_images": (scan.of_images, scan.of_images),
              "equal_pixels": (len(scan.images), scan.of_images),
              "near_duplicates": (len(chosen), scan.of_images)}  # fmt: skip
    return [
        finding.model_copy(
            update=dict(zip(("looked_at", "of"), counts[finding.code], strict=True))
        )
        for finding in copies
    ] + _with_counts(
        check_leaks(_merged([*equal, *same, *near]), splits), scan.of_images,
        looked_at=len(scan.images),
    )  # fmt: skip


def _is_within(group: Group, others: Sequence[Group]) -> bool:
    return any(set(group) <= set(other) for other in others)


def _merged(groups: Sequence[Group]) -> list[Group]:
    """Merge groups that share a path."""
    group_of: dict[str, set[str]] = {}
    for group in groups:
        whole = set(group).union(*(group_of.get(path, set()) for path in group))
        group_of.update(dict.fromkeys(whole, whole))
    return sorted({tuple(sorted(group)) for group in group_of.values()})


def _copies(code: str, what: str, groups: Sequence[Group]) -> list[Finding]:
    if len(groups) <= MAX_GROUPS:
        return [_copy(code, f"{len(group)} {what}", group) for group in groups]
    paths = tuple(path for group in groups for path in group)
    return [_copy(code, f"in {len(groups)} groups {what}", paths)]


def _copy(code: str, message: str, paths: Group) -> Finding:
    return Finding(
        code=code, severity=Severity.WARNING, paths=paths, message=message,
        remedy="exclude all but one, or give them one group",
    )  # fmt: skip


def _paired(scan: PixelScan, pairs: Sequence[Pair]) -> dict[str, ImageThumbnail]:
    return {pair.image: scan.images[pair.image] for pair in pairs if pair.image in scan.images}


def _one_sided(scan: PixelScan, pairs: Sequence[Pair]) -> list[Finding]:
    """Masks without any object, and masks that are all object."""
    masks = {pair.image: pair.masks for pair in pairs}
    kinds = {"empty_masks": (0.0, "without any object"), "full_masks": (1.0, "that are all object")}
    found = []
    for code, (share, what) in kinds.items():
        paths = sorted(i for i, mask in scan.masks.items() if mask.object_share == share)
        if paths:
            found.append(
                Finding(
                    code=code, severity=Severity.INFO,
                    paths=tuple(path for image in paths for path in masks[image][:1]),
                    message=f"{counted(len(paths), 'mask')} {what}",
                    remedy="keep them if that is right; else exclude their pairs",
                    looked_at=len(scan.masks), of=scan.of_pairs,
                )
            )  # fmt: skip
    return found


def _transparency(scan: PixelScan) -> list[Finding]:
    if not scan.transparent:
        return []
    return [
        Finding(
            code="alpha", severity=Severity.WARNING, paths=tuple(sorted(set(scan.transparent))),
            message=f"{counted(len(set(scan.transparent)), 'file')} with transparent pixels: "
            "alpha is dropped, and what is under it counts",
            remedy="look at them; store them without alpha if they look wrong",
            looked_at=len(scan.images) + len(scan.masks), of=scan.of_images + scan.of_pairs,
        )
    ]  # fmt: skip


def damaged(damage: Mapping[str, str], looked_at: int, of: int) -> list[Finding]:
    """One finding for all files with the same damage."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, what in damage.items():
        groups[what].append(path)
    return [
        Finding(
            code="unknown_values" if "values of no class" in what else "damaged",
            severity=Severity.ERROR, paths=tuple(sorted(paths)), message=what,
            remedy="give the values a class or list them in ignore_values"
            if "values of no class" in what
            else "repair the file or list it in source.exclude",
            looked_at=looked_at, of=of,
        )
        for what, paths in groups.items()
    ]  # fmt: skip


def _with_counts(
    findings: Sequence[Finding], of: int, *, looked_at: int | None = None
) -> list[Finding]:
    return [
        finding.model_copy(update={"of": of, "looked_at": looked_at or finding.looked_at})
        for finding in findings
    ]
