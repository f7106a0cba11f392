"""The DINOv2 patch encoder every network starts from.

Input: normalised images whose sides are multiples of the patch. Output: tokens.
Does not: mix views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .transformer import Block, BlockConfig

PATCH = 14
"""Side of a patch in pixels."""
TABLE_SIDE = 37
"""Side of the position table in patches: trained at 518 px."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V 3 H W"]:
    """Shift and scale images in [0, 1] by the ImageNet statistics."""
    return (images - images.new_tensor(IMAGENET_MEAN)[:, None, None]) / images.new_tensor(IMAGENET_STD)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class PatchVitConfig:
    """Size of the encoder and how its position table is resized."""

    blocks: tuple[BlockConfig, ...]
    """One per block, first to last."""
    registers: int = 0
    """Register tokens, put after the class token once positions were added."""
    antialias: bool = True
    """True: antialiased bicubic to the grid's size. False: plain bicubic with scale (grid + 0.1) / 37, DINOv2's first rule."""
    final_norm_eps: float = 1e-6
    """Epsilon of the norm after the last block."""
    final_norm: bool = True
    """False leaves that norm out."""


def resize_positions(table: Float[Tensor, "1 N C"], rows: int, columns: int, *, antialias: bool) -> Float[Tensor, "1 P C"]:
    """Resample the position table to a grid; the class token's entry stays.

    Args:
        table: class entry and 37 x 37 patch entries.
        antialias: see ``PatchVitConfig.antialias``.
    """
    if rows == TABLE_SIDE and columns == TABLE_SIDE:
        return table
    grid = table[:, 1:].float().unflatten(1, (TABLE_SIDE, TABLE_SIDE)).permute(0, 3, 1, 2)
    if antialias:
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    else:
        scale = ((rows + 0.1) / TABLE_SIDE, (columns + 0.1) / TABLE_SIDE)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    return torch.cat((table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)), dim=1)


class PatchEmbed(nn.Module):
    """Cut an image into patches and project each to a token, with an optional norm."""

    def __init__(self, channels: int, dim: int, patch: int, *, norm: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else nn.Identity()

    def forward(self, images: Float[Tensor, "V I H W"]) -> Float[Tensor, "V P C"]:
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class PatchVit(nn.Module):
    """Patch embedding, class and register tokens, position table, blocks and final norm."""

    def __init__(self, config: PatchVitConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.blocks[0].dim
        self.patch_embed = PatchEmbed(3, dim, PATCH)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + TABLE_SIDE**2, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, config.registers, dim)) if config.registers else None
        self.blocks = nn.ModuleList(Block(block) for block in config.blocks)
        self.norm = nn.LayerNorm(dim, eps=config.final_norm_eps) if config.final_norm else nn.Identity()

    def embed(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V P C"]:
        """Turn normalised images into tokens: class, registers, then patches in row-major order."""
        views, _, height, width = images.shape
        tokens = torch.cat((self.cls_token.expand(views, -1, -1), self.patch_embed(images)), dim=1)
        table = resize_positions(self.pos_embed, height // PATCH, width // PATCH, antialias=self.config.antialias)
        tokens = tokens + table
        if self.register_tokens is None:
            return tokens
        return torch.cat((tokens[:, :1], self.register_tokens.expand(views, -1, -1), tokens[:, 1:]), dim=1)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V P C"]:
        """Encode normalised images; the first 1 + registers tokens are special."""
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def vit_large() -> PatchVitConfig:
    """ViT-L/14 with four registers, the encoder of VGGT, AnySplat, Pi3 and YoNoSplat."""
    return PatchVitConfig(blocks=(BlockConfig(dim=1024, heads=16),) * 24, registers=4)
