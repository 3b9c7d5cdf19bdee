"""Pre- and post-processing as ONNX graphs: image -> network input, network output -> seeds.

As in `graph_parts`, renaming a local name changes the ids of exported models.
"""

# ruff: noqa: ANN202, F821

from typing import Any

import onnx.helper
import onnx.inliner
import onnxscript.optimizer
from onnxscript import FLOAT, INT64, UINT8, OnnxFunction, script
from onnxscript import opset18 as op

from dataset_rules.formatting.image_form import EIGHT_BIT_FORMATS
from dataset_rules.rules.fields import Fit
from dataset_rules.rules.rules import Rules
from unet.export.graph_parts import (
    DEEP_FLOOR,
    F32,
    F64,
    FLOOR,
    GREY,
    I64,
    U8,
    blurred,
    border_distance,
    in_eight_bits,
    limits_of,
    mirrored,
    resized,
    spread,
)
from unet.objects.splitting import Seeds, SplitSettings
from unet.planning.plan import Plan

OPSET = 18  # supported by runtimes of recent years


def before_graph(plan: Plan, rules: Rules) -> onnx.ModelProto:
    """Graph of an image (H, W, C) -> the network's input: colours, size, mirrored to tiles."""
    is_grey = rules.color_model == "grayscale"
    is_stretched, is_shrunk = rules.fit is Fit.STRETCH, rules.fit is Fit.PAD
    is_kept = rules.image_format not in EIGHT_BIT_FORMATS and rules.depth in {None, "keep"}
    is_reduced, is_ranged = not is_kept, rules.depth == "range"
    asked = [rules.height or 1, rules.width or 1]
    scale, many, tile = str(plan.scale), plan.stride, plan.tile_px

    @script()
    def before(image: FLOAT["H", "W", "C"], floor: FLOAT):
        one = op.Constant(value_int=1)
        yes, no = one > 0, one < 0
        is_deep = floor > op.Constant(value_float=FLOOR)
        becomes_shallow = op.And(is_deep, op.Constant(value_int=is_reduced) > 0)
        least = op.Where(becomes_shallow, op.Constant(value_float=FLOOR), floor)
        if becomes_shallow:  # one result per branch: onnxscript orders several at random
            shallow = in_eight_bits(image, op.Constant(value_int=is_ranged) > 0)
        else:
            shallow = op.Identity(image)
        rgb = op.Expand(op.Transpose(shallow, perm=[2, 0, 1]), op.Constant(value_ints=[3, 1, 1]))
        if op.Constant(value_int=is_grey) > 0:
            weights = op.Reshape(op.Constant(value_floats=GREY), op.Constant(value_ints=[3, 1, 1]))
            toned = op.Round(op.ReduceSum(rgb * weights, op.Constant(value_ints=[0])))
        else:
            toned = op.Identity(rgb)
        own = op.Shape(image)[:2]
        fitting = op.Constant(value_ints=asked)
        factor = op.Min(
            op.ReduceMin(op.Cast(fitting, to=F64) / op.Cast(own, to=F64), keepdims=0),
            op.Cast(one, to=F64),
        )
        inside = op.Max(op.Cast(op.Floor(op.Cast(own, to=F64) * factor), to=I64), one)
        other = op.Where(op.Constant(value_int=is_shrunk) > 0, inside, own)
        seen = op.Where(op.Constant(value_int=is_stretched) > 0, fitting, other)
        deepest = op.Where(
            least > op.Constant(value_float=FLOOR), op.Constant(value_float=65535.0),
            op.Constant(value_float=255.0),
        )  # fmt: skip
        shown = op.Round(resized(toned, seen, yes))
        fitted = op.Min(op.Max(shown, op.Constant(value_float=0.0)), deepest)
        exact = op.Cast(op.Constant(value_string=scale), to=F64)
        wanted = op.Cast(op.Round(op.Cast(seen, to=F64) * exact), to=I64)
        small = op.Max(wanted, one)
        network = op.Round(resized(fitted, small, no))
        step = op.Constant(value_int=many)
        whole = (small + step - one) / step * step
        is_tiled = op.ReduceMax(whole, keepdims=0) > op.Constant(value_int=tile)
        grown = op.Where(is_tiled, op.Max(whole, op.Constant(value_int=tile)), whole)
        limits = limits_of(op.Transpose(network, perm=[1, 2, 0]), least)
        pixels = op.Transpose(mirrored(mirrored(network, whole), grown), perm=[1, 2, 0])
        return pixels, limits, small, seen

    return as_model(before, [FLOAT["h", "w", "c"], FLOAT[2], INT64[2], INT64[2]])


def normalised_graph(channels: int) -> onnx.ModelProto:
    """Graph of an image (H, W, C) and its limits -> the normalised image, (H, W, C)."""
    has_colours = channels == 3

    @script()
    def normalised(image: FLOAT["H", "W", "C"], limits: FLOAT[2]):
        if op.ReduceMax(limits[1:], keepdims=0) > op.Constant(value_float=0.0):
            used = op.Identity(limits)
        else:
            is_deep = op.ReduceMax(image, keepdims=0) > op.Constant(value_float=255.0)
            floor = op.Where(
                is_deep, op.Constant(value_float=DEEP_FLOOR), op.Constant(value_float=FLOOR)
            )
            used = limits_of(image, floor)
        scaled = (image - op.Gather(used, 0)) / op.Gather(used, 1)
        if op.Constant(value_int=has_colours) > 0:
            coloured = op.Expand(scaled, op.Constant(value_ints=[1, 1, 3]))
        else:
            coloured = op.ReduceMean(scaled, op.Constant(value_ints=[2]))
        return op.Identity(coloured)

    return as_model(normalised, [FLOAT["H", "W", channels]])


def after_graph(split: SplitSettings) -> onnx.ModelProto:
    """Graph of class probabilities and distance (K + 1, H, W) -> classes, landscape, seeds."""
    background, level = 1 - split.foreground, split.level
    rise = level * (1 - 1e-3)
    is_core, is_shape = split.seeds is Seeds.CORE, split.seeds is Seeds.SHAPE

    @script()
    def after(prob: FLOAT["N", "H", "W"], size: INT64[2]):
        own = resized(prob, size, op.Constant(value_int=0) > 0)
        foreground = op.Gather(own, 0) <= op.Constant(value_float=background)
        distance = op.Gather(own, -1)
        classes = op.Cast(
            op.ArgMax(own[1:-1, :, :], axis=0, keepdims=0) + op.Constant(value_int=1), to=U8
        )
        if op.Constant(value_int=is_shape) > 0:
            smooth = blurred(border_distance(foreground))
        else:
            smooth = blurred(distance)
        # -1 between two components, so that each is split separately.
        height = op.Where(foreground, smooth, op.Constant(value_float=-1.0))
        if op.Constant(value_int=is_core) > 0:
            tops = distance > op.Constant(value_float=level)
        else:
            ground = height - op.Constant(value_float=level)
            filled = spread(ground, height, op.Constant(value_int=1) > 0)
            tops = height - filled >= op.Constant(value_float=rise)
        seeds = op.And(tops, foreground)
        one = op.Constant(value_int=1)
        inside = op.Cast(foreground, to=F32)
        sown = spread(op.Cast(seeds, to=F32), inside, one < 0)
        bare = op.And(foreground, sown < inside)
        # Numbers up to the pixel count need 64 bits; all else is grown in 32, which is faster.
        count = op.Size(foreground)
        numbers = op.Cast(op.Reshape(op.Range(1, count + one, 1), op.Shape(foreground)), to=F64)
        none = op.Cast(op.Constant(value_int=0), to=F64)
        most = op.Cast(count, to=F64)
        labels = spread(op.Where(seeds, numbers, none), op.Where(seeds, most, none), one > 0)
        parts = spread(op.Where(bare, numbers, none), op.Where(bare, most, none), one < 0)
        marked = op.Cast(op.Where(bare, parts + most, labels), to=I64)
        markers = op.Where(foreground, marked, op.Constant(value_int=-1))
        return classes, distance, height, markers

    return as_model(after, [UINT8["h", "w"], FLOAT["h", "w"], FLOAT["h", "w"], INT64["h", "w"]])


def as_model(function: OnnxFunction, output_types: list[Any]) -> onnx.ModelProto:
    """The graph of a function as a model, with the functions that it calls inlined."""
    model = function.to_model_proto(output_types=output_types)
    for called in model.functions:
        if all(opset.domain != "this" for opset in called.opset_import):
            called.opset_import.append(onnx.helper.make_opsetid("this", 1))
    whole = onnx.inliner.inline_local_functions(model)
    del whole.opset_import[:]
    whole.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    optimized: onnx.ModelProto = onnxscript.optimizer.optimize(whole)
    onnx.checker.check_model(optimized, full_check=True)
    return optimized
