"""Tokens of all views, mixed by blocks that alternate between one view and all views.

Input: patch tokens per view. Output: tokens after chosen blocks.
Does not: encode patches (``patch_vit``) or read anything off the tokens (the heads do).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .rope import grid_positions, rotation
from .transformer import Block, BlockConfig, all_views, per_view


class PairedAggregator(nn.Module):
    """Pairs of blocks, first within each view and then across all (VGGT, AnySplat).

    The first view carries its own camera and register tokens; every other view carries the second set.
    """

    SPECIALS = 5
    """Camera token and four registers in front of the patches."""

    def __init__(self, config: BlockConfig, depth: int) -> None:
        super().__init__()
        self.head_dim = config.dim // config.heads
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, config.dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, self.SPECIALS - 1, config.dim))
        self.frame_blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.global_blocks = nn.ModuleList(Block(config) for _ in range(depth))

    def forward(self, patches: Float[Tensor, "V P C"], grid: tuple[int, int], taps: Sequence[int]) -> list[Float[Tensor, "V Q D"]]:
        """Return the outputs of the pairs in ``taps``, each the view block's and the global block's side by side."""
        specials = torch.cat((self.camera_token, self.register_token), dim=2)[0]
        specials = torch.cat((specials[:1], specials[1:].expand(len(patches) - 1, -1, -1)))
        tokens = torch.cat((specials, patches), dim=1)
        turn = rotation(grid_positions(*grid, self.SPECIALS).to(patches.device), self.head_dim)
        taken = []
        for index, (frame, across) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            local = per_view(frame, tokens, turn)
            tokens = all_views(across, local, turn)
            if index in taps:
                taken.append(torch.cat((local, tokens), dim=-1))
        return taken


class SharedAggregator(nn.Module):
    """One list of blocks, even ones within each view and odd ones across all (Pi3, YoNoSplat).

    Every view carries the same registers, so that no view is the reference.
    """

    SPECIALS = 5
    """Registers in front of the patches."""

    def __init__(self, config: BlockConfig, depth: int) -> None:
        super().__init__()
        self.head_dim = config.dim // config.heads
        self.register_token = nn.Parameter(torch.empty(1, 1, self.SPECIALS, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))

    def forward(self, patches: Float[Tensor, "V P C"], grid: tuple[int, int]) -> Float[Tensor, "V Q D"]:
        """Return the last within-view output and the last across-views output side by side."""
        tokens = torch.cat((self.register_token[0].expand(len(patches), -1, -1), patches), dim=1)
        turn = rotation(grid_positions(*grid, self.SPECIALS).to(patches.device), self.head_dim)
        local = tokens
        for index, block in enumerate(self.blocks):
            if index % 2 == 0:
                tokens = local = per_view(block, tokens, turn)
            else:
                tokens = all_views(block, tokens, turn)
        return torch.cat((local, tokens), dim=-1)


class ViewDecoder(nn.Module):
    """A linear layer, plain blocks within each view, a linear layer (Pi3's and YoNoSplat's decoders)."""

    def __init__(self, dim_in: int, dim: int, dim_out: int, *, depth: int = 5, heads: int = 16) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.projects = nn.Linear(dim_in, dim)
        self.blocks = nn.ModuleList(Block(BlockConfig(dim=dim, heads=heads, layer_scale=False)) for _ in range(depth))
        self.linear_out = nn.Linear(dim, dim_out)

    def forward(self, tokens: Float[Tensor, "V P C"], grid: tuple[int, int], specials: int) -> Float[Tensor, "V P O"]:
        turn = rotation(grid_positions(*grid, specials).to(tokens.device), self.head_dim)
        x = self.projects(tokens)
        for block in self.blocks:
            x = per_view(block, x, turn)
        return self.linear_out(x)
