"""Paths + templates -> pairs and leftover files; pure, no file access."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.rules.template import OBJECT, Template

Key = tuple[str, ...]


@dataclass(frozen=True)
class MaskSource:
    """A mask template; `class_id` if each class has separate files."""

    template: Template
    class_id: int | None = None
    name: str = ""  # of that class, if the file names give one


@dataclass(frozen=True)
class Pair:
    """An image with its mask, or with the several files that make up its mask."""

    image: str
    masks: tuple[str, ...]
    class_ids: tuple[int | None, ...]  # one per mask file


@dataclass(frozen=True)
class Pairing:
    """The paths sorted by two templates; every path occurs in exactly one field."""

    pairs: tuple[Pair, ...]
    unpaired_images: tuple[str, ...]
    unpaired_masks: tuple[str, ...]
    others: tuple[str, ...]  # match neither template
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Mask:
    path: str
    source: MaskSource


def pair_paths(paths: Iterable[str], image: Template, masks: Sequence[MaskSource]) -> Pairing:
    """Join images and masks on the placeholders that their templates share.

    A path that matches both an image and a mask template belongs to the one with more literal
    characters, and to the mask if they are equal.
    """
    fields = _shared_fields(image, masks)
    images: dict[Key, list[str]] = defaultdict(list)
    found: dict[Key, list[_Mask]] = defaultdict(list)
    others = []
    for path in sorted(set(paths)):
        as_image, as_mask = image.match(path), _as_mask(path, masks)
        if as_mask and (as_image is None or as_mask[0].template.weight >= image.weight):
            source, values = as_mask
            found[_key(values, fields)].append(_Mask(path, source))
        elif as_image is not None:
            images[_key(as_image, fields)].append(path)
        else:
            others.append(path)
    return _join(images, found, tuple(others))


def pair_panels(paths: Iterable[str], image: Template) -> Pairing:
    """Each file that matches the template contains an image and, in another panel, its mask."""
    matches = {path: image.match(path) is not None for path in sorted(set(paths))}
    return Pairing(
        pairs=tuple(Pair(path, (path,), (None,)) for path, is_match in matches.items() if is_match),
        unpaired_images=(),
        unpaired_masks=(),
        others=tuple(path for path, is_match in matches.items() if not is_match),
        findings=(),
    )


def _shared_fields(image: Template, masks: Sequence[MaskSource]) -> tuple[str, ...]:
    shared = set(image.fields).intersection(*(mask.template.fields for mask in masks))
    return tuple(sorted(shared - {OBJECT}))


def _as_mask(path: str, masks: Sequence[MaskSource]) -> tuple[MaskSource, dict[str, str]] | None:
    """The best matching mask template, with its values."""
    matches = [(mask, mask.template.match(path)) for mask in masks]
    ranked = [
        (mask.template.weight, mask, values) for mask, values in matches if values is not None
    ]
    if not ranked:
        return None
    _, mask, values = max(ranked, key=lambda item: item[0])
    return mask, values


def _key(values: Mapping[str, str], fields: tuple[str, ...]) -> Key:
    return tuple(values[field] for field in fields)


def _join(
    images: Mapping[Key, list[str]], masks: Mapping[Key, list[_Mask]], others: tuple[str, ...]
) -> Pairing:
    pairs: list[Pair] = []
    findings: list[Finding] = []
    for key, paths in images.items():
        ambiguity = _ambiguity(paths, masks.get(key, []))
        if ambiguity:
            findings.append(ambiguity)
        elif key in masks:
            pairs.append(_pair(paths[0], masks[key]))
    taken = {pair.image for pair in pairs} | {path for pair in pairs for path in pair.masks}
    return Pairing(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.image)),
        unpaired_images=_left_over((path for paths in images.values() for path in paths), taken),
        unpaired_masks=_left_over((m.path for ms in masks.values() for m in ms), taken),
        others=others,
        findings=tuple(findings),
    )


def _pair(image: str, masks: Sequence[_Mask]) -> Pair:
    return Pair(
        image, tuple(mask.path for mask in masks), tuple(mask.source.class_id for mask in masks)
    )


def _left_over(paths: Iterable[str], taken: set[str]) -> tuple[str, ...]:
    return tuple(sorted(path for path in paths if path not in taken))


def _ambiguity(images: Sequence[str], masks: Sequence[_Mask]) -> Finding | None:
    """A finding if several files match where the templates allow one; none of them is used."""
    if masks and len(images) > 1:
        return _ambiguous("two_images", "several images match one mask", (*images, masks[0].path))
    single = [mask.path for mask in masks if not mask.source.template.has_many]
    templates = {mask.source.template.text for mask in masks}
    if len(single) > len(templates):
        return _ambiguous("two_masks", "several masks match one image", (*images, *single))
    return None


def _ambiguous(code: str, message: str, paths: tuple[str, ...]) -> Finding:
    return Finding(
        code=code, severity=Severity.ERROR, paths=paths, message=message,
        remedy="list the files to leave out in source.exclude, or make the templates narrower",
    )  # fmt: skip
