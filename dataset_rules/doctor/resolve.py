"""Fill in the rules where the files are unambiguous; what the user wrote stays."""

from collections.abc import Sequence

from dataset_rules.masks.value_counts import Meaning
from dataset_rules.pairing.groups import inferred_group
from dataset_rules.pairing.ranking import Reading
from dataset_rules.rules.fields import ClassRule, MaskTemplate
from dataset_rules.rules.rules import Rules


def resolve(given: Rules, reading: Reading, meaning: Meaning, *, exclude: Sequence[str]) -> Rules:
    """The rules that doctor proposes and format follows.

    Args:
        given: the user's rules.
        reading: how images and masks are found.
        meaning: of the mask values.
        exclude: unreadable paths, excluded in addition to those in the rules.
    """
    source = given.source.model_copy(
        update={
            "image": reading.image.text,
            "mask": _mask_field(reading),
            "mask_kind": given.source.mask_kind or meaning.kind,
            "panel": reading.panel,
            "exclude": (*given.source.exclude, *exclude),
        }
    )
    classes = _merged_classes(given.classes, meaning.classes, _classes_by_file(reading))
    ignored = given.ignore_values or (() if has_values(given) else meaning.ignore_values)
    group = given.split.group or inferred_group([pair.image for pair in reading.pairing.pairs])
    return given.model_copy(
        update={
            "source": source, "classes": classes, "ignore_values": ignored,
            "split": given.split.model_copy(update={"group": group}),
        }
    )  # fmt: skip


def _mask_field(reading: Reading) -> str | tuple[MaskTemplate, ...] | None:
    if not reading.masks:
        return None
    if reading.masks[0].class_id is None:
        return reading.masks[0].template.text
    return tuple(
        MaskTemplate(template=mask.template.text, class_id=mask.class_id)
        for mask in reading.masks
        if mask.class_id is not None
    )


def has_values(rules: Rules) -> bool:
    """True if the rules specify the source values of any class."""
    return any(rule.source_values for rule in rules.classes or ())


def _classes_by_file(reading: Reading) -> dict[int, str]:
    """Id and name of each class with separate mask files."""
    by_file = {m.class_id: m.name for m in reading.masks if m.class_id is not None}
    return {number: by_file[number] or f"class_{number}" for number in sorted(by_file)}


def _merged_classes(
    given: tuple[ClassRule, ...] | None,
    inferred: tuple[ClassRule, ...] | None,
    by_file: dict[int, str],
) -> tuple[ClassRule, ...] | None:
    """The given classes, with inferred source values if none are specified."""
    values = {rule.id: rule.source_values for rule in inferred or ()}
    if by_file and inferred is not None:
        object_values = next((v for number, v in values.items() if number), ())
        values = {0: values.get(0, ()), **dict.fromkeys(by_file, object_values)}
        inferred = (
            ClassRule(id=0, name="background", source_values=values[0]),
            *(ClassRule(id=i, name=n, source_values=values[i]) for i, n in by_file.items()),
        )
    if given is None or any(rule.source_values for rule in given):
        return given or inferred
    return tuple(
        rule.model_copy(update={"source_values": values.get(rule.id, ())}) for rule in given
    )
