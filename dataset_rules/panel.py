"""One panel of a file that shows several of one size side by side."""

from dataset_rules.errors import RulesError
from dataset_rules.images import Pixels
from dataset_rules.parts import Panel


def panel_of(pixels: Pixels, panel: Panel, index: int) -> Pixels:
    """One panel of a composite; what does not fill a whole panel at the end is left out.

    Raises:
        RulesError: if the file is smaller than one pixel a panel.
    """
    height, width = pixels.shape[0] // panel.rows, pixels.shape[1] // panel.columns
    if not height or not width:
        raise RulesError(
            "the image is too small for its panels", expected=f"{panel.columns} x {panel.rows}",
            found=f"{pixels.shape[1]} x {pixels.shape[0]} px", remedy="correct source.panel",
        )  # fmt: skip
    row, column = divmod(index, panel.columns)
    area = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
    return pixels[area]
