"""The rules document: how to format a dataset, in version 2 or the paper's form."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dataset_rules.ground.documents import Document, canonical_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.fields import (
    ClassRule,
    Fit,
    MaskKind,
    SourceRule,
    SourceValue,
    SplitRule,
)
from dataset_rules.rules.paper_form import is_paper_form, paper_to_version_2, version_2_to_paper

MAX_SIDE_PX = 16_384  # larger resized samples do not fit readers without tiling
SHALLOW_FORMATS = frozenset({"jpg", "bmp"})  # 8 bits per channel

_SURROGATE = re.compile("[\ud800-\udfff]")

# Fields added later with their defaults: documents that do not use them keep their ids.
_ADDED_FIELDS: dict[str, Any] = {"overlap": 0, "depth": None, "drop": []}
_ADDED_SOURCE_FIELDS: dict[str, Any] = {"panel": None, "list": []}


class Rules(Document):
    """Version 2 of the rules document.

    A null field is an open question: `unetops format` infers it where the files are unambiguous
    and otherwise prints the line to add.
    """

    version: Literal[2] = 2
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    width: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    fit: Fit = Fit.KEEP
    overlap: int = Field(
        default=0, ge=0, description="overlap of neighbouring tiles in px; only with fit 'tile'"
    )
    image_format: Literal["png", "jpg", "bmp", "tiff"] = "png"
    color_model: Literal["rgb", "grayscale", "binary"] = "rgb"
    depth: Literal["keep", "divide", "range"] | None = Field(
        default=None,
        description="for 16-bit images. keep: 16 bits; divide: 8 bits, values divided by 257; "
        "range: 8 bits, each image's minimum maps to 0 and its maximum to 255; absent: keep if the "
        "image format supports 16 bits, else divide",
    )
    layout: Literal["separate", "together"] = "separate"
    mask_keyword: Annotated[str, Field(max_length=64, pattern=r"^[^/\\\x00-\x1f]*$")] = "_mask"
    classes: tuple[ClassRule, ...] | None = None
    split: SplitRule = SplitRule()
    source: SourceRule = SourceRule()
    ignore_values: tuple[SourceValue, ...] = Field(
        default=(), description="source values that become 255 (ignore)"
    )
    drop: tuple[SourceValue, ...] = Field(
        default=(), description="source values of dropped classes, which become background (0)"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        has_size = self.height is not None and self.width is not None
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together: give both or neither")
        if self.fit is Fit.KEEP and has_size:
            raise ValueError("fit 'keep' takes no height and width: remove them or use 'stretch'")
        if self.fit is not Fit.KEEP and not has_size:
            raise ValueError(f"fit '{self.fit}' needs height and width")
        if self.overlap and self.fit is not Fit.TILE:
            raise ValueError(f"overlap needs fit 'tile', found fit '{self.fit}'")
        if self.overlap >= min(self.height or MAX_SIDE_PX, self.width or MAX_SIDE_PX):
            raise ValueError(f"an overlap of {self.overlap} px leaves no step between tiles")
        return self

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        if self.layout == "together" and not self.mask_keyword:
            raise ValueError("layout 'together' needs a mask_keyword to distinguish the masks")
        if self.depth == "keep" and self.image_format in SHALLOW_FORMATS:
            raise ValueError(
                f"depth 'keep' needs a 16-bit format: png or tiff, not {self.image_format}"
            )
        if self.depth == "keep" and self.color_model == "binary":
            raise ValueError("color_model 'binary' makes two-valued images: remove depth 'keep'")
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.classes is not None:
            ids = [c.id for c in self.classes]
            if len(set(ids)) != len(ids):
                raise ValueError(f"class ids must be unique, found {ids}")
            if ids != sorted(ids) or ids[:1] != [0]:
                raise ValueError("class ids must start with 0 (background) and ascend")
        _check_unique_values(self)
        _check_mask_kind(self)
        _check_known_classes(self)
        return self


def _check_unique_values(rules: Rules) -> None:
    """Each source value maps to one target; files per class have separate values."""
    if isinstance(rules.source.mask, tuple):
        return
    values = [value for rule in rules.classes or () for value in set(rule.source_values)]
    counts = Counter([*values, *set(rules.ignore_values), *set(rules.drop)])
    duplicates = [str(value) for value, count in counts.items() if count > 1]
    if duplicates:
        raise ValueError(
            f"source values in more than one of classes, ignore_values and drop: "
            f"{', '.join(duplicates)}"
        )


def _check_mask_kind(rules: Rules) -> None:
    kind = rules.source.mask_kind
    objects = [rule for rule in rules.classes or () if rule.id != 0]
    one_class = {MaskKind.BINARY, MaskKind.INVERTED, MaskKind.INSTANCES}
    if kind in one_class and len(objects) > 1 and not isinstance(rules.source.mask, tuple):
        raise ValueError(
            f"mask_kind '{kind}' has one class besides background, but classes has "
            f"{len(objects)}: use 'label', or give a mask template for each class"
        )
    stated = [v for rule in rules.classes or () for v in rule.source_values]
    triples = [v for v in (*stated, *rules.ignore_values, *rules.drop) if not isinstance(v, int)]
    if triples and kind not in {None, MaskKind.COLORS}:
        raise ValueError(f"{list(triples[0])} is a colour, but mask_kind '{kind}' has grey values")


def _check_known_classes(rules: Rules) -> None:
    if rules.classes is None or not isinstance(rules.source.mask, tuple):
        return
    known = {rule.id for rule in rules.classes}
    unknown = sorted({mask.class_id for mask in rules.source.mask} - known)
    if unknown:
        raise ValueError(
            f"source.mask has unknown class {unknown[0]}: classes contains "
            f"{', '.join(map(str, sorted(known)))}"
        )


def read_rules(path: Path) -> Rules:
    """Read rules from a JSON file in either form.

    Raises:
        RulesError: if the file cannot be read, is not a JSON object or is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RulesError(
            "the rules cannot be read", where=str(path), found=str(reason),
            remedy="give a JSON file such as `unetops doctor SRC --rules rules.json` writes",
        ) from error  # fmt: skip
    return parse_rules(text, where=path.name)


def parse_rules(text: str | bytes, *, where: str = "rules") -> Rules:
    """Parse rules from JSON in either form; raises `RulesError` that lists every mistake."""
    try:
        data = json.loads(text, object_pairs_hook=_object_with_unique_keys)
    except (ValueError, RecursionError) as error:
        raise RulesError("the rules are not valid JSON", where=where, found=str(error)) from error
    if not isinstance(data, dict):
        raise RulesError("the rules are not a JSON object", where=where, found=type(data).__name__)
    if surrogate := _SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise RulesError(
            "the rules contain a lone surrogate", where=where, found=ascii(surrogate[0]),
            remedy="write the whole character: file names cannot contain half of one",
        )  # fmt: skip
    return rules_from_mapping(data, where=where)


def rules_from_mapping(data: Mapping[str, Any], *, where: str = "rules") -> Rules:
    """Rules from a parsed JSON object in either form."""
    if is_paper_form(data):
        return rules_from_mapping(paper_to_version_2(data, where=where), where=where)
    if "version" not in data:
        raise RulesError(
            "the rules have no version", where=where, expected='"version": 2', found="no such key",
            remedy="add it, or use the paper's form with image_type and color_model",
        )  # fmt: skip
    try:
        return Rules.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise RulesError(
            "the rules are invalid: " + _mistakes(error), where=where,
            remedy="check a file with `unetops rules check`; unknown keys are not allowed",
        ) from error  # fmt: skip


def to_paper(rules: Rules) -> dict[str, str]:
    """Convert to the paper's form; raises `RulesError` for what it cannot express."""
    return version_2_to_paper(rules_document(rules))


def rules_document(rules: Rules) -> dict[str, Any]:
    """The canonical document: all fields, including defaults except those of added fields."""
    document: dict[str, Any] = rules.model_dump(mode="json", by_alias=True)
    document["source"] = _without(document["source"], _ADDED_SOURCE_FIELDS)
    return _without(document, _ADDED_FIELDS)


def _without(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in fields.items()
        if name not in defaults or value != defaults[name]
    }


def rules_id(rules: Rules) -> str:
    """SHA-256 of the canonical document as hexadecimal digits."""
    return hashlib.sha256(canonical_json(rules_document(rules))).hexdigest()


def _object_with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    duplicates = {key for key in keys if keys.count(key) > 1}
    if duplicates:
        raise ValueError(f"duplicate key: {', '.join(sorted(duplicates))}")
    return dict(pairs)


def _mistakes(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "the document"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        found = "" if item["type"] in {"missing", "value_error"} else f", found {item['input']!r}"
        lines.append(f"{place}: {message}{found}"[:300])
    return "; ".join(lines)
