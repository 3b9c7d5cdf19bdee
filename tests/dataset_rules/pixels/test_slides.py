import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels import slides
from dataset_rules.pixels.images import read_header, read_image
from dataset_rules.rules.rules import Rules
from tests.drawn import draw_discs
from tests.messy import put, tree_of, two_folders

SCANNER = (
    "Aperio Image Library v11.2.1 \n512x512 |AppMag = 20|MPP = 0.4990|User = Doe|ScanScope ID = X7"
)


def slide(path, seed=1):
    """Write a slide with a lower-resolution level; return its pixels and mask."""
    pixels, instances = draw_discs(np.random.default_rng(seed), size=512, count=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (256, 256), "photometric": "rgb", "metadata": None, "software": False}
        file.write(pixels, description=SCANNER, **options)
        file.write(pixels[::4, ::4], description=SCANNER, subfiletype=1, **options)
    return pixels, np.where(instances > 0, 255, 0).astype(np.uint8)


def slides_and_masks(folder):
    for number in range(3):
        put(folder, f"masks/s{number}.png", slide(folder / f"images/s{number}.svs", number)[1])
    return folder


@pytest.fixture
def without_openslide(monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)


def test_full_resolution_level_and_pixel_size_are_read(tmp_path):
    pixels, _ = slide(tmp_path / "a.svs")
    assert np.array_equal(read_image(tmp_path / "a.svs"), pixels)
    header = read_header(tmp_path / "a.svs")
    assert (header.size_px, header.pixel_size_um) == ((512, 512), 0.499)


def assert_noted(source, *words):
    """The source holds in clear what the dataset must not hold."""
    noted = b"".join(tree_of(source).values())
    assert [word for word in words if word not in noted] == []


def test_slides_are_paired_and_formatted_without_what_the_scanner_notes(tmp_path):
    source = slides_and_masks(tmp_path / "source")
    assert_noted(source, b"Doe", b"ScanScope")
    out = format_dataset(source, tmp_path / "out", Rules(), jobs=1)
    assert [sample.pixel_size_um for sample in read_dataset(out).samples] == [0.499] * 3
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"Doe" not in written
    assert b"ScanScope" not in written


def test_metadata_of_a_photograph_is_not_copied(tmp_path):
    source = two_folders(tmp_path / "source")
    for path in (source / "images").iterdir():
        exif = Image.Exif()
        exif[0x013B], exif[0x0132] = "Doe", "2009:12:29 09:00:00"
        with Image.open(path) as opened:
            opened.load()
            opened.save(path, exif=exif)
    assert_noted(source, b"Doe", b"2009:12:29")
    out = format_dataset(source, tmp_path / "out", Rules(), jobs=1)
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"Doe" not in written
    assert b"2009:12:29" not in written


def test_without_openslide_slides_are_reported_and_the_rest_is_read(tmp_path, without_openslide):
    source = two_folders(tmp_path / "source")
    slide(source / "images/s.svs")
    report = examine(source)
    assert len(report.pairing.pairs) == 4
    (finding,) = [f for f in report.findings if f.code == "whole_slides"]
    assert finding.paths == ("images/s.svs",)
    assert "openslide, which is not installed" in finding.message
    assert "pip install" in (finding.remedy or "")
    with pytest.raises(RulesError, match="openslide, which is not installed"):
        slides.read_slide(source / "images/s.svs")


def test_damaged_slide_is_refused(tmp_path):
    (tmp_path / "a.ndpi").write_bytes(bytes(1000))
    with pytest.raises(RulesError, match="damaged or not supported by openslide"):
        read_image(tmp_path / "a.ndpi")
