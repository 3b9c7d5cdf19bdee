from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_rules.formatting.image_form import convert_image, convert_rows
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels import rows as rows_module
from dataset_rules.pixels.images import encode, read_image
from dataset_rules.pixels.row_scaling import downscale_rows
from dataset_rules.pixels.rows import Rows, open_rows, rows_of
from dataset_rules.rules.rules import Rules

LAYOUTS: list[dict] = [
    {},
    {"byteorder": ">"},
    {"compression": "zlib", "rowsperstrip": 20},
    {"compression": "lzw", "predictor": True, "rowsperstrip": 7},
    {"tile": (64, 48), "compression": "zstd"},
    {"bigtiff": True, "tile": (32, 32)},
    {"planarconfig": "separate"},
    {"planarconfig": "separate", "tile": (64, 48), "compression": "zlib"},
]


def in_blocks(pixels: np.ndarray, height: int) -> Rows:
    tops = range(0, len(pixels), height)
    return Rows(*pixels.shape[:2], lambda: (pixels[top : top + height] for top in tops))


def noise(shape: tuple[int, ...], kind: str, seed: int = 0) -> np.ndarray:
    top = np.iinfo(kind).max + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(kind)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read small files like large ones."""
    monkeypatch.setattr(rows_module, "WHOLE_PIXELS", 0)
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 7_000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_rows_of_a_tiff_equal_the_whole_image(
    layout: dict, kind: str, channels: tuple[int, ...], tmp_path: Path
) -> None:
    pixels = noise((151, 107, *channels), kind)
    if "planarconfig" in layout:
        if not channels:
            pytest.skip("one channel has one plane")
        pixels = np.moveaxis(pixels, 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb" if channels else "minisblack", **layout)
    rows = open_rows(path)
    assert rows.size_px == (151, 107)
    assert len(list(rows.blocks())) > 1
    assert (rows.to_array() == read_image(path)).all()


@pytest.mark.usefixtures("small_blocks")
def test_first_level_of_a_pyramid_is_the_image(tmp_path: Path) -> None:
    pixels = noise((128, 160, 3), "uint8")
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        options = {"tile": (32, 32), "photometric": "rgb"}
        file.write(pixels, subifds=1, **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    assert (open_rows(tmp_path / "p.tif").to_array() == pixels).all()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}, {"compression": "zlib"}], ids=str)
def test_truncated_tiff_is_reported(layout: dict, tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, noise((150, 100, 3), "uint8"), photometric="rgb", **layout)
    with tifffile.TiffFile(whole) as file:
        page = file.pages.first
        end = page.dataoffsets[-1] + page.databytecounts[-1] // 2
    cut.write_bytes(whole.read_bytes()[:end])
    with pytest.raises(RulesError, match=r"cut\.tif"):
        open_rows(cut).to_array()


def test_stack_and_non_image_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", noise((5, 40, 40), "uint8"), photometric="minisblack")
    with pytest.raises(RulesError, match="stack of pages"):
        open_rows(tmp_path / "stack.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0 and no more")
    with pytest.raises(RulesError, match=r"a\.tif"):
        open_rows(tmp_path / "a.tif")


def test_rows_of_a_png_equal_the_whole_image(tmp_path: Path) -> None:
    pixels = noise((20, 30, 3), "uint8")
    (tmp_path / "a.png").write_bytes(encode(pixels, ".png"))
    assert (open_rows(tmp_path / "a.png").to_array() == pixels).all()


@settings(deadline=None)
@given(st.data())
def test_downscaled_rows_equal_area_interpolation_of_the_whole_image(data: st.DataObject) -> None:
    size = [data.draw(st.integers(1, 60)) for _ in "hw"]
    small = [data.draw(st.integers(1, side)) for side in size]
    pixels = noise((*size, 3), data.draw(st.sampled_from(["uint8", "uint16"])), sum(size))
    found = downscale_rows(
        in_blocks(pixels, data.draw(st.integers(1, 20))), tuple(small)
    ).to_array()
    whole = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
    assert found.dtype == pixels.dtype
    assert np.abs(found.astype(int) - whole.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("model", ["rgb", "grayscale", "binary"])
@pytest.mark.parametrize("fit", ["keep", "pad", "stretch"])
@pytest.mark.parametrize("depth", [None, "range"])
def test_converted_rows_equal_the_converted_whole_image(
    kind: str, model: str, fit: str, depth: str | None
) -> None:
    size = {} if fit == "keep" else {"height": 50, "width": 40}
    rules = Rules(color_model=model, fit=fit, depth=depth, **size)
    pixels = noise((101, 83, 3), kind) // 2
    pixels[20:60, 30:70] //= 3
    whole = convert_image(pixels, rules)
    found = convert_rows(in_blocks(pixels, 17), rules).to_array()
    assert found.shape == whole.shape
    assert found.dtype == whole.dtype
    differs = np.abs(found.astype(int) - whole.astype(int))
    assert (differs > 1).mean() < (0.01 if model == "binary" else 1e-9)  # values near the threshold
    assert fit != "keep" or not differs.any()


def test_small_image_is_upscaled_like_the_whole_image() -> None:
    pixels, rules = noise((20, 30, 3), "uint8"), Rules(fit="stretch", height=64, width=48)
    found = convert_rows(rows_of(pixels), rules).to_array()
    assert (found == convert_image(pixels, rules)).all()
