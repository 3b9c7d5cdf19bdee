"""The parts of the rules document: classes, splits, and how the source is to be read."""

from collections import Counter
from enum import StrEnum
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dataset_rules.ground.documents import Document


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


class Panel(Document):
    """A file that holds image and mask side by side, as panels of one size.

    Panels are counted from 0, from left to right and from top to bottom.
    """

    columns: int = Field(ge=1, le=16)
    rows: int = Field(default=1, ge=1, le=16)
    image: int = Field(ge=0, description="the panel that is the image")
    mask: int = Field(ge=0, description="the panel that is the mask")

    @model_validator(mode="after")
    def _panels_exist_and_differ(self) -> Self:
        last = self.columns * self.rows - 1
        if max(self.image, self.mask) > last:
            raise ValueError(
                f"{self.columns} columns and {self.rows} rows make the panels 0 to {last}, "
                f"found image {self.image} and mask {self.mask}"
            )
        if self.image == self.mask:
            raise ValueError(f"image and mask are both panel {self.image}: they must differ")
        return self


class SourceRule(Document):
    """How images and masks are found in the source and what mask values mean there."""

    image: str | None = Field(default=None, description="path template, e.g. 'images/{name}.png'")
    mask: str | tuple[MaskTemplate, ...] | None = Field(default=None)
    mask_kind: MaskKind | None = Field(default=None)
    object_value: int | None = Field(
        default=None, ge=0, le=65_535, description="the value of the object in a two-valued mask"
    )
    exclude: tuple[str, ...] = Field(default=(), description="path patterns that are left out")
    panel: Panel | None = Field(
        default=None, description="where every file of source.image holds its mask, too"
    )
    list: tuple[str, ...] = Field(
        default=(), description="text files of the source; only images that they name are taken"
    )

    @model_validator(mode="after")
    def _combinations_make_sense(self) -> Self:
        kind = self.mask_kind
        if self.object_value is not None and kind not in {None, *TWO_VALUED}:
            raise ValueError(
                f"object_value is of two-valued masks, and mask_kind is '{kind}': write the values "
                "of each class into classes"
            )
        if isinstance(self.mask, tuple) and not self.mask:
            raise ValueError("mask is an empty list: name a template and a class, or leave it null")
        if isinstance(self.mask, tuple) and self.image is None:
            raise ValueError("mask names a template for each class, and image is null: give both")
        if self.panel is not None:
            _refuse_beside_panel(self)
        return self


TWO_VALUED = frozenset({MaskKind.BINARY, MaskKind.INVERTED, MaskKind.INSTANCE_FILES})


def _refuse_beside_panel(source: SourceRule) -> None:
    if source.image is None:
        raise ValueError("panel needs image: the template of the files that hold the panels")
    if source.mask is not None:
        raise ValueError("with panel the mask lies in the file of the image: leave mask null")
    if source.mask_kind in {MaskKind.TEXT, MaskKind.INSTANCE_FILES}:
        raise ValueError(f"a panel is one image: mask_kind '{source.mask_kind}' is of other files")
