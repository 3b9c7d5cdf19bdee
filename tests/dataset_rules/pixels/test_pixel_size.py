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
        ("", {"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ("", {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER"}, None),
        ("", {"resolution": (50_800, 25_400), "resolutionunit": "INCH"}, None),
        ("", {"resolution": (20_000, 20_010), "resolutionunit": "CENTIMETER"}, 0.5),
        ("", {"resolution": (0, 0), "resolutionunit": "CENTIMETER"}, None),
        ("", {"resolution": (20_000, 0), "resolutionunit": "CENTIMETER"}, None),
        ("", {"resolution": (20_000, 20_000), "resolutionunit": "NONE"}, None),
        ("ImageJ=1.53\nunit=micron\n", {"resolution": (4, 2), "resolutionunit": "NONE"}, None),
        ('<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>', {}, 0.5),
        ('<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="1.0"/></OME>', {}, None),
        (
            '<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="500" PhysicalSizeYUnit="nm"/></OME>',
            {},
            0.5,
        ),
        ('<OME><Pixels PhysicalSizeX="0" PhysicalSizeY="0"/></OME>', {}, None),
        ('<OME><Pixels PhysicalSizeX="5" PhysicalSizeXUnit="furlong"/></OME>', {}, None),
        ("Aperio Image Library|AppMag = 40|MPP = 0", {}, None),
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


@pytest.mark.parametrize("dpi", [(50_800, 25_400), (25_400, 50_800), (0, 0), (50_800, 0)])
def test_a_png_whose_pixels_are_not_square_has_no_one_size(tmp_path, dpi):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", dpi=dpi)
    assert read_header(tmp_path / "a.png").pixel_size_um is None


def test_pixel_size_of_the_source_is_in_the_dataset(tmp_path):
    source = two_folders(tmp_path / "source", 2)
    for path in (source / "images").iterdir():
        Image.open(path).save(path, dpi=(101_600, 101_600))
    samples = read_dataset(format_dataset(source, tmp_path / "out", Rules())).samples
    assert [sample.pixel_size_um for sample in samples] == pytest.approx([0.25, 0.25], rel=1e-3)
