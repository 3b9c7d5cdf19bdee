"""Related files -> the image template and the mask template that they have in common."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataset_rules.pairing.path_parts import WORD, Cut, Segments, Shape
from dataset_rules.rules.template import escape

_SIGNS = "_-. "

_NUMBER = re.compile("([0-9]+)")


@dataclass(frozen=True)
class _Slot:
    """A folder of a template: its text, and its value in each of the files."""

    text: str
    values: tuple[str, ...]


def write_templates(
    images: Sequence[Cut], masks: Sequence[Cut], *, padded: bool
) -> tuple[str, str] | None:
    """The templates of related cuts, item by item; None where nothing could join them.

    Args:
        images: cuts that take the part of the image.
        masks: the cut that each of them is related to.
        padded: numbers may have leading zeros on one side.
    """
    runs = _runs([cut.run for cut in images], [cut.run for cut in masks])
    for lone in (False, True):  # a lone pair varies in nothing: what it shares is its name
        texts = [
            _text(cuts, run, lone=lone, padded=padded)
            for cuts, run in zip((images, masks), runs, strict=True)
        ]
        if all("{" in text for text in texts):
            return texts[0], texts[1]
    return None


def _runs(left: Sequence[Segments], right: Sequence[Segments]) -> tuple[str, str]:
    """The exchanged folders on both sides; one with an addition becomes a placeholder."""
    if len(set(left)) == len(set(right)) == 1:
        return escape("/".join(left[0])), escape("/".join(right[0]))
    added = added_to(left[0], right[0])
    assert added is not None  # cuts of one manner differ in their runs only by what is added
    texts = [escape(text) for text in added]
    return f"{texts[0]}{{part}}{texts[1]}", f"{texts[2]}{{part}}{texts[3]}"


def _text(cuts: Sequence[Cut], run: str, *, lone: bool, padded: bool) -> str:
    """One template; empty where the names cannot be written as one."""
    named = any(cut.head or cut.tail for cut in cuts)
    before = _folders([cut.before for cut in cuts], "folder")
    after = _folders([cut.after for cut in cuts], "inner")
    if lone and not named:
        places = after or before
        places[-1:] = [_Slot("{folder}", slot.values) for slot in places[-1:]]
    file = _file(cuts, [*before, *after], _name(cuts, lone=lone, padded=padded))
    if file is None:
        return ""
    parts = [*(slot.text for slot in before), run, *(slot.text for slot in after), file]
    return "/".join(part for part in parts if part)


def _folders(places: Sequence[Segments], placeholder: str) -> list[_Slot]:
    """Folders that all files share as they are, the others as placeholders."""
    if len({len(place) for place in places}) > 1:
        return [_Slot(f"{{{placeholder}:path}}", tuple("/".join(place) for place in places))]
    slots: list[_Slot] = []
    for values in zip(*places, strict=True):
        varying = sum("{" in slot.text for slot in slots)
        name = f"{{{placeholder}{varying + 1 if varying else ''}}}"
        slots.append(_Slot(escape(values[0]) if len(set(values)) == 1 else name, values))
    return slots


def _file(cuts: Sequence[Cut], folders: Sequence[_Slot], name: str | None) -> str | None:
    """The last part of the template, or of the last two where a folder bears the name."""
    suffixes = {cut.node.suffix for cut in cuts}
    suffix = escape(suffixes.pop()) if len(suffixes) == 1 else ".{type}"
    match cuts[0].node.shape:
        case Shape.FILE:
            return None if name is None else name + suffix
        case Shape.NUMBERED:
            return None if name is None else f"{name}{{object:int}}{suffix}"
        case Shape.NAMED_FOLDER:
            return None if name is None else f"{name}/*{suffix}"
        case Shape.FOLDER:
            return _stem_in_folder(cuts, folders) + suffix


def _stem_in_folder(cuts: Sequence[Cut], folders: Sequence[_Slot]) -> str:
    """The folder's placeholder where the only file in it bears the same name, else a star."""
    stems = tuple(cut.node.stem for cut in cuts)
    alike = (slot.text for slot in folders if slot.values == stems and "{" in slot.text)
    return next(alike, "*")


def _name(cuts: Sequence[Cut], *, lone: bool, padded: bool) -> str | None:
    word = escape("".join(cuts[0].word))
    heads, tails = [cut.head for cut in cuts], [cut.tail for cut in cuts]
    forced = "head" if lone and heads[0] else "tail" if lone else ""
    head = _varying(heads, "name", forced=forced == "head", padded=padded)
    other = "rest" if head and "{" in head else "name"
    tail = _varying(tails, other, forced=forced == "tail", padded=padded)
    return None if head is None or tail is None else head + word + tail


def _varying(values: Sequence[str], placeholder: str, *, forced: bool, padded: bool) -> str | None:
    """Literal text where all are equal; else a placeholder between the signs they share."""
    if len(set(values)) == 1 and not (forced and values[0]):
        return escape(values[0])
    if padded:
        return _numbers(values, placeholder)
    lead = _shared_signs([value[:-1] for value in values])
    cores = [value[len(lead) :] for value in values]
    trail = _shared_signs([core[:0:-1] for core in cores])[::-1]
    return f"{escape(lead)}{{{placeholder}}}{escape(trail)}"


def _numbers(values: Sequence[str], placeholder: str) -> str | None:
    """Numbers that vary as placeholders, around the text that all have in common."""
    parts = [_NUMBER.split(value) for value in values]
    if len({tuple(part[::2]) for part in parts}) > 1:
        return None
    texts: list[str] = []
    for place, column in enumerate(zip(*parts, strict=True)):
        if place % 2 == 0 or len({int(number) for number in column}) == 1:
            texts.append(escape(column[0]))
            continue
        count = sum("{" in text for text in texts)
        texts.append(f"{{{placeholder}{count + 1 if count else ''}:int}}")
    return "".join(texts)


def _shared_signs(values: Sequence[str]) -> str:
    """The separating signs that all values begin with."""
    shared = ""
    for signs in zip(*values, strict=False):  # as far as the shortest goes
        if len(set(signs)) > 1 or signs[0] not in _SIGNS:
            break
        shared += signs[0]
    return shared


def added_to(left: Segments, right: Segments) -> tuple[str, str, str, str] | None:
    """What stands around what two names share: `train` -> `trainannot` adds `annot`.

    Returns:
        Text before and behind the name in the left run, before and behind it in the right run.
    """
    if len(left) != 1 or len(right) != 1:
        return None
    one, other = left[0], right[0]
    if other.startswith(one):
        return ("", "", "", other[len(one) :])
    if other.endswith(one):
        return ("", "", other[: -len(one)], "")
    if one.startswith(other):
        return ("", one[len(other) :], "", "")
    if one.endswith(other):
        return (one[: -len(other)], "", "", "")
    return _exchanged(one, other)


def _agreeing(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the first items are equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (left, right) in pairs if left != right), min(len(one), len(other)))


def _exchanged(one: str, other: str) -> tuple[str, str, str, str] | None:
    """As `added_to`, of names in which one word is exchanged: `train_img` and `train_mask`."""
    words = [WORD.findall(name) for name in (one, other)]
    lead = _agreeing(*words)
    trail = _agreeing(*(own[lead:][::-1] for own in words))
    if lead and words[0][lead - 1] in _SIGNS:
        lead -= 1  # the sign is no part of what varies
    if lead:
        rest = ["".join(own[lead:]) for own in words]
        return ("", rest[0], "", rest[1])
    if trail:
        if words[0][-trail] in _SIGNS:
            trail -= 1
        rest = ["".join(own[: len(own) - trail]) for own in words]
        return (rest[0], "", rest[1], "") if trail else None
    return None
