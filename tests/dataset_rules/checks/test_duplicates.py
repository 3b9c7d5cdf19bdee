import io

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_rules.checks.duplicates import equal_files, equal_pixels, near_duplicates
from dataset_rules.checks.thumbnails import image_thumbnail
from tests.messy import tissue


def as_jpeg(image):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=60)
    return np.asarray(Image.open(data))


ALTERED = {
    "stored as JPEG": as_jpeg,
    "half as large": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=3),
    "brighter": lambda image: np.clip(image.astype(float) * 1.08 + 6, 0, 255).astype(np.uint8),
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    "rotated": lambda image: np.rot90(image),
    "flipped": lambda image: image[:, ::-1],
    "rotated and flipped": lambda image: np.rot90(image, 3)[::-1],
}


def scenes(count):
    return {f"{n:03d}.png": tissue(n, size=96)[0] for n in range(count)}


def thumbnails_of(images):
    return {path: image_thumbnail(image) for path, image in images.items()}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_altered_copy_is_found_among_other_scenes(alter):
    images = scenes(20)
    images["copy.png"] = alter(images["007.png"])
    assert near_duplicates(thumbnails_of(images)) == [("007.png", "copy.png")]


def test_different_scenes_are_not_copies():
    assert near_duplicates(thumbnails_of(scenes(60))) == []


def test_three_copies_are_one_group():
    images = scenes(5)
    images["a.png"] = as_jpeg(images["002.png"])
    images["b.png"] = images["002.png"][::-1]
    assert near_duplicates(thumbnails_of(images)) == [("002.png", "a.png", "b.png")]


def test_images_without_content_are_not_compared():
    images = {f"{n}.png": np.full((64, 64), 40 + n, np.uint8) for n in range(5)}
    assert near_duplicates(thumbnails_of(images)) == []


def test_equal_pixels_are_not_near_duplicates():
    images = scenes(4)
    images["copy.png"] = images["003.png"]
    assert equal_pixels(thumbnails_of(images)) == [("003.png", "copy.png")]
    assert near_duplicates(thumbnails_of(images)) == []


def test_order_of_the_files_does_not_matter():
    images = scenes(12)
    images["x.png"] = as_jpeg(images["004.png"])
    thumbnails = thumbnails_of(images)
    backwards = dict(reversed(thumbnails.items()))
    assert near_duplicates(thumbnails) == near_duplicates(backwards)


@pytest.mark.parametrize("size", [10, 20_000, 100_000])
def test_files_are_equal_only_if_every_byte_is(tmp_path, size):
    data = np.random.default_rng(1).bytes(size)
    middle = bytearray(data)
    middle[size // 2] ^= 1
    for name, content in {"a": data, "b": data, "c": bytes(middle), "d": data + b"x"}.items():
        (tmp_path / name).write_bytes(content)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert equal_files(tmp_path, sizes) == [("a", "b")]


def test_middle_of_huge_files_is_not_read_if_their_ends_differ(tmp_path):
    for name in "ab":
        with (tmp_path / name).open("wb") as file:
            file.write(name.encode())
            file.truncate(1 << 36)  # sparse: reading it all would take minutes
    assert equal_files(tmp_path, dict.fromkeys("ab", 1 << 36)) == []
