"""The network as an OpenVINO graph, built layer by layer: no tracing, and ready in a moment.

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
        threads: of the processor that it may take.
    """
    core = ov.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if "BF16" in can else "f32",
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
        x = _block(block, x if stage == 0 else _halved(x))
        skips.append(x)
    skips.pop()
    for up, block in zip(net.up, net.decoder, strict=True):
        x = _block(block, ops.concat([_doubled(up, x), skips.pop()], axis=1))
    both = ops.variadic_split(_convolved(net.head, x), 1, np.array([net.classes, 1]))
    probabilities = ops.concat([ops.softmax(both.output(0), 1), ops.sigmoid(both.output(1))], 1)
    return ov.Model([probabilities], [image], "unet")


def _block(block: Any, x: Any) -> Any:
    assert isinstance(block, Block)
    y = _convolved(block.conv2, ops.relu(_convolved(block.conv1, x)))
    skip = x if isinstance(block.skip, nn.Identity) else _convolved(block.skip, x)
    return ops.relu(ops.add(y, skip))


def _convolved(layer: Any, x: Any) -> Any:
    pads = list(layer.padding)
    y = ops.convolution(x, _values(layer.weight), [1, 1], pads, pads, [1, 1])
    return y if layer.bias is None else ops.add(y, _values(layer.bias.reshape(1, -1, 1, 1)))


def _halved(x: Any) -> Any:
    return ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _doubled(layer: Any, x: Any) -> Any:
    weights = _values(layer.weight)
    y = ops.convolution_backprop_data(x, weights, [2, 2], pads_begin=[0, 0], pads_end=[0, 0])
    return ops.add(y, _values(layer.bias.reshape(1, -1, 1, 1)))


def _values(parameter: Any) -> Any:
    return ops.constant(np.ascontiguousarray(parameter.detach().float().numpy()))
