"""Building blocks of our networks: convolution blocks, encoders, the volume U-Net, convex up-sampling.

Input and output: channels-first tensors (channels-last memory on the CPU, where it is several times faster).
Does not: know about cameras.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["FeaturePyramid", "GreyTrunk", "VolumeUNet", "conv_block", "convex_upsample"]


def conv_block(
    channels_in: int, channels_out: int, *, stride: int | tuple[int, int, int] = 1, dims: int = 2, kernel: int = 3
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the norm costs nothing at inference and its statistics make training quick."""
    conv: Callable[..., nn.Module] = nn.Conv2d if dims == 2 else nn.Conv3d
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    return nn.Sequential(
        conv(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        norm(channels_out, momentum=0.05),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, channels: int, *, dims: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_block(channels, channels, dims=dims), conv_block(channels, channels, dims=dims)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.body(x) + x)


class FeaturePyramid(nn.Module):
    """Shared image encoder: features at 1/2, 1/4 and 1/8 of the image, enriched from 1/16 downwards.

    image -> 1/2 (16) -> 1/4 (32) -> 1/8 (64) -> 1/16 (96)
               |           |           |           |
               f2 <------- f4 <------- f8 <--------'     (1x1 lateral, nearest up-sampling, 3x3)
    """

    widths = (16, 32, 64, 96)

    def __init__(self, matching_channels: int) -> None:
        super().__init__()
        w2, w4, w8, w16 = self.widths
        self.stem = nn.Sequential(conv_block(3, w2, stride=2, kernel=5), Residual(w2))
        self.down4 = nn.Sequential(conv_block(w2, w4, stride=2), Residual(w4))
        self.down8 = nn.Sequential(conv_block(w4, w8, stride=2), Residual(w8))
        self.down16 = nn.Sequential(conv_block(w8, w16, stride=2), Residual(w16))
        self.lateral16 = nn.Conv2d(w16, w8, 1)
        self.merge8 = conv_block(w8, w8)
        self.lateral8 = nn.Conv2d(w8, w4, 1)
        self.merge4 = conv_block(w4, w4)
        self.match8 = nn.Conv2d(w8, matching_channels, 3, padding=1)
        self.match4 = nn.Conv2d(w4, matching_channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Return ``match8 match4`` (for correlation) and ``guide8 guide4 guide2`` (context); H and W are multiples of 8."""
        guide2 = self.stem(image)
        x4 = self.down4(guide2)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        guide8 = self.merge8(x8 + F.interpolate(self.lateral16(x16), size=x8.shape[-2:]))
        guide4 = self.merge4(x4 + F.interpolate(self.lateral8(guide8), size=x4.shape[-2:]))
        return {
            "match8": self.match8(guide8),
            "match4": self.match4(guide4),
            "guide8": guide8,
            "guide4": guide4,
            "guide2": guide2,
        }


class GreyTrunk(nn.Module):
    """Encoder of grey photos down to 1/16, which networks that compare photos build on."""

    widths = (24, 48, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        w2, w4, w8, w16 = self.widths
        self.stem = nn.Sequential(conv_block(1, w2, stride=2, kernel=5), Residual(w2))
        self.down4 = nn.Sequential(conv_block(w2, w4, stride=2), Residual(w4))
        self.down8 = nn.Sequential(conv_block(w4, w8, stride=2), Residual(w8), Residual(w8))
        self.down16 = nn.Sequential(conv_block(w8, w16, stride=2), Residual(w16), Residual(w16))

    def levels(self, grey: Float[Tensor, "B 1 H W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features at 1/2, 1/4, 1/8 and 1/16."""
        x2 = self.stem(grey)
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        return x2, x4, x8, self.down16(x8)


class VolumeUNet(nn.Module):
    """Three-dimensional U-Net that turns a matching volume into one logit per hypothesis.

    Args:
        channels: input channels, and width of the finest level.
        widths: widths of the two coarser levels.
        stride: (D, h, w) stride of each level; (1, 2, 2) keeps a narrow band of hypotheses at full depth resolution.
    """

    def __init__(self, channels: int, widths: tuple[int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        mid, low = widths
        self.enter = conv_block(channels, channels, dims=3)
        self.down1 = nn.Sequential(conv_block(channels, mid, stride=stride, dims=3), conv_block(mid, mid, dims=3))
        self.down2 = nn.Sequential(conv_block(mid, low, stride=stride, dims=3), Residual(low, dims=3))
        self.up1 = nn.Conv3d(low, mid, 1)
        self.merge1 = conv_block(mid, mid, dims=3)
        self.up0 = nn.Conv3d(mid, channels, 1)
        self.merge0 = conv_block(channels, channels, dims=3)
        self.leave = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, volume: Float[Tensor, "B C D h w"]) -> Float[Tensor, "B D h w"]:
        """Regularise the volume."""
        fine = self.enter(volume)
        middle = self.down1(fine)
        low = self.down2(middle)
        middle = self.merge1(middle + F.interpolate(self.up1(low), size=middle.shape[-3:]))
        fine = self.merge0(fine + F.interpolate(self.up0(middle), size=fine.shape[-3:]))
        return self.leave(fine)[:, 0]


def convex_upsample(coarse: Float[Tensor, "B h w"], weights: Float[Tensor, "B 36 h w"]) -> Float[Tensor, "B H W"]:
    """Double a map's size; each new value is a convex mix of the 3 x 3 old values around it, so that edges stay edges.

    Source: RAFT, Teed and Deng 2020, section 3.3.

    Args:
        coarse: the map.
        weights: logits, four sub-pixels (row-major) times nine neighbours.
    """
    batch, height, width = coarse.shape
    patches = F.unfold(F.pad(coarse[:, None], (1, 1, 1, 1), mode="replicate"), 3).view(batch, 1, 9, height, width)
    mixed = (weights.view(batch, 4, 9, height, width).float().softmax(dim=2) * patches).sum(dim=2)
    return F.pixel_shuffle(mixed, 2)[:, 0]
