"""What is wrong with the pairs of a source: damage, sizes, empty masks, leftovers."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from dataset_rules.errors import RulesError
from dataset_rules.files import Files, size_of
from dataset_rules.findings import Finding, Severity, counted
from dataset_rules.images import Header, read_header, read_image
from dataset_rules.look import Damage, Look, Looker
from dataset_rules.manifest import file_hash
from dataset_rules.names import Role, roles_in
from dataset_rules.pair import Pairing

MAX_HEADERS = 20_000  # files whose headers are read
MAX_DECODED = 400  # images that are decoded to find damage

_EXCLUDE = "mend the file or list it in source.exclude"


def sample_of(paths: Sequence[str], count: int) -> list[str]:
    """At most `count` paths, chosen by their hash, so that another file hardly matters."""
    if len(paths) <= count:
        return list(paths)
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:count]


def check_pairs(
    folder: Files, pairing: Pairing, look: Looker, masks: Sequence[str]
) -> list[Finding]:
    """Damage and sizes of paired files; `masks` were looked at already."""
    images = [pair.image for pair in pairing.pairs]
    firsts = [pair.masks[0] for pair in pairing.pairs]
    headers, damage = _headers(folder, sample_of([*images, *firsts], MAX_HEADERS))
    for path in sample_of(images, MAX_DECODED):
        if path not in damage:
            damage.update(_decode_damage(folder, path))
    damage.update((path, seen.what) for path in masks if isinstance(seen := look(path), Damage))
    return [
        *_damaged(damage), *_other_sizes(pairing, headers), *_empty(pairing, look, masks),
        *_equal_images(folder, images), *_sizes([headers[p] for p in images if p in headers]),
    ]  # fmt: skip


def check_leftovers(folder: Files, pairing: Pairing) -> list[Finding]:
    """Images and masks without partner, and files among the rest that are no images at all."""
    _, damage = _headers(
        folder, sample_of([*pairing.unpaired_images, *pairing.others], MAX_DECODED)
    )
    broken = Finding(
        code="unreadable", severity=Severity.WARNING, paths=tuple(sorted(damage)),
        message=f"{counted(len(damage), 'file')} without partner cannot be read as images",
        remedy=_EXCLUDE,
    )  # fmt: skip
    images = _orphans("unpaired_images", "image", "mask", pairing.unpaired_images)
    masks = _orphans("unpaired_masks", "mask", "image", pairing.unpaired_masks)
    return [f for f in (images, masks, broken, _left_out(pairing)) if f.paths]


def _left_out(pairing: Pairing) -> Finding:
    """Images that no template fits, but for those that are named as results of others."""
    paths = () if not pairing.pairs else pairing.others
    paths = tuple(p for p in paths if Role.DERIVED not in roles_in(p.rpartition("/")[2]))
    return Finding(
        code="left_out", severity=Severity.WARNING, paths=paths,
        message=f"{counted(len(paths), 'image')} left out: neither template fits",
        remedy="widen source.image and source.mask, or list them in source.exclude",
    )  # fmt: skip


def _orphans(code: str, noun: str, partner: str, paths: tuple[str, ...]) -> Finding:
    return Finding(
        code=code, severity=Severity.WARNING, paths=paths,
        message=f"{counted(len(paths), noun)} without {partner}",
        remedy="add the partners, or list the files in source.exclude",
    )  # fmt: skip


def _headers(folder: Files, paths: Iterable[str]) -> tuple[dict[str, Header], dict[str, str]]:
    headers: dict[str, Header] = {}
    damage: dict[str, str] = {}
    for path in paths:
        try:
            headers[path] = read_header(folder / path)
        except RulesError as error:
            damage[path] = told(error)
    return headers, damage


def told(error: RulesError) -> str:
    """What is wrong with a file, without its place."""
    return error.what + (f": {error.found}" if error.found else "")


def _decode_damage(folder: Files, path: str) -> dict[str, str]:
    try:
        read_image(folder / path)
    except RulesError as error:
        return {path: told(error)}
    return {}


def _damaged(damage: Mapping[str, str]) -> list[Finding]:
    """One finding for all files with the same damage."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path, what in damage.items():
        alike[what].append(path)
    return [
        Finding(
            code="damaged", severity=Severity.ERROR, paths=tuple(sorted(paths)), message=what,
            remedy=_EXCLUDE,
        )
        for what, paths in alike.items()
    ]  # fmt: skip


def _other_sizes(pairing: Pairing, headers: Mapping[str, Header]) -> list[Finding]:
    findings = []
    for pair in pairing.pairs:
        image, mask = headers.get(pair.image), headers.get(pair.masks[0])
        if image and mask and _size(image) != _size(mask):
            findings.append(
                Finding(
                    code="size_mismatch", severity=Severity.ERROR,
                    paths=(pair.image, pair.masks[0]),
                    message=f"the image is {_size(image)} and its mask {_size(mask)}",
                    remedy="they may belong to other partners; exclude or correct them",
                )
            )  # fmt: skip
    return findings


def _equal_images(folder: Files, images: Sequence[str]) -> list[Finding]:
    """Images that are equal byte for byte: counted twice, or a leak between splits."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in images:
        sizes[size_of(folder, path)].append(path)
    alike: dict[str, list[str]] = defaultdict(list)
    for path in (path for paths in sizes.values() if len(paths) > 1 for path in paths):
        alike[file_hash(folder / path)].append(path)
    return [
        Finding(
            code="equal_images", severity=Severity.WARNING, paths=tuple(sorted(paths)),
            message=f"{len(paths)} images are equal byte for byte",
            remedy="exclude all but one, or give them one group",
        )
        for paths in alike.values()
        if len(paths) > 1
    ]  # fmt: skip


def _sizes(headers: Sequence[Header]) -> list[Finding]:
    sizes = {(header.height_px, header.width_px) for header in headers}
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
    return f"{header.height_px} x {header.width_px}"


def _empty(pairing: Pairing, look: Looker, masks: Sequence[str]) -> list[Finding]:
    """Masks of a single value; of files with one object each, such a file is no news."""
    if any(len(pair.masks) > 1 for pair in pairing.pairs):
        return []
    flat = [p for p in masks if isinstance(seen := look(p), Look) and seen.value_count == 1]
    if not flat:
        return []
    return [
        Finding(
            code="uniform_masks", severity=Severity.INFO, paths=tuple(sorted(flat)),
            message=f"{counted(len(flat), 'mask')} with one value only: empty or full",
        )
    ]  # fmt: skip
