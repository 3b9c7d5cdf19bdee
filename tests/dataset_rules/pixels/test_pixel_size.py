import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.formatting.format import format_dataset
from dataset_rules.pixels.images import read_header
from dataset_rules.rules.rules import Rules
from tests.messy import two_folders

PIXELS = np.zeros((8, 8), np.uint8)


def tiff(path, description="", **tags):
    tifffile.imwrite(path, PIXELS, description=description, metadata=None, **tags)
    return path


@pytest.mark.parametrize(
    ("description", "tags", "size_um"),
    [
        ("", {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ("", {"resolution": (72, 72), "resolutionunit": "INCH"}, None),  # print resolution
        ("ImageJ=1.53\nunit=micron\n", {"resolution": (4, 4), "resolutionunit": "NONE"}, 0.25),
        ("ImageJ=1.53\nunit=pixel\n", {"resolution": (4, 4), "resolutionunit": "NONE"}, None),
        ('<OME><Image><Pixels PhysicalSizeX="0.325"/></Image></OME>', {}, 0.325),
        ('<OME><Pixels PhysicalSizeX="325" PhysicalSizeXUnit="nm"/></OME>', {}, 0.325),
        ("Aperio Image Library|AppMag = 40|MPP = 0.2527", {}, 0.2527),
        ("", {}, None),
    ],
)
def test_pixel_size_is_read_from_tiff_metadata(tmp_path, description, tags, size_um):
    found = read_header(tiff(tmp_path / "a.tif", description, **tags)).pixel_size_um
    assert found == (None if size_um is None else pytest.approx(size_um))


@pytest.mark.parametrize(("dpi", "size_um"), [(50_800, 0.5), (300, None)])
def test_pixel_size_is_read_from_png_unless_it_is_a_print_resolution(tmp_path, dpi, size_um):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", dpi=(dpi, dpi))
    found = read_header(tmp_path / "a.png").pixel_size_um
    assert found == (None if size_um is None else pytest.approx(size_um, rel=1e-3))


def test_dataset_contains_the_pixel_size_of_the_source(tmp_path):
    source = two_folders(tmp_path / "source", 2)
    for path in (source / "images").iterdir():
        Image.open(path).save(path, dpi=(101_600, 101_600))
    samples = read_dataset(format_dataset(source, tmp_path / "out", Rules())).samples
    assert [sample.pixel_size_um for sample in samples] == pytest.approx([0.25, 0.25], rel=1e-3)
