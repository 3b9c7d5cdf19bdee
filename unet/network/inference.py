"""Class probabilities and the distance map of an image, from one or more networks.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels
from unet.network.model import UNet
from unet.network.preprocessing import normalized, rescaled
from unet.network.tiles import blended
from unet.planning.plan import Plan


def make_net(plan: Plan) -> UNet:
    """An untrained network as planned; its weights depend on the plan's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        net = UNet(
            in_channels=plan.channels, classes=len(plan.classes), widths=plan.widths,
            coarse=plan.deep_supervision,
        )  # fmt: skip
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def probabilities(nets: Sequence[UNet], image: Pixels, plan: Plan) -> NDArray[np.float32]:
    """Class probabilities and the distance map of an image, (K + 1, H, W) at the plan's scale.

    Averaged over the networks.
    """
    prepared = normalized(rescaled(image, plan.scale), channels=plan.channels)
    found = probabilities_of_prepared(nets[0], prepared, plan)
    for net in nets[1:]:
        found += probabilities_of_prepared(net, prepared, plan)
    return found / np.float32(len(nets))


@torch.inference_mode()
def probabilities_of_prepared(
    net: UNet, image_HWC: NDArray[np.float32], plan: Plan
) -> NDArray[np.float32]:
    """The same for an image that is already normalised and at the plan's scale."""
    device = next(net.parameters()).device

    def forward(tile_HWC: NDArray[np.float32]) -> NDArray[np.float32]:
        tile_BCHW = torch.from_numpy(np.ascontiguousarray(tile_HWC)).permute(2, 0, 1)[None]
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits_BKHW, distance_B1HW = net(tile_BCHW.to(device))
        planes = [logits_BKHW.float().softmax(1), distance_B1HW.float().sigmoid()]
        return torch.cat(planes, dim=1)[0].cpu().numpy()

    return blended(
        image_HWC, forward, multiple=plan.stride, tile_px=plan.tile_px, overlap_px=plan.overlap_px
    )
