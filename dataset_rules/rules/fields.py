"""Sections of the rules document: classes, splits, and how to read the source."""

from collections import Counter
from enum import StrEnum
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dataset_rules.ground.documents import Document


class Fit(StrEnum):
    """How to bring an image to the size given in the rules."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"
    TILE = "tile"
    KEEP = "keep"


class MaskKind(StrEnum):
    """Meaning of the mask values in the source."""

    LABEL = "label"
    BINARY = "binary"
    INVERTED = "inverted"
    COLORS = "colors"
    INSTANCES = "instances"
    INSTANCE_FILES = "instance_files"
    TEXT = "text"


SourceValue = int | tuple[int, int, int]


class ClassRule(Document):
    """A class of the formatted masks and the source values mapped to it."""

    id: int = Field(ge=0, le=254, description="class id in the label mask; 0 is background")
    name: str = Field(min_length=1, max_length=80)
    source_values: tuple[SourceValue, ...] = Field(
        default=(), description="grey values, palette indices or RGB triples in the source masks"
    )


class SplitRule(Document):
    """Fractions of the splits; each sample is assigned by a hash of its group."""

    train: float = Field(default=0.7, ge=0, le=1)
    val: float = Field(default=0.15, ge=0, le=1)
    test: float = Field(default=0.15, ge=0, le=1)
    group: str | None = Field(
        default=None,
        description="name template whose {placeholder} parts form the group, e.g. '{patient}_*'; "
        "absent: each sample is a separate group",
    )
    seed: int = Field(default=0, ge=0)
    groups: dict[Literal["train", "val", "test"], tuple[str, ...]] = Field(
        default_factory=dict, description="groups with a fixed split; all others are split by hash"
    )

    @model_validator(mode="after")
    def _check_groups_in_one_split(self) -> Self:
        counts = Counter(group for groups in self.groups.values() for group in set(groups))
        duplicates = sorted(group for group, count in counts.items() if count > 1)
        if duplicates:
            raise ValueError(f"groups in more than one split: {', '.join(duplicates)}")
        return self

    @model_validator(mode="after")
    def _check_fractions_sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, found {total:g}")
        return self


class MaskTemplate(Document):
    """Location of the masks of one class, for sources with one file per class."""

    template: str = Field(min_length=1)
    class_id: int = Field(ge=1, le=254, alias="class")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Panel(Document):
    """A file with image and mask side by side, as panels of equal size.

    Panels are numbered from 0, left to right, then top to bottom.
    """

    columns: int = Field(ge=1, le=16)
    rows: int = Field(default=1, ge=1, le=16)
    image: int = Field(ge=0, description="index of the image panel")
    mask: int = Field(ge=0, description="index of the mask panel")

    @model_validator(mode="after")
    def _check_panels(self) -> Self:
        last = self.columns * self.rows - 1
        if max(self.image, self.mask) > last:
            raise ValueError(
                f"{self.columns} columns and {self.rows} rows give panels 0 to {last}, "
                f"found image {self.image} and mask {self.mask}"
            )
        if self.image == self.mask:
            raise ValueError(f"image and mask are both panel {self.image}: they must differ")
        return self


class SourceRule(Document):
    """How to find images and masks in the source, and what the mask values mean."""

    image: str | None = Field(default=None, description="path template, e.g. 'images/{name}.png'")
    mask: str | tuple[MaskTemplate, ...] | None = Field(default=None)
    mask_kind: MaskKind | None = Field(default=None)
    object_value: int | None = Field(
        default=None, ge=0, le=65_535, description="foreground value of a two-valued mask"
    )
    exclude: tuple[str, ...] = Field(default=(), description="path patterns to exclude")
    panel: Panel | None = Field(
        default=None, description="for files that contain both the image and its mask"
    )
    list: tuple[str, ...] = Field(
        default=(), description="text files in the source; only images listed in them are used"
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        kind = self.mask_kind
        if self.object_value is not None and kind not in {None, *TWO_VALUED}:
            raise ValueError(
                f"object_value applies to two-valued masks, but mask_kind is '{kind}': list the "
                "values of each class in classes"
            )
        if isinstance(self.mask, tuple) and not self.mask:
            raise ValueError("mask is an empty list: add a template and a class, or leave it null")
        if isinstance(self.mask, tuple) and self.image is None:
            raise ValueError("mask has a template for each class, but image is null: give both")
        if self.panel is not None:
            _check_panel_combinations(self)
        return self


TWO_VALUED = frozenset({MaskKind.BINARY, MaskKind.INVERTED, MaskKind.INSTANCE_FILES})


def _check_panel_combinations(source: SourceRule) -> None:
    if source.image is None:
        raise ValueError("panel needs image: the template of the files that contain the panels")
    if source.mask is not None:
        raise ValueError("with panel the mask is in the image file: leave mask null")
    if source.mask_kind in {MaskKind.TEXT, MaskKind.INSTANCE_FILES}:
        raise ValueError(f"a panel is an image: it cannot have mask_kind '{source.mask_kind}'")
