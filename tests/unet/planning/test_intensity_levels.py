import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unet.network.preprocessing import normalized
from unet.planning.intensity_levels import PERCENTILES, levels_of


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["u1", "u2"]))
def test_levels_of_blocks_are_the_percentiles_of_the_whole_image(
    height: int, width: int, step: int, kind: str
) -> None:
    rng = np.random.default_rng(height * 41 + width)
    image = rng.integers(0, np.iinfo(kind).max, (height, width, 3)).astype(kind)
    blocks = (image[top : top + step] for top in range(0, height, step))
    low, high = np.percentile(image[::2, ::2], PERCENTILES)
    assert levels_of(blocks) == (low, max(high - low, 8 if kind == "u1" else 64))
    levels = levels_of([image])
    whole = normalized(image, channels=3)
    assert (normalized(image[:step], channels=3, levels=levels) == whole[:step]).all()


@given(st.tuples(*[st.integers(0, 9)] * 4), st.sampled_from([(), (3,)]), st.integers(1, 9))
def test_a_black_frame_is_ignored(
    frame: tuple[int, int, int, int], channels: tuple[int, ...], step: int
) -> None:
    inside = np.random.default_rng(sum(frame)).integers(60, 200, (30, 20, *channels), np.uint8)
    top, left = 2 * frame[0], 2 * frame[1]  # only every second row and column is sampled
    edges = [(top, frame[2]), (left, frame[3]), *[(0, 0)] * len(channels)]
    framed = np.pad(inside, edges)
    blocks = (framed[row : row + step] for row in range(0, len(framed), step))
    assert levels_of(blocks) == levels_of([inside])


def test_black_inside_the_image_counts_and_an_all_black_image_is_valid() -> None:
    image = np.full((40, 40), 100, np.uint8)
    image[10:30] = 0
    assert levels_of([image]) == (0.0, 100.0)
    assert levels_of([np.zeros((8, 8, 3), np.uint8)]) == (0.0, 8)
