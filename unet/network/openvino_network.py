"""The network as an OpenVINO graph, built layer by layer: no tracing, ready at once.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from torch import nn

from unet.network.model import Block, UNet

Floats = NDArray[np.float32]


def openvino_forward(net: UNet, *, threads: int) -> Any:
    """A function HWC -> class probabilities and distance, (K + 1, H, W).

    Args:
        net: the network, its batch norms folded into the convolutions.
        threads: maximum number of CPU threads.
    """
    core = ov.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if "BF16" in capabilities else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(_graph(net), "CPU", options).create_infer_request()

    def forward(tile_HWC: Floats) -> Floats:
        tile_BCHW = np.ascontiguousarray(tile_HWC.transpose(2, 0, 1)[None])
        request.infer([tile_BCHW], share_inputs=True)
        return np.array(request.get_output_tensor(0).data[0])

    return forward


def _graph(net: UNet) -> ov.Model:
    image = ops.parameter([1, net.in_channels, -1, -1], np.float32, name="image_BCHW")
    skips: list[Any] = []
    x: Any = image
    for stage, block in enumerate(net.encoder):
        x = _block(block, x if stage == 0 else _max_pool(x))
        skips.append(x)
    skips.pop()
    for up, block in zip(net.up, net.decoder, strict=True):
        x = _block(block, ops.concat([_upsample(up, x), skips.pop()], axis=1))
    heads = ops.variadic_split(_conv(net.head, x), 1, np.array([net.classes, 1]))
    probabilities = ops.concat([ops.softmax(heads.output(0), 1), ops.sigmoid(heads.output(1))], 1)
    return ov.Model([probabilities], [image], "unet")


def _block(block: Any, x: Any) -> Any:
    assert isinstance(block, Block)
    y = _conv(block.conv2, ops.relu(_conv(block.conv1, x)))
    skip = x if isinstance(block.skip, nn.Identity) else _conv(block.skip, x)
    return ops.relu(ops.add(y, skip))


def _conv(layer: Any, x: Any) -> Any:
    pads = list(layer.padding)
    y = ops.convolution(x, _constant(layer.weight), [1, 1], pads, pads, [1, 1])
    return y if layer.bias is None else ops.add(y, _constant(layer.bias.reshape(1, -1, 1, 1)))


def _max_pool(x: Any) -> Any:
    return ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _upsample(layer: Any, x: Any) -> Any:
    weights = _constant(layer.weight)
    y = ops.convolution_backprop_data(x, weights, [2, 2], pads_begin=[0, 0], pads_end=[0, 0])
    return ops.add(y, _constant(layer.bias.reshape(1, -1, 1, 1)))


def _constant(parameter: Any) -> Any:
    return ops.constant(np.ascontiguousarray(parameter.detach().float().numpy()))
