import numpy as np
import pytest

from dataset_rules.checks.swapped_masks import swapped_by_content, swapped_by_size
from dataset_rules.checks.thumbnails import image_thumbnail, mask_thumbnail
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import Header
from tests.messy import tissue


def pairs_of(count):
    return [Pair(f"i/{n}.png", (f"m/{n}.png",), (None,)) for n in range(count)]


def thumbnails_of(pairs, mask_of):
    images = {pair.image: image_thumbnail(tissue(n, size=96)[0]) for n, pair in enumerate(pairs)}
    masks = {
        pair.image: mask_thumbnail((tissue(mask_of(n), size=96)[1] > 0).astype(np.uint8))
        for n, pair in enumerate(pairs)
    }
    return images, masks


def test_swapped_masks_of_two_pairs_are_found():
    pairs = pairs_of(30)
    images, masks = thumbnails_of(pairs, lambda n: {4: 9, 9: 4}.get(n, n))
    (swap,) = swapped_by_content(pairs, images, masks)
    assert swap.paths == ("i/4.png", "m/4.png", "i/9.png", "m/9.png")


@pytest.mark.parametrize("count", [3, 30])
def test_correct_masks_are_not_a_swap(count):
    pairs = pairs_of(count)
    assert swapped_by_content(pairs, *thumbnails_of(pairs, lambda n: n)) == []


def test_masks_that_match_no_image_give_no_finding():
    pairs = pairs_of(30)
    assert swapped_by_content(pairs, *thumbnails_of(pairs, lambda n: n + 1000)) == []


def header(*size_px):
    return Header("PNG", "L", *size_px, bits=8, pages=1, pixel_size_um=None)


def test_two_pairs_that_match_crosswise_by_size_are_a_swap():
    pairs = pairs_of(3)
    sizes = {"i/0.png": (5, 6), "m/0.png": (7, 8), "i/1.png": (7, 8), "m/1.png": (5, 6),
             "i/2.png": (5, 6), "m/2.png": (5, 6)}  # fmt: skip
    (swap,) = swapped_by_size(pairs, {path: header(*size) for path, size in sizes.items()})
    assert swap.paths == ("i/0.png", "m/0.png", "i/1.png", "m/1.png")


def test_single_wrong_size_is_not_a_swap():
    headers = {"i/0.png": header(5, 6), "m/0.png": header(7, 8), "i/1.png": header(5, 6),
               "m/1.png": header(5, 6)}  # fmt: skip
    assert swapped_by_size(pairs_of(2), headers) == []
