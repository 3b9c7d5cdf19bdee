import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unet.data import normalized
from unet.levels import PERCENTILES, levels_of


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["u1", "u2"]))
def test_levels_of_blocks_are_the_percentiles_of_the_whole(
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
