"""The network: a U-Net with residual blocks, a class head and a distance head.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; the input is added before the last ReLU.

    The residual connection (He et al. 2016, eq. 1) costs a 1x1 convolution where the width
    changes; it lets deep, narrow networks learn within minutes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features at the same size, (B, out_channels, H, W)."""
        y_BCHW = torch.relu_(self.norm1(self.conv1(x_BCHW)))
        y_BCHW = self.norm2(self.conv2(y_BCHW))
        return torch.relu_(y_BCHW + self.skip(x_BCHW))


class UNet(nn.Module):
    """Encoder, decoder and skip connections (Ronneberger et al. 2015) with two heads.

    Args:
        in_channels: channels of the image.
        classes: K, including the background.
        widths: channels of each stage; every stage except the first halves the size.
        coarse: number of coarser decoder stages with their own class head, used in training only
            (deep supervision, Lee et al. 2015).

    The forward pass returns (logits_BKHW, distance_B1HW): class logits and the logit of the
    normalised distance to the object's border, which separates touching objects.
    """

    def __init__(
        self, *, in_channels: int, classes: int, widths: Sequence[int], coarse: int = 0
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.classes = classes
        self.stride = 2 ** (len(widths) - 1)
        pairs = list(zip([in_channels, *widths], widths, strict=False))
        self.encoder = nn.ModuleList(Block(a, b) for a, b in pairs)
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in ups)
        self.decoder = nn.ModuleList(Block(2 * b, b) for _, b in ups)
        self.pool = nn.MaxPool2d(2)
        self.head = _head(widths[0], classes + 1)
        self.coarse = nn.ModuleList(_head(width, classes) for width in widths[1 : coarse + 1])

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, K, H, W) and distance logit (B, 1, H, W); raises like `decoded`."""
        return self._heads(self.decoded(image_BCHW)[-1])

    def at_all_scales(self, image_BCHW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Class logits of all heads, each half the size of the previous; the distance logit."""
        features = self.decoded(image_BCHW)
        logits_BKHW, distance_B1HW = self._heads(features[-1])
        coarser = zip(self.coarse, features[-2::-1], strict=True)
        return [logits_BKHW, *(head(x_BCHW) for head, x_BCHW in coarser)], distance_B1HW

    def _heads(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        out_BCHW = self.head(x_BCHW)
        return out_BCHW[:, : self.classes], out_BCHW[:, self.classes :]

    def decoded(self, image_BCHW: Tensor) -> list[Tensor]:
        """Features of the decoder stages that have a head, the finest last.

        Raises:
            ValueError: if H or W is not a multiple of the network's stride.
        """
        height, width = image_BCHW.shape[-2:]
        if height % self.stride or width % self.stride:
            up = [-(-n // self.stride) * self.stride for n in (height, width)]
            raise ValueError(
                f"image of {height} x {width} px: pad it to {up[0]} x {up[1]} "
                f"(multiples of {self.stride})"
            )
        skips: list[Tensor] = []
        x_BCHW = image_BCHW
        for stage, block in enumerate(self.encoder):
            x_BCHW = block(x_BCHW if stage == 0 else self.pool(x_BCHW))
            skips.append(x_BCHW)
        skips.pop()
        features: list[Tensor] = []
        for up_convolution, block in zip(self.up, self.decoder, strict=True):
            x_BCHW = block(torch.cat([up_convolution(x_BCHW), skips.pop()], dim=1))
            features = [*features, x_BCHW][-1 - len(self.coarse) :]  # saves memory on large tiles
        return features


def _head(channels: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution initialised to zero: the loss starts at exactly ln(classes)."""
    head = nn.Conv2d(channels, outputs, 1)
    assert head.bias is not None
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
