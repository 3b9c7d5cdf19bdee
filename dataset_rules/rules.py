"""The rules document: how a dataset is to be re-formed, in our form and in the paper's form."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataset_rules.errors import RulesError

MAX_SIDE_PX = 16_384  # beyond it a resized sample no longer fits a tile-less reader
PAPER_IMAGE_TYPES = {"1": "jpg", "2": "png", "3": "bmp"}
PAPER_COLOR_MODELS = {"1": "rgb", "2": "grayscale", "3": "binary"}
PAPER_KEYS = {
    "_token", "height", "width", "image_type", "color_model", "separate_file_format", "description",
}  # fmt: skip


class Fit(StrEnum):
    """How an image reaches the size that the rules ask for."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"
    TILE = "tile"
    KEEP = "keep"


class MaskKind(StrEnum):
    """What the values of a mask in the source mean."""

    LABEL = "label"
    BINARY = "binary"
    INVERTED = "inverted"
    COLORS = "colors"
    INSTANCES = "instances"
    INSTANCE_FILES = "instance_files"
    TEXT = "text"


class Document(BaseModel):
    """A small JSON that a person reads and edits: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SourceValue = int | tuple[int, int, int]


class ClassRule(Document):
    """One class of the formatted masks and the source values that become it."""

    id: int = Field(ge=0, le=254, description="class id in the label mask; 0 is background")
    name: str = Field(min_length=1, max_length=80)
    source_values: tuple[SourceValue, ...] = Field(
        default=(), description="grey values, palette indices or RGB triples in the source masks"
    )


class SplitRule(Document):
    """Shares of the splits, decided by a hash of each sample's group."""

    train: float = Field(default=0.7, ge=0, le=1)
    val: float = Field(default=0.15, ge=0, le=1)
    test: float = Field(default=0.15, ge=0, le=1)
    group: str | None = Field(
        default=None,
        description="name template whose {placeholder} parts make the group, e.g. '{patient}_*'; "
        "absent: every sample is its own group",
    )
    seed: int = Field(default=0, ge=0)
    groups: dict[Literal["train", "val", "test"], tuple[str, ...]] = Field(
        default_factory=dict, description="groups whose split is stated; the others go by hash"
    )

    @model_validator(mode="after")
    def _groups_are_in_one_split(self) -> Self:
        counts = Counter(group for groups in self.groups.values() for group in set(groups))
        doubles = sorted(group for group, count in counts.items() if count > 1)
        if doubles:
            raise ValueError(f"groups stand in more than one split: {', '.join(doubles)}")
        return self

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, found {total:g}")
        return self


class MaskTemplate(Document):
    """Where the masks of one class lie, when classes lie in files of their own."""

    template: str = Field(min_length=1)
    class_id: int = Field(ge=1, le=254, alias="class")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SourceRule(Document):
    """How images and masks are found in the source and what mask values mean there."""

    image: str | None = Field(default=None, description="path template, e.g. 'images/{name}.png'")
    mask: str | tuple[MaskTemplate, ...] | None = Field(default=None)
    mask_kind: MaskKind | None = Field(default=None)
    object_value: int | None = Field(
        default=None, ge=0, le=65_535, description="the value of the object in a two-valued mask"
    )
    exclude: tuple[str, ...] = Field(default=(), description="path patterns that are left out")


class Rules(Document):
    """Version 2 of the rules document.

    A field that is null is an open question: `unetops format` infers it where the files leave no
    doubt and otherwise asks for the line to write.
    """

    version: Literal[2] = 2
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    width: int | None = Field(default=None, ge=1, le=MAX_SIDE_PX, description="px; absent: keep")
    fit: Fit = Fit.KEEP
    image_format: Literal["png", "jpg", "bmp", "tiff"] = "png"
    color_model: Literal["rgb", "grayscale", "binary"] = "rgb"
    layout: Literal["separate", "together"] = "separate"
    mask_keyword: Annotated[str, Field(max_length=64, pattern=r"^[^/\\\x00-\x1f]*$")] = "_mask"
    classes: tuple[ClassRule, ...] | None = None
    split: SplitRule = SplitRule()
    source: SourceRule = SourceRule()
    ignore_values: tuple[SourceValue, ...] = Field(
        default=(), description="source values that become 255 (ignore)"
    )

    @model_validator(mode="after")
    def _combinations_make_sense(self) -> Self:
        has_size = self.height is not None and self.width is not None
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together: give both or neither")
        if self.fit is Fit.KEEP and has_size:
            raise ValueError("fit 'keep' takes no height and width: drop them or choose 'stretch'")
        if self.fit is not Fit.KEEP and not has_size:
            raise ValueError(f"fit '{self.fit}' needs height and width")
        if self.layout == "together" and not self.mask_keyword:
            raise ValueError("layout 'together' needs a mask_keyword to tell masks from images")
        if self.classes is not None:
            ids = [c.id for c in self.classes]
            if len(set(ids)) != len(ids):
                raise ValueError(f"class ids must differ, found {ids}")
            if ids != sorted(ids) or ids[:1] != [0]:
                raise ValueError("classes start with id 0 (background) and ascend")
        return self


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
    return rules_from_mapping(data, where=where)


def rules_from_mapping(data: Mapping[str, Any], *, where: str = "rules") -> Rules:
    """Rules from a parsed JSON object in either form."""
    if is_paper_form(data):
        return _from_paper(data, where=where)
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


def is_paper_form(data: Mapping[str, Any]) -> bool:
    """True for the flat form in which all values are strings."""
    return "version" not in data and bool({"image_type", "description"} & data.keys())


def to_paper(rules: Rules) -> dict[str, str]:
    """The paper's form of the rules.

    Raises:
        RulesError: for what that form cannot say (a fit other than stretch, TIFF).
    """
    types = {name: code for code, name in PAPER_IMAGE_TYPES.items()}
    models = {name: code for code, name in PAPER_COLOR_MODELS.items()}
    if rules.fit is not Fit.STRETCH or rules.image_format not in types:
        raise RulesError(
            "the paper's form cannot say this", expected="fit 'stretch' and jpg, png or bmp",
            found=f"fit '{rules.fit}' and {rules.image_format}",
            remedy="set height, width, fit and image_format, or keep version 2",
        )  # fmt: skip
    paper = {
        "height": str(rules.height),
        "width": str(rules.width),
        "image_type": types[rules.image_format],
        "color_model": models[rules.color_model],
    }
    if rules.layout == "separate":
        paper["separate_file_format"] = "on"
    return {**paper, "description": rules.mask_keyword}


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value that is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def rules_document(rules: Rules) -> dict[str, Any]:
    """The canonical document: every field, also those left at their default."""
    document: dict[str, Any] = rules.model_dump(mode="json", by_alias=True)
    return document


def rules_id(rules: Rules) -> str:
    """SHA-256 of the canonical document, hexadecimal."""
    return hashlib.sha256(canonical_json(rules_document(rules))).hexdigest()


def _from_paper(data: Mapping[str, Any], *, where: str) -> Rules:
    mistakes = [f"{key}: unknown key" for key in sorted(data.keys() - PAPER_KEYS)]
    sizes = {name: _paper_int(data, name, mistakes) for name in ("height", "width")}
    image_format = _paper_choice(data, "image_type", PAPER_IMAGE_TYPES, mistakes)
    color_model = _paper_choice(data, "color_model", PAPER_COLOR_MODELS, mistakes)
    separate = data.get("separate_file_format")
    if separate not in (None, "on"):
        mistakes.append(f"separate_file_format: expected 'on' or no such key, found {separate!r}")
    keyword = data.get("description")
    if not isinstance(keyword, str):
        mistakes.append(f"description: expected the mask keyword as text, found {keyword!r}")
    if mistakes:
        raise RulesError(
            "the rules (paper's form) are wrong in " + "; ".join(mistakes), where=where
        )
    return rules_from_mapping(
        {
            "version": 2, **sizes, "fit": "stretch", "image_format": image_format,
            "color_model": color_model, "layout": "separate" if separate else "together",
            "mask_keyword": keyword,
        },
        where=where,
    )  # fmt: skip


def _paper_int(data: Mapping[str, Any], key: str, mistakes: list[str]) -> int | None:
    value = data.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 6:
        return int(value)
    mistakes.append(f"{key}: expected digits in quotes, found {value!r}")
    return None


def _paper_choice(
    data: Mapping[str, Any], key: str, choices: Mapping[str, str], mistakes: list[str]
) -> str | None:
    value = data.get(key)
    if isinstance(value, str) and value in choices:
        return choices[value]
    known = ", ".join(f'"{code}" {name}' for code, name in choices.items())
    mistakes.append(f"{key}: expected {known}, found {value!r}")
    return None


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
