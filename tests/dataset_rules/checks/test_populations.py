import numpy as np

from dataset_rules.checks.populations import check_populations
from dataset_rules.checks.thumbnails import image_thumbnail
from dataset_rules.pixels.images import Header


def plain(*colour, noise):
    rng = np.random.default_rng(noise)
    image = np.array(colour) + rng.integers(-8, 8, (40, 40, 1)) + noise % 7
    return image_thumbnail(image.clip(0, 255).astype(np.uint8))


def header(size=40, mode="RGB"):
    return Header("PNG", mode, size, size, bits=8, pages=1, pixel_size_um=None)


def found(images, headers=None):
    return check_populations(images, headers or dict.fromkeys(images, header()))


def test_coloured_and_grey_images_are_two_kinds():
    images = {f"he{n}": plain(200, 120, 190, noise=n) for n in range(9)}
    images |= {f"em{n}": plain(130, 130, 130, noise=n) for n in range(4)}
    (finding,) = found(images)
    assert finding.paths == ("em0", "em1", "em2", "em3")
    assert "4 are grey or nearly, 9 coloured" in finding.message
    assert finding.looked_at == 13


def test_dark_and_bright_images_are_two_kinds():
    images = {f"dark{n}": plain(20, 20, 20, noise=n) for n in range(5)}
    images |= {f"bright{n}": plain(220, 220, 220, noise=n) for n in range(5)}
    assert len(found(images)) == 1


def test_smaller_difference_suffices_if_the_files_differ_too():
    images = {f"a{n}": plain(130, 130, 130, noise=n) for n in range(5)}
    images |= {f"b{n}": plain(185, 185, 185, noise=n) for n in range(5)}
    headers = {path: header(40 if path < "b" else 50) for path in images}
    assert found(images) == []
    assert len(found(images, headers)) == 1


def test_images_with_continuous_brightness_are_one_kind():
    assert found({f"{n}": plain(*[20 + 10 * n] * 3, noise=n) for n in range(20)}) == []


def test_few_images_give_no_finding():
    assert found({f"{n}": plain(*[200 * (n % 2)] * 3, noise=n) for n in range(6)}) == []
