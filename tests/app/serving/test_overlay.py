import cv2
import numpy as np

from app.serving.overlay import COLOURS, MAX_SIDE_PX, displayable, overlay_png


def decoded(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), 4)


def test_touching_objects_are_separated_by_an_outline():
    image = np.full((8, 8), 100, np.uint8)
    instances = np.zeros((8, 8), np.uint16)
    instances[1:7, 1:4], instances[1:7, 4:7] = 1, 2
    picture = decoded(overlay_png(image, (instances > 0).astype(np.uint8), instances))
    assert (picture[3, 3] == COLOURS[0]).all()
    assert (picture[3, 4] == COLOURS[0]).all()
    assert (picture[0, 0] == 100).all()
    assert (picture[3, 2] != COLOURS[0]).any()


def test_16_bit_images_are_stretched_to_8_bits():
    deep = np.linspace(1000, 3000, 64).reshape(8, 8).astype(np.uint16)
    picture = displayable(deep)
    assert picture.dtype == np.uint8
    assert picture.shape == (8, 8, 3)
    assert picture.max() == 255


def test_large_images_are_downscaled():
    assert displayable(np.zeros((10, 3 * MAX_SIDE_PX), np.uint8)).shape[1] == MAX_SIDE_PX
