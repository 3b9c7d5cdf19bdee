"""The form of the rules published in the reference paper: flat, with all values as strings."""

from collections.abc import Mapping
from typing import Any

from dataset_rules.ground.errors import RulesError

PAPER_IMAGE_TYPES = {"1": "jpg", "2": "png", "3": "bmp"}
PAPER_COLOR_MODELS = {"1": "rgb", "2": "grayscale", "3": "binary"}
PAPER_KEYS = {
    "_token", "height", "width", "image_type", "color_model", "separate_file_format", "description",
}  # fmt: skip


def is_paper_form(data: Mapping[str, Any]) -> bool:
    """True for the flat form with string values."""
    return "version" not in data and bool({"image_type", "description"} & data.keys())


def paper_to_version_2(data: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Convert the paper's form to version 2; raises `RulesError` that lists every mistake."""
    mistakes = [f"{key}: unknown key" for key in sorted(data.keys() - PAPER_KEYS)]
    sizes = {name: _int(data, name, mistakes) for name in ("height", "width")}
    image_format = _choice(data, "image_type", PAPER_IMAGE_TYPES, mistakes)
    color_model = _choice(data, "color_model", PAPER_COLOR_MODELS, mistakes)
    separate = data.get("separate_file_format")
    if separate not in (None, "on"):
        mistakes.append(f"separate_file_format: expected 'on' or no such key, found {separate!r}")
    keyword = data.get("description")
    if not isinstance(keyword, str):
        mistakes.append(f"description: expected the mask keyword as text, found {keyword!r}")
    if mistakes:
        raise RulesError(
            "the rules (paper's form) are invalid: " + "; ".join(mistakes), where=where
        )
    return {
        "version": 2, **sizes, "fit": "stretch", "image_format": image_format,
        "color_model": color_model, "layout": "separate" if separate else "together",
        "mask_keyword": keyword,
    }  # fmt: skip


def version_2_to_paper(document: Mapping[str, Any]) -> dict[str, str]:
    """Convert a canonical version 2 document to the paper's form.

    Raises:
        RulesError: for settings that form cannot express (a fit other than stretch, TIFF).
    """
    types = {name: code for code, name in PAPER_IMAGE_TYPES.items()}
    models = {name: code for code, name in PAPER_COLOR_MODELS.items()}
    if document["fit"] != "stretch" or document["image_format"] not in types:
        raise RulesError(
            "the paper's form cannot express this", expected="fit 'stretch' and jpg, png or bmp",
            found=f"fit '{document['fit']}' and {document['image_format']}",
            remedy="set height, width, fit and image_format, or keep version 2",
        )  # fmt: skip
    paper = {
        "height": str(document["height"]),
        "width": str(document["width"]),
        "image_type": types[document["image_format"]],
        "color_model": models[document["color_model"]],
    }
    if document["layout"] == "separate":
        paper["separate_file_format"] = "on"
    return {**paper, "description": document["mask_keyword"]}


def _int(data: Mapping[str, Any], key: str, mistakes: list[str]) -> int | None:
    value = data.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 6:
        return int(value)
    mistakes.append(f"{key}: expected digits in quotes, found {value!r}")
    return None


def _choice(
    data: Mapping[str, Any], key: str, choices: Mapping[str, str], mistakes: list[str]
) -> str | None:
    value = data.get(key)
    if isinstance(value, str) and value in choices:
        return choices[value]
    known = ", ".join(f'"{code}" {name}' for code, name in choices.items())
    mistakes.append(f"{key}: expected {known}, found {value!r}")
    return None
