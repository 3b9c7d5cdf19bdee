import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.prediction.planes import upscaled_planes


@settings(deadline=None)
@given(st.data())
def test_upscaling_by_blocks_equals_upscaling_the_whole(data: st.DataObject) -> None:
    size = [data.draw(st.integers(1, 40)) for _ in "hw"]
    large = [data.draw(st.integers(side, 90)) for side in size]
    planes = np.random.default_rng(sum(size)).random((2, *size), np.float32)
    step = data.draw(st.integers(1, 20))
    blocks = (planes[:, top : top + step] for top in range(0, size[0], step))
    found = np.concatenate(list(upscaled_planes(blocks, tuple(size), tuple(large))), axis=1)
    whole = [cv2.resize(p, large[::-1], interpolation=cv2.INTER_LINEAR) for p in planes]
    np.testing.assert_allclose(found, whole, atol=1e-5)
