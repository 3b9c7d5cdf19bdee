"""The rules document: how a dataset is to be re-formed, in our form and in the paper's form."""

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
from dataset_rules.rules.paper_form import is_paper_form, paper_form_of, version_2_of

MAX_SIDE_PX = 16_384  # beyond it a resized sample no longer fits a tile-less reader
SHALLOW_FORMATS = frozenset({"jpg", "bmp"})  # they hold 8 bits a channel

_SURROGATE = re.compile("[\ud800-\udfff]")

# Fields that came later: a document that does not use them has the id that it had before.
_LATER: dict[str, Any] = {"overlap": 0, "depth": None, "drop": []}
_LATER_IN_SOURCE: dict[str, Any] = {"panel": None, "list": []}


class Rules(Document):
    """Version 2 of the rules document.

    A field that is null is an open question: `unetops format` infers it where the files leave no
    doubt and otherwise asks for the line to write.
    """

    version: Literal[2] = 2
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    width: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    fit: Fit = Fit.KEEP
    overlap: int = Field(
        default=0, ge=0, description="px that neighbouring tiles share; with fit 'tile' only"
    )
    image_format: Literal["png", "jpg", "bmp", "tiff"] = "png"
    color_model: Literal["rgb", "grayscale", "binary"] = "rgb"
    depth: Literal["keep", "divide", "range"] | None = Field(
        default=None,
        description="of 16-bit images. keep: 16 bits; divide: 8 bits, values by 257; range: 8 bits,"
        " each image's lowest value to 0 and its highest to 255; absent: keep where the image "
        "format holds 16 bits, else divide",
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
        default=(), description="source values of classes that are dropped: background (0)"
    )

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> Self:
        has_size = self.height is not None and self.width is not None
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together: give both or neither")
        if self.fit is Fit.KEEP and has_size:
            raise ValueError("fit 'keep' takes no height and width: drop them or choose 'stretch'")
        if self.fit is not Fit.KEEP and not has_size:
            raise ValueError(f"fit '{self.fit}' needs height and width")
        if self.overlap and self.fit is not Fit.TILE:
            raise ValueError(f"overlap is of fit 'tile', found fit '{self.fit}'")
        if self.overlap >= min(self.height or MAX_SIDE_PX, self.width or MAX_SIDE_PX):
            raise ValueError(f"overlap of {self.overlap} px leaves no step from tile to tile")
        return self

    @model_validator(mode="after")
    def _formats_make_sense(self) -> Self:
        if self.layout == "together" and not self.mask_keyword:
            raise ValueError("layout 'together' needs a mask_keyword to tell masks from images")
        if self.depth == "keep" and self.image_format in SHALLOW_FORMATS:
            raise ValueError(
                f"depth 'keep' needs a format that holds 16 bits: png or tiff, not "
                f"{self.image_format}"
            )
        if self.depth == "keep" and self.color_model == "binary":
            raise ValueError("color_model 'binary' makes images of two values: drop depth 'keep'")
        return self

    @model_validator(mode="after")
    def _classes_make_sense(self) -> Self:
        if self.classes is not None:
            ids = [c.id for c in self.classes]
            if len(set(ids)) != len(ids):
                raise ValueError(f"class ids must differ, found {ids}")
            if ids != sorted(ids) or ids[:1] != [0]:
                raise ValueError("classes start with id 0 (background) and ascend")
        _refuse_doubles(self)
        _refuse_classes_of_kind(self)
        _refuse_unknown_class(self)
        return self


def _refuse_doubles(rules: Rules) -> None:
    """A source value can become one thing only; a file of one class has values of its own."""
    if isinstance(rules.source.mask, tuple):
        return
    values = [value for rule in rules.classes or () for value in set(rule.source_values)]
    counts = Counter([*values, *set(rules.ignore_values), *set(rules.drop)])
    doubles = [str(value) for value, count in counts.items() if count > 1]
    if doubles:
        raise ValueError(
            f"source values stand in more than one of classes, ignore_values and drop: "
            f"{', '.join(doubles)}"
        )


def _refuse_classes_of_kind(rules: Rules) -> None:
    kind = rules.source.mask_kind
    objects = [rule for rule in rules.classes or () if rule.id != 0]
    one_class = {MaskKind.BINARY, MaskKind.INVERTED, MaskKind.INSTANCES}
    if kind in one_class and len(objects) > 1 and not isinstance(rules.source.mask, tuple):
        raise ValueError(
            f"mask_kind '{kind}' tells one class from the background, and classes names "
            f"{len(objects)}: choose 'label', or name a mask template for each class"
        )
    stated = [v for rule in rules.classes or () for v in rule.source_values]
    triples = [v for v in (*stated, *rules.ignore_values, *rules.drop) if not isinstance(v, int)]
    if triples and kind not in {None, MaskKind.COLORS}:
        raise ValueError(f"{list(triples[0])} is a colour, and mask_kind '{kind}' has grey values")


def _refuse_unknown_class(rules: Rules) -> None:
    if rules.classes is None or not isinstance(rules.source.mask, tuple):
        return
    known = {rule.id for rule in rules.classes}
    unknown = sorted({mask.class_id for mask in rules.source.mask} - known)
    if unknown:
        raise ValueError(
            f"source.mask names class {unknown[0]}, which classes does not hold: "
            f"{', '.join(map(str, sorted(known)))}"
        )


def read_rules(path: Path) -> Rules:
    """Rules from a JSON file in either form.

    Raises:
        RulesError: if the file cannot be read, is no JSON object or breaks the document's rules.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RulesError(
            "the rules cannot be read", where=str(path), found=str(reason),
            remedy="name a JSON file such as `unetops doctor SRC --rules rules.json` writes",
        ) from error  # fmt: skip
    return parse_rules(text, where=path.name)


def parse_rules(text: str | bytes, *, where: str = "rules") -> Rules:
    """Rules from JSON text in either form; raises `RulesError` that lists every mistake."""
    try:
        data = json.loads(text, object_pairs_hook=_object_without_doubles)
    except (ValueError, RecursionError) as error:
        raise RulesError("the rules are not valid JSON", where=where, found=str(error)) from error
    if not isinstance(data, dict):
        raise RulesError("the rules are not a JSON object", where=where, found=type(data).__name__)
    if half := _SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise RulesError(
            "the rules hold half of a character", where=where, found=ascii(half[0]),
            remedy="write the character itself: no file can bear half of one in its name",
        )  # fmt: skip
    return rules_from_mapping(data, where=where)


def rules_from_mapping(data: Mapping[str, Any], *, where: str = "rules") -> Rules:
    """Rules from a parsed JSON object in either form."""
    if is_paper_form(data):
        return rules_from_mapping(version_2_of(data, where=where), where=where)
    if "version" not in data:
        raise RulesError(
            "the rules name no version", where=where, expected='"version": 2', found="no such key",
            remedy="add it, or use the paper's form with image_type and color_model",
        )  # fmt: skip
    try:
        return Rules.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise RulesError(
            "the rules are wrong in " + _mistakes(error), where=where,
            remedy="`unetops rules check` tests a file; unknown keys are refused",
        ) from error  # fmt: skip


def to_paper(rules: Rules) -> dict[str, str]:
    """The paper's form of the rules; raises `RulesError` for what that form cannot say."""
    return paper_form_of(rules_document(rules))


def rules_document(rules: Rules) -> dict[str, Any]:
    """The canonical document: every field, also those left at their default, but the later ones."""
    document: dict[str, Any] = rules.model_dump(mode="json", by_alias=True)
    document["source"] = _without(document["source"], _LATER_IN_SOURCE)
    return _without(document, _LATER)


def _without(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in fields.items()
        if name not in defaults or value != defaults[name]
    }


def rules_id(rules: Rules) -> str:
    """SHA-256 of the canonical document, hexadecimal."""
    return hashlib.sha256(canonical_json(rules_document(rules))).hexdigest()


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    doubles = {key for key in keys if keys.count(key) > 1}
    if doubles:
        raise ValueError(f"key given twice: {', '.join(sorted(doubles))}")
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
