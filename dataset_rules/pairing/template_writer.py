"""Related files -> their common image template and mask template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataset_rules.pairing.path_parts import WORD, Cut, Segments, Shape
from dataset_rules.rules.template import escape

_SEPARATORS = "_-. "

_NUMBER = re.compile("([0-9]+)")


@dataclass(frozen=True)
class _Slot:
    """A folder of a template: its text, and its value for each file."""

    text: str
    values: tuple[str, ...]


def write_templates(
    images: Sequence[Cut], masks: Sequence[Cut], *, padded: bool
) -> tuple[str, str] | None:
    """The templates of related cuts; None if they would share no placeholder.

    Args:
        images: the cuts on the image side.
        masks: the related cut of each image.
        padded: numbers may have leading zeros on one side only.
    """
    runs = _runs([cut.run for cut in images], [cut.run for cut in masks])
    for lone in (False, True):  # nothing varies in a lone pair: its name becomes the placeholder
        texts = [
            _text(cuts, run, lone=lone, padded=padded)
            for cuts, run in zip((images, masks), runs, strict=True)
        ]
        if all("{" in text for text in texts):
            return texts[0], texts[1]
    return None


def _runs(left: Sequence[Segments], right: Sequence[Segments]) -> tuple[str, str]:
    """The differing folders of both sides; one with an affix becomes a placeholder."""
    if len(set(left)) == len(set(right)) == 1:
        return escape("/".join(left[0])), escape("/".join(right[0]))
    added = added_to(left[0], right[0])
    assert added is not None  # runs of one relation differ only by an affix
    texts = [escape(text) for text in added]
    return f"{texts[0]}{{part}}{texts[1]}", f"{texts[2]}{{part}}{texts[3]}"


def _text(cuts: Sequence[Cut], run: str, *, lone: bool, padded: bool) -> str:
    """One template; empty if the names cannot be expressed as one."""
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
    """Folders common to all files as literals, the others as placeholders."""
    if len({len(place) for place in places}) > 1:
        return [_Slot(f"{{{placeholder}:path}}", tuple("/".join(place) for place in places))]
    slots: list[_Slot] = []
    for values in zip(*places, strict=True):
        varying = sum("{" in slot.text for slot in slots)
        name = f"{{{placeholder}{varying + 1 if varying else ''}}}"
        slots.append(_Slot(escape(values[0]) if len(set(values)) == 1 else name, values))
    return slots


def _file(cuts: Sequence[Cut], folders: Sequence[_Slot], name: str | None) -> str | None:
    """The last part of the template, or the last two if a folder has the sample name."""
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
    """The folder's placeholder if the only file in it has the same name, else a star."""
    stems = tuple(cut.node.stem for cut in cuts)
    same_name = (slot.text for slot in folders if slot.values == stems and "{" in slot.text)
    return next(same_name, "*")


def _name(cuts: Sequence[Cut], *, lone: bool, padded: bool) -> str | None:
    word = escape("".join(cuts[0].word))
    heads, tails = [cut.head for cut in cuts], [cut.tail for cut in cuts]
    forced = "head" if lone and heads[0] else "tail" if lone else ""
    head = _varying(heads, "name", forced=forced == "head", padded=padded)
    other = "rest" if head and "{" in head else "name"
    tail = _varying(tails, other, forced=forced == "tail", padded=padded)
    return None if head is None or tail is None else head + word + tail


def _varying(values: Sequence[str], placeholder: str, *, forced: bool, padded: bool) -> str | None:
    """Literal text if all are equal, else a placeholder between common separators."""
    if len(set(values)) == 1 and not (forced and values[0]):
        return escape(values[0])
    if padded:
        return _numbers(values, placeholder)
    lead = _common_separators([value[:-1] for value in values])
    cores = [value[len(lead) :] for value in values]
    trail = _common_separators([core[:0:-1] for core in cores])[::-1]
    return f"{escape(lead)}{{{placeholder}}}{escape(trail)}"


def _numbers(values: Sequence[str], placeholder: str) -> str | None:
    """Varying numbers as placeholders in the text that all values share."""
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


def _common_separators(values: Sequence[str]) -> str:
    """The separators that all values start with."""
    shared = ""
    for characters in zip(*values, strict=False):  # up to the shortest
        if len(set(characters)) > 1 or characters[0] not in _SEPARATORS:
            break
        shared += characters[0]
    return shared


def added_to(left: Segments, right: Segments) -> tuple[str, str, str, str] | None:
    """The text around the common part of two names: `train` -> `trainannot` adds `annot`.

    Returns:
        Text before and after the name in the left run, before and after it in the right run.
    """
    if len(left) != 1 or len(right) != 1:
        return None
    a, b = left[0], right[0]
    if b.startswith(a):
        return ("", "", "", b[len(a) :])
    if b.endswith(a):
        return ("", "", b[: -len(a)], "")
    if a.startswith(b):
        return ("", a[len(b) :], "", "")
    if a.endswith(b):
        return (a[: -len(b)], "", "", "")
    return _with_word_replaced(a, b)


def _common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Number of equal leading items."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (left, right) in pairs if left != right), min(len(a), len(b)))


def _with_word_replaced(a: str, b: str) -> tuple[str, str, str, str] | None:
    """Like `added_to`, for names that differ in one word: `train_img` and `train_mask`."""
    words = [WORD.findall(name) for name in (a, b)]
    lead = _common_length(*words)
    trail = _common_length(*(own[lead:][::-1] for own in words))
    if lead and words[0][lead - 1] in _SEPARATORS:
        lead -= 1  # the separator does not vary
    if lead:
        rest = ["".join(own[lead:]) for own in words]
        return ("", rest[0], "", rest[1])
    if trail:
        if words[0][-trail] in _SEPARATORS:
            trail -= 1
        rest = ["".join(own[: len(own) - trail]) for own in words]
        return (rest[0], "", rest[1], "") if trail else None
    return None
