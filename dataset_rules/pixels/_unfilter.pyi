import numpy as np
from numpy.typing import NDArray

def unfilter(rows: bytes | bytearray, pixels: NDArray[np.uint8], width: int, /) -> None: ...
