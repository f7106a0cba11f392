"""Pre-norm transformer blocks: attention with optional query/key norm, 2-D rotary positions and layer scale.

Input: tokens ``B P C``. Output: tokens of the same shape.
Does not: decide who attends to whom; a caller reshapes views into the batch (per view) or into the sequence (all views).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .rope import Rotation, rotate

AT_ONCE = 1024
"""Tokens a CPU takes at a time where each stands alone: what lies between two matrix products then stays in memory that was
used before, whereas each new buffer of tens of megabytes costs the system as long as a tenth of the product."""


def in_pieces(run: Callable[[Tensor], Tensor], x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B O"]:
    """Apply a function of single tokens, on a CPU to ``AT_ONCE`` of them after the other."""
    if x.is_cuda or x.shape[:-1].numel() <= AT_ONCE:
        return run(x)
    return torch.cat([run(some) for some in x.flatten(0, -2).split(AT_ONCE)]).unflatten(0, x.shape[:-1])


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What distinguishes the blocks of one network from those of another."""

    dim: int
    """Channels."""
    heads: int
    """Attention heads; ``dim`` is a multiple of it."""
    norm_eps: float = 1e-6
    """Epsilon of the two layer norms."""
    qk_norm: bool = False
    """Normalise queries and keys per head (epsilon 1e-5) before the rotation."""
    layer_scale: bool = True
    """Multiply each branch by a learned vector."""
    mlp_ratio: int = 4
    """Hidden channels of the MLP over ``dim``."""
    gated: bool = False
    """SwiGLU instead of GELU in the MLP; the hidden width is 2/3 as wide, rounded up to a multiple of 8."""


class Attention(nn.Module):
    """Multi-head self-attention with biases everywhere."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.heads = config.heads
        head_dim = config.dim // config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.q_norm = nn.LayerNorm(head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim) if config.qk_norm else nn.Identity()
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Float[Tensor, "B P C"], turn: Rotation | None = None) -> Float[Tensor, "B P C"]:
        tokens = x.shape[1]
        step = tokens if x.is_cuda else max(64, AT_ONCE // len(x))
        parts = []
        for start in range(0, tokens, step):
            span = slice(start, start + step)
            parts.append(self.split_heads(x[:, span], None if turn is None else (turn[0][span], turn[1][span])))
        q, k, v = (torch.cat(part, dim=2) if len(part) > 1 else part[0].contiguous() for part in zip(*parts, strict=True))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def split_heads(self, x: Float[Tensor, "B P C"], turn: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values head by head, each ``B H P D``; the CPU's kernel is 20% faster on them."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        return q.to(v.dtype), k.to(v.dtype), v


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim_in, dim_hidden)
        self.fc2 = nn.Linear(dim_hidden, dim_out)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return in_pieces(lambda some: self.fc2(F.gelu(self.fc1(some))), x)


class GatedMlp(nn.Module):
    """SwiGLU: silu(a) * b between two linear layers, a and b from one projection."""

    def __init__(self, dim: int, dim_hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * dim_hidden)
        self.w3 = nn.Linear(dim_hidden, dim)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return in_pieces(self._forward, x)

    def _forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        a, b = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(a) * b)


class ScaledSum(nn.Module):
    """Add a branch to a stream, multiplied by a learned vector (layer scale)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Float[Tensor, "*B C"], branch: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return torch.addcmul(x, branch.to(x.dtype), self.gamma)


class PlainSum(nn.Module):
    """Add a branch to a stream."""

    def forward(self, x: Float[Tensor, "*B C"], branch: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return x + branch


class Block(nn.Module):
    """Attention and MLP, each with a norm before and an optional layer scale after.

    ``x -> norm1 -> attention -> ls1 (+ x) -> norm2 -> mlp -> ls2 (+)``
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ls1 = ScaledSum(config.dim) if config.layer_scale else PlainSum()
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        hidden = config.mlp_ratio * config.dim
        self.mlp = GatedMlp(config.dim, (hidden * 2 // 3 + 7) // 8 * 8) if config.gated else Mlp(config.dim, hidden, config.dim)
        self.ls2 = ScaledSum(config.dim) if config.layer_scale else PlainSum()

    def forward(self, x: Float[Tensor, "B P C"], turn: Rotation | None = None) -> Float[Tensor, "B P C"]:
        x = self.ls1(x, self.attn(self.norm1(x), turn))
        return self.ls2(x, self.mlp(self.norm2(x)))


def per_view(block: nn.Module, tokens: Float[Tensor, "V P C"], turn: Rotation | None) -> Float[Tensor, "V P C"]:
    """Let each view attend to itself; the views are the batch."""
    return block(tokens, turn)


def all_views(block: nn.Module, tokens: Float[Tensor, "V P C"], turn: Rotation | None) -> Float[Tensor, "V P C"]:
    """Let every token attend to the tokens of all views, as one sequence.

    Args:
        turn: the rotation of one view's tokens, used for each view alike (no view index enters the position).
    """
    views = tokens.shape[0]
    if turn is not None:
        cos, sin = (table.repeat(views, 1, 1) for table in turn)
        turn = (cos, sin)
    return block(tokens.flatten(0, 1)[None], turn)[0].unflatten(0, (views, -1))
