import re
from html.parser import HTMLParser

import numpy as np
import pytest

from unet.measurement.ihc import Comparison, Measurements, measure
from unet.measurement.overlays import NEGATIVE_RGB, POSITIVE_RGB, draw_overlay
from unet.measurement.report import Entry, percent, report_page, signed
from unet.measurement.stains import mix_stains


class Balanced(HTMLParser):
    """Fails on an end tag that closes another element."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def scene():
    dab = np.zeros((50, 100))
    instances = np.zeros((50, 100), np.uint16)
    dab[10:30, 10:30], instances[10:30, 10:30] = 0.5, 300
    instances[10:30, 30:50] = 7
    image = np.round(250 * mix_stains(0.4 * (instances > 0), dab)).astype(np.uint8)
    return image, instances


def page_of(scene, name="a", comparison=None):
    image, instances = scene
    found = measure(image, instances)
    entries = [Entry(name, image, image, found, comparison)]
    return report_page(entries, title="Nuclei", facts={"Stains": "a < b"}, record="f" * 64)


def test_outlines_have_the_colour_of_their_nucleus_and_stay_inside(scene):
    image, instances = scene
    drawn = draw_overlay(image, instances, {300: True, 7: False})
    scale = drawn.shape[0] // 50
    red, blue = ((drawn == colour).all(axis=2) for colour in (POSITIVE_RGB, NEGATIVE_RGB))
    large = np.kron(instances, np.ones((scale, scale), int))
    assert set(np.unique(large[red])) == {300}
    assert set(np.unique(large[blue])) == {7}
    assert not red[20 * scale, 20 * scale]


def test_large_fields_are_shrunk_and_small_ones_enlarged():
    for height_px, width_px, expected in ((64, 32, (256, 128)), (3_000, 1_500, (768, 384))):
        image = np.full((height_px, width_px, 3), 200, np.uint8)
        assert draw_overlay(image, np.zeros(image.shape[:2], np.uint16), {}).shape[:2] == expected


def test_page_is_well_formed_and_self_contained(scene):
    page = page_of(scene, comparison=Comparison(2, 1, 2, 1))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    links = [a[k] for _, a in parser.attributes for k in ("src", "href") if k in a]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert all(a.get("alt") for tag, a in parser.attributes if tag == "img")


def test_page_shows_scores_record_and_verdict(scene):
    page = page_of(scene, comparison=Comparison(2, 1, 3, 1))
    for text in ("50.0 %", "f" * 64, "✗ outside", "33.3 %", "+16.7 points"):
        assert text in page
    assert "✓ within" not in page
    assert "✓ within" in page_of(scene, comparison=Comparison(2, 1, 2, 1))
    assert "Comparison with known counts" not in page_of(scene)


def test_names_are_escaped(scene):
    page = page_of(scene, name="<script>alert(1)</script>$record")
    assert "<script" not in page
    assert "$record" in page


def test_page_of_an_empty_field_shows_dashes(scene):
    image, _ = scene
    page = report_page(
        [Entry("a", image, image, Measurements(()))], title="T", facts={}, record="r"
    )
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)
    for name in ("Positive share", "H-score"):
        assert f"<dt>{name}</dt><dd>\N{EN DASH}</dd>" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.031, "+3.1 %"), (-0.031, "\N{MINUS SIGN}3.1 %"), (-1e-9, "0.0 %"), (None, "\N{EN DASH}")],
)
def test_errors_are_printed_with_their_sign(value, text):
    assert signed(value, "%") == text


def test_undefined_share_is_a_dash():
    assert percent(None) == "\N{EN DASH}"
    assert percent(0.256) == "25.6 %"
