"""The GFencoder: an encoder that sees the whole image through row and column convolutions.

Source: GLAE, section 3.2 (see the README for the paper).
"""

import torch
from torch import nn

CHANNELS = 64
Size = tuple[int, int]  # height, width


def conv_side(side: int, kernel: int, stride: int, padding: int = 1, dilation: int = 1) -> int:
    """Return the output side of a convolution, in pixels."""
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def stem_side(side: int) -> int:
    """Return the side of the first block's input: 256 -> 59."""
    return conv_side(side, kernel=11, stride=2, dilation=2) // 2


def second_side(side: int) -> int:
    """Return the side of the second block's input: 256 -> 29."""
    return conv_side(stem_side(side), kernel=5, stride=2)


def gfencoder_side(side: int) -> int:
    """Return the side of the GFencoder's output: 256 -> 7. Less than 1: the input is too small."""
    if second_side(side) < 1:
        return 0
    return conv_side(conv_side(second_side(side), kernel=3, stride=2), kernel=5, stride=2)


class GFEBlock(nn.Module):
    """Global features: (N, C, H, W) -> the same shape, of rank 1 in every channel.

    A row convolution sees a whole row at once, a column convolution a whole column; their outer
    product puts what they found back on the plane.
    """

    def __init__(self, size: Size):
        super().__init__()
        height, width = size
        self.row = nn.Conv2d(CHANNELS, CHANNELS, (1, width))
        self.column = nn.Conv2d(CHANNELS, CHANNELS, (height, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.row(features) * self.column(features)  # (N, C, H, 1) * (N, C, 1, W)


def gfencoder(size: Size, gfe: bool = True, lfc: bool = True) -> nn.Sequential:
    """Build the GFencoder for images of `size`: (N, 3, H, W) -> (N, 64, h, w), 7 x 7 for 256.

    The kernels' lengths follow from the size. Two GFE blocks, then the local feature constraint;
    without `gfe` or `lfc` these are left out with a ReLU each, and nothing takes their place.
    """
    first = tuple(stem_side(side) for side in size)
    second = tuple(second_side(side) for side in size)
    layers = [
        nn.Conv2d(3, CHANNELS, 11, stride=2, padding=1, dilation=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2),
    ]
    if gfe:
        layers += [GFEBlock(first), nn.ReLU(inplace=True)]
    layers.append(nn.Conv2d(CHANNELS, CHANNELS, 5, stride=2, padding=1))
    if gfe:
        layers += [nn.ReLU(inplace=True), GFEBlock(second)]
    if lfc:
        layers += [
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 5, stride=2, padding=1),
        ]
    return nn.Sequential(*layers)
