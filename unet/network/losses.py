"""Losses: Dice and cross-entropy of the class logits, and the distance head's loss.

Shape suffixes: B batch, K classes, H height, W width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from dataset_rules.artifacts.dataset import IGNORE

Total = Callable[[Tensor], Tensor]  # sum over all processes that share the batch


def _local(value: Tensor) -> Tensor:
    """The sum in a single process."""
    return value


def soft_dice_loss(logits_BKHW: Tensor, mask_BHW: Tensor, *, total: Total = _local) -> Tensor:
    """1 - Dice of the softmax, summed over the batch, mean over the classes except background.

    Source: Milletari et al. 2016 (V-Net), eq. 1, without squares; the batch is pooled so that
    a patch without any object does not dominate. The added 1 gives a class that is absent from
    batch and prediction Dice 1.
    """
    classes = logits_BKHW.shape[1]
    known_BHW = mask_BHW != IGNORE
    target_BKHW = one_hot(mask_BHW.where(known_BHW, 0), classes).movedim(-1, 1)
    weight_B1HW = known_BHW[:, None]
    prob_BKHW = logits_BKHW.softmax(1) * weight_B1HW
    target_BKHW = target_BKHW * weight_B1HW
    intersection_K = total((prob_BKHW * target_BKHW).sum((0, 2, 3)))
    sum_K = total(prob_BKHW.sum((0, 2, 3)) + target_BKHW.sum((0, 2, 3)))
    return 1 - ((2 * intersection_K + 1) / (sum_K + 1))[1:].mean()


def segmentation_loss(
    logits_BKHW: Tensor, mask_BHW: Tensor, class_weights_K: Tensor, *, total: Total = _local
) -> Tensor:
    """Cross-entropy + soft Dice (Isensee et al. 2021), both without the ignored pixels."""
    known_BHW = mask_BHW != IGNORE
    pixelwise_BHW = cross_entropy(
        logits_BKHW, mask_BHW, weight=class_weights_K, ignore_index=IGNORE, reduction="none"
    )
    weight = class_weights_K[mask_BHW.where(known_BHW, 0)] * known_BHW
    entropy = total(pixelwise_BHW.sum()) / total(weight.sum()).clamp(min=1)
    return entropy + soft_dice_loss(logits_BKHW, mask_BHW, total=total)


def multiscale_loss(
    logits: Sequence[Tensor], mask_BHW: Tensor, class_weights_K: Tensor, *, total: Total = _local
) -> Tensor:
    """The mean segmentation loss of logits at full, half, quarter ... size.

    Each has half the weight of the previous one (Isensee et al. 2021); the mask is subsampled at
    every second, fourth ... pixel.
    """
    weights = [0.5**index for index in range(len(logits))]
    losses = [
        weight * segmentation_loss(
            logits_BKHW, mask_BHW[:, :: 2**index, :: 2**index], class_weights_K, total=total
        )
        for index, (weight, logits_BKHW) in enumerate(zip(weights, logits, strict=True))
    ]  # fmt: skip
    return torch.stack(losses).sum() / sum(weights)


def distance_loss(
    distance_B1HW: Tensor, target_B1HW: Tensor, mask_BHW: Tensor, *, total: Total = _local
) -> Tensor:
    """Binary cross-entropy of the distance logit, with the normalised distance as soft target."""
    known_B1HW = (mask_BHW != IGNORE)[:, None].to(distance_B1HW.dtype)
    loss = binary_cross_entropy_with_logits(
        distance_B1HW, target_B1HW, weight=known_B1HW, reduction="sum"
    )
    return total(loss) / total(known_B1HW.sum()).clamp(min=1)
