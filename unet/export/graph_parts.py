"""Parts of ONNX graphs: resizing, mirroring, percentiles, reconstruction, distances, smoothing.

They do with standard ONNX operators what `dataset_rules.formatting.resize`,
`unet.network.preprocessing` and `unet.objects.splitting` do with OpenCV and scikit-image, so that
any runtime gives the same mask. onnxscript compiles the functions: they are written in its
language, not in Python, and global names become constants of the graph. Local names become names
in the graph, so renaming one changes the ids of exported models.
"""

# ruff: noqa: ANN201, F821

import numpy as np
from onnxscript import BOOL, DOUBLE, FLOAT, INT64, script
from onnxscript import opset18 as op

F32, I64, F64, U8 = 1, 7, 11, 2  # ONNX's type numbers
PERCENTILES = (0.5, 99.8)  # as in `unet.network.preprocessing.normalized`
FLOORS = (8.0, 64.0)  # its minimum span for 8 bits and for more
LOW, HIGH = (share / 100 for share in PERCENTILES)
FLOOR, DEEP_FLOOR = FLOORS
GREY = [0.299, 0.587, 0.114]  # weights of red, green and blue: ITU-R BT.601
GAUSS = np.exp(-0.5 * np.arange(-4, 5) ** 2)  # sigma of one pixel, as wide as OpenCV's kernel
BLUR = [float(weight) for weight in GAUSS / GAUSS.sum()]
FAR = 1e6  # px, beyond any border
# Distances to a pixel's neighbours in OpenCV's 5 x 5 mask (Borgefors 1986).
SIDE, CORNER, KNIGHT = 1.0, 1.4, 2.1969


@script()
def area_shares(old: INT64, new: INT64):
    """Weight of each old pixel of an axis in each new one, (new, old)."""
    step = op.Cast(old, to=F64) / op.Cast(new, to=F64)
    half = op.Constant(value_float=0.5)
    middle = (op.Cast(op.Range(0, new, 1), to=F64) + op.Cast(half, to=F64)) * step
    pixel = op.Cast(op.Range(0, old, 1), to=F64) + op.Cast(half, to=F64)
    apart = op.Abs(op.Unsqueeze(middle, [1]) - op.Unsqueeze(pixel, [0]))
    one = op.Cast(op.Constant(value_float=1.0), to=F64)
    nothing = one - one
    overlap = op.Min(op.Max((step + one) * op.Cast(half, to=F64) - apart, nothing), one)
    return op.Cast(overlap / step, to=F32)


@script()
def area_mean(x: FLOAT["C", "H", "W"], size: INT64[2]):
    """The image at a size that is not larger; each pixel is the mean of the area it covers."""
    old = op.Shape(x)
    rows = area_shares(op.Gather(old, 1), op.Gather(size, 0))
    columns = area_shares(op.Gather(old, 2), op.Gather(size, 1))
    return op.MatMul(op.MatMul(rows, x), op.Transpose(columns, perm=[1, 0]))


@script()
def resized(x: FLOAT["C", "H", "W"], size: INT64[2], is_cubic: BOOL):
    """The image at (height, width): area means when shrinking, else linear or cubic."""
    old = op.Shape(x)[1:]
    is_smaller = op.ReduceMin(op.Cast(size <= old, to=I64), keepdims=0) > 0
    is_equal = op.ReduceMin(op.Cast(size == old, to=I64), keepdims=0) > 0
    planes = op.Concat(op.Constant(value_ints=[1]), op.Shape(x)[:1], size, axis=0)
    if op.And(is_smaller, op.Not(is_equal)):
        result = area_mean(x, size)
    else:
        x4 = op.Unsqueeze(x, [0])
        if is_cubic:
            large = op.Resize(x4, None, None, planes, mode="cubic", cubic_coeff_a=-0.75)
        else:
            large = op.Resize(x4, None, None, planes, mode="linear")
        result = op.Squeeze(large, [0])
    return result


@script()
def mirror(place: INT64["N"], length: INT64):
    """Index reflected into an axis; the border pixel is not repeated."""
    one = op.Constant(value_int=1)
    there_and_back = op.Max((length - one) * op.Constant(value_int=2), one)
    behind = op.Mod(op.Abs(place), there_and_back)
    return op.Min(behind, there_and_back - behind)


@script()
def mirrored(x: FLOAT["C", "H", "W"], size: INT64[2]):
    """The image extended to (height, width) by mirroring it at its lower and right border."""
    old = op.Shape(x)
    down = mirror(op.Range(0, op.Gather(size, 0), 1), op.Gather(old, 1))
    right = mirror(op.Range(0, op.Gather(size, 1), 1), op.Gather(old, 2))
    return op.Gather(op.Gather(x, down, axis=1), right, axis=2)


@script()
def limits_of(image: FLOAT["H", "W", "C"], floor: FLOAT):
    """Low percentile and span up to the high one, at least `floor`, of every fourth pixel.

    A black frame is ignored.
    """
    fourth = image[::2, ::2, :]
    is_lit = op.Cast(op.ReduceMax(fourth, op.Constant(value_ints=[2]), keepdims=0) > 0.0, to=I64)
    rows = op.ReduceMax(is_lit, op.Constant(value_ints=[1]), keepdims=0)
    columns = op.ReduceMax(is_lit, op.Constant(value_ints=[0]), keepdims=0)
    first = op.Concat(op.ArgMax(rows), op.ArgMax(columns), axis=0)
    last = op.Concat(
        op.ArgMax(rows, select_last_index=1), op.ArgMax(columns, select_last_index=1), axis=0
    )
    inside = op.Slice(
        fourth, first, last + op.Constant(value_int=1), op.Constant(value_ints=[0, 1])
    )
    some = op.Reshape(inside, op.Constant(value_ints=[-1]))
    ranked, _ = op.TopK(some, op.Shape(some), largest=0)
    last = op.Cast(op.Size(some) - op.Constant(value_int=1), to=F64)
    place = op.Cast(op.Constant(value_floats=[LOW, HIGH]), to=F64) * last
    below = op.Floor(place)
    under = op.Cast(op.Gather(ranked, op.Cast(below, to=I64)), to=F64)
    over = op.Cast(op.Gather(ranked, op.Cast(op.Ceil(place), to=I64)), to=F64)
    ends = op.Cast(under + (over - under) * (place - below), to=F32)
    low = op.Gather(ends, op.Constant(value_ints=[0]))
    return op.Concat(low, op.Max(op.Gather(ends, op.Constant(value_ints=[1])) - low, floor), axis=0)


@script()
def in_eight_bits(image: FLOAT["H", "W", "C"], is_ranged: BOOL):
    """16-bit values scaled to 0..255, from the full range or from the image's own range."""
    exact = op.Cast(image, to=F64)
    none = op.Cast(op.Constant(value_int=0), to=F64)
    low = op.Where(is_ranged, op.ReduceMin(exact, keepdims=0), none)
    most = op.Cast(op.Constant(value_int=65535), to=F64)
    high = op.Where(is_ranged, op.ReduceMax(exact, keepdims=0), most)
    span = op.Max(high - low, op.Cast(op.Constant(value_int=1), to=F64))
    half = op.Floor(span / op.Cast(op.Constant(value_int=2), to=F64))
    times = op.Cast(op.Constant(value_int=255), to=F64)
    return op.Cast(op.Floor(((exact - low) * times + half) / span), to=F32)


@script()
def spread(seed: DOUBLE["H", "W"], limit: DOUBLE["H", "W"], is_diagonal: BOOL):
    """Morphological reconstruction by dilation: `seed` grown under `limit`."""
    plane = op.Concat(op.Constant(value_ints=[1, 1]), op.Shape(seed), axis=0)
    now = op.Reshape(seed, plane)
    top = op.Reshape(limit, plane)
    is_growing = op.Constant(value_int=1) > 0
    while is_growing:
        rows = op.MaxPool(now, kernel_shape=[3, 1], pads=[1, 0, 1, 0])
        columns = op.MaxPool(now, kernel_shape=[1, 3], pads=[0, 1, 0, 1])
        square = op.MaxPool(rows, kernel_shape=[1, 3], pads=[0, 1, 0, 1])
        grown = op.Min(op.Where(is_diagonal, square, op.Max(rows, columns)), top)
        is_growing = op.ReduceMax(op.Cast(grown > now, to=I64), keepdims=0) > 0
        now = grown
    return op.Reshape(now, op.Shape(seed))


@script()
def border_distance(inside: BOOL["H", "W"]):
    """Distance in px of each pixel to the nearest one outside; the image border does not count."""
    plane = op.Concat(op.Constant(value_ints=[1, 1]), op.Shape(inside), axis=0)
    near = op.Reshape(
        op.Where(inside, op.Constant(value_float=-FAR), op.Constant(value_float=0.0)), plane
    )  # negative distances, because ONNX only has max pooling
    is_shrinking = op.Constant(value_int=1) > 0
    while is_shrinking:
        rows = op.MaxPool(near, kernel_shape=[3, 1], pads=[1, 0, 1, 0])
        columns = op.MaxPool(near, kernel_shape=[1, 3], pads=[0, 1, 0, 1])
        square = op.MaxPool(rows, kernel_shape=[1, 3], pads=[0, 1, 0, 1])
        wide = op.MaxPool(near, kernel_shape=[3, 5], pads=[1, 2, 1, 2])
        high = op.MaxPool(near, kernel_shape=[5, 3], pads=[2, 1, 2, 1])
        better = op.Max(
            near,
            op.Max(rows, columns) - op.Constant(value_float=SIDE),
            square - op.Constant(value_float=CORNER),
            op.Max(wide, high) - op.Constant(value_float=KNIGHT),
        )
        is_shrinking = op.ReduceMax(op.Cast(better > near, to=I64), keepdims=0) > 0
        near = better
    longest = op.Cast(op.ReduceMax(op.Shape(inside), keepdims=0), to=F32)
    return op.Min(op.Neg(op.Reshape(near, op.Shape(inside))), longest)


@script()
def blurred(x: FLOAT["H", "W"]):
    """Gaussian smoothing with a sigma of one pixel, mirrored at the border."""
    size = op.Shape(x)
    height, width = op.Gather(size, 0), op.Gather(size, 1)
    four = op.Constant(value_int=4)
    rows = mirror(op.Range(-4, height + four, 1), height)
    columns = mirror(op.Range(-4, width + four, 1), width)
    framed = op.Gather(op.Gather(x, rows, axis=0), columns, axis=1)
    kernel = op.Constant(value_floats=BLUR)
    down = op.Conv(
        op.Unsqueeze(framed, [0, 1]), op.Reshape(kernel, op.Constant(value_ints=[1, 1, 9, 1]))
    )
    both = op.Conv(down, op.Reshape(kernel, op.Constant(value_ints=[1, 1, 1, 9])))
    return op.Reshape(both, size)
