"""The one dense head: four token maps become a pyramid, the pyramid is fused coarse to fine, convolutions give the channels.

Input: patch tokens of four depths of a network. Output: maps at 8 times the patch grid, or at the image size.
Does not: activate the channels (exp, sigmoid); the network that owns the head does.

    tokens x4 -> norm, 1x1 -> + uv -> x4 / x2 / x1 / x0.5 -> 3x3      (Pyramid)
    level 4 -> fuse -> level 3 -> fuse -> level 2 -> fuse -> level 1  (FusionChain, 8 times the patch grid)
    3x3 -> resize to the image (+ extra map) -> + uv -> 3x3, ReLU, 1x1 (DenseHead)

Source: Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021, section 3.1, as changed by VGGT and DA3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .patch_vit import PATCH

UV_STRENGTH = 0.1
"""Weight of the uv embedding."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Widths of a dense head."""

    dim_in: int
    """Channels of the tokens."""
    features: int
    """Channels of the fused maps."""
    widths: tuple[int, int, int, int]
    """Channels of the four levels before fusing, fine to coarse."""
    channels: int
    """Output channels."""
    hidden: int = 32
    """Channels between the last two convolutions."""
    relu_skip: bool = True
    """True: a residual unit adds ReLU(x), as VGGT's in-place ReLU does. False: it adds x."""
    uv: bool = True
    """Add the uv embedding."""
    norm: bool = True
    """Normalise the tokens (epsilon 1e-5)."""
    crop: bool = False
    """True: the coarsest level is doubled and cropped to the next one's size. False: it is resized to it."""


@lru_cache(maxsize=64)
def uv_embedding(channels: int, rows: int, columns: int, aspect: float) -> Float[Tensor, "1 C H W"]:
    """Encode where a pixel lies in the image, sines and cosines of x then of y, at ``UV_STRENGTH``.

    The grid spans the image's rectangle with its half diagonal as the unit, so that the aspect ratio is seen.

    Args:
        aspect: width over height of the image, not of the map.
    """
    quarter = channels // 4
    omega = 100.0 ** -(np.arange(quarter) / quarter)
    diagonal = np.hypot(aspect, 1.0)
    x = np.linspace(-1.0, 1.0, columns) * (aspect / diagonal * (columns - 1) / columns)
    y = np.linspace(-1.0, 1.0, rows) * (1.0 / diagonal * (rows - 1) / rows)
    along_x, along_y = x[:, None] * omega, y[:, None] * omega
    codes_x = np.concatenate((np.sin(along_x), np.cos(along_x)), axis=1).T[:, None, :].repeat(rows, axis=1)
    codes_y = np.concatenate((np.sin(along_y), np.cos(along_y)), axis=1).T[:, :, None].repeat(columns, axis=2)
    return torch.from_numpy((UV_STRENGTH * np.concatenate((codes_x, codes_y))).astype(np.float32))[None]


def add_uv(maps: Float[Tensor, "V C H W"], aspect: float) -> Float[Tensor, "V C H W"]:
    """Add the uv embedding in place (inference only keeps one copy of a large map)."""
    code = uv_embedding(maps.shape[1], maps.shape[2], maps.shape[3], aspect).to(maps)
    return maps + code if maps.requires_grad else maps.add_(code)


def resize(maps: Float[Tensor, "V C H W"], rows: int, columns: int) -> Float[Tensor, "V C h w"]:
    """Resize bilinearly with corners aligned."""
    return F.interpolate(maps, size=(rows, columns), mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus the input (or its ReLU)."""

    def __init__(self, features: int, *, relu_skip: bool) -> None:
        super().__init__()
        self.relu_skip = relu_skip
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "V C H W"]) -> Float[Tensor, "V C H W"]:
        positive = F.relu(x)
        return self.conv2(F.relu(self.conv1(positive))) + (positive if self.relu_skip else x)


class Fusion(nn.Module):
    """Add a level to the coarser result, refine, resize to the next level, mix channels."""

    def __init__(self, features: int, *, lateral: bool, relu_skip: bool) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualUnit(features, relu_skip=relu_skip) if lateral else None
        self.resConfUnit2 = ResidualUnit(features, relu_skip=relu_skip)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Float[Tensor, "V C H W"], level: Float[Tensor, "V C H W"] | None, size: tuple[int, int]) -> Tensor:
        if self.resConfUnit1 is not None and level is not None:
            x = x + self.resConfUnit1(level)
        return self.out_conv(resize(self.resConfUnit2(x), *size))


class Pyramid(nn.Module):
    """Turn the tokens of four depths into maps at 4, 2, 1 and 1/2 times the patch grid, all with ``features`` channels."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.norm = nn.LayerNorm(config.dim_in) if config.norm else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(config.dim_in, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            )
        )
        self.levels = nn.ModuleList(nn.Conv2d(width, config.features, 3, padding=1, bias=False) for width in widths)

    def forward(self, taps: Sequence[Float[Tensor, "V P C"]], grid: tuple[int, int], aspect: float) -> list[Tensor]:
        """Build the four levels, fine to coarse.

        Args:
            taps: patch tokens of four depths, shallow to deep.
            grid: (rows, columns) of patches.
            aspect: width over height of the image.
        """
        made = []
        for tokens, project, scale, level in zip(taps, self.projects, self.resize_layers, self.levels, strict=True):
            maps = project(self.norm(tokens).transpose(1, 2).unflatten(2, grid))
            made.append(level(scale(add_uv(maps, aspect) if self.config.uv else maps)))
        return made


class FusionChain(nn.Module):
    """Fuse a pyramid from coarse to fine; the result has twice the size of the finest level."""

    def __init__(self, features: int, *, relu_skip: bool, crop: bool = False) -> None:
        super().__init__()
        self.crop = crop
        self.stages = nn.ModuleList(Fusion(features, lateral=k < 3, relu_skip=relu_skip) for k in range(4))

    def forward(self, levels: Sequence[Float[Tensor, "V C _ _"]]) -> Float[Tensor, "V C H W"]:
        finest = tuple(levels[0].shape[2:])
        sizes = [(2 * finest[0], 2 * finest[1])] + [tuple(level.shape[2:]) for level in levels[:3]]
        doubled = (2 * levels[3].shape[2], 2 * levels[3].shape[3])
        x = self.stages[3](levels[3], None, doubled if self.crop else sizes[3])[:, :, : sizes[3][0], : sizes[3][1]]
        for k in (2, 1, 0):
            x = self.stages[k](x, levels[k], sizes[k])
        return x


class DenseHead(nn.Module):
    """Pyramid, fusion and output convolutions."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        self.fusion = FusionChain(config.features, relu_skip=config.relu_skip, crop=config.crop)
        self.output1 = nn.Conv2d(config.features, config.features // 2, 3, padding=1)
        self.output2 = nn.Sequential(
            nn.Conv2d(config.features // 2, config.hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(config.hidden, config.channels, 1)
        )

    def forward(
        self, taps: Sequence[Float[Tensor, "V P C"]], size: tuple[int, int], extra: Float[Tensor, "V F H W"] | None = None
    ) -> Float[Tensor, "V O H W"]:
        """Compute the raw output channels at the image size.

        Args:
            taps: patch tokens of four depths.
            size: (height, width) of the image in pixels.
            extra: a map added to the features at full size, before the uv embedding (AnySplat's image branch).
        """
        levels = self.pyramid(taps, (size[0] // PATCH, size[1] // PATCH), size[1] / size[0])
        return self.finish(self.fusion(levels), size, extra)

    def finish(
        self, fused: Float[Tensor, "V C h w"], size: tuple[int, int], extra: Tensor | None = None
    ) -> Float[Tensor, "V O H W"]:
        """Turn fused maps into output channels at the image size."""
        maps = resize(self.output1(fused), *size)
        if extra is not None:
            maps = maps + extra
        return self.output2(add_uv(maps, size[1] / size[0]) if self.config.uv else maps)


def in_chunks(head, taps: Sequence[Tensor], chunk: int, *others: Tensor) -> Tensor:
    """Run a dense head on ``chunk`` views at a time and join the results; bounds memory, changes no value.

    Args:
        head: called with the taps and the others of some views.
        taps: four token maps ``V P C``.
        chunk: views at a time, >= 1.
        others: further tensors with V first.
    """
    views = taps[0].shape[0]
    parts = [head([tap[i : i + chunk] for tap in taps], *(o[i : i + chunk] for o in others)) for i in range(0, views, chunk)]
    return torch.cat(parts)
