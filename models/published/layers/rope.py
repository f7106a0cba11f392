"""Rotary position encoding of tokens on a 2-D grid.

Input: integer grid positions, queries and keys. Output: rotated queries and keys.
Does not: know which token is special; the caller gives special tokens the position (0, 0), which rotates nothing.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

BASE = 100.0
"""Base of the frequencies, the same in every network of the family."""

Rotation = tuple[Float[Tensor, "P 2 F"], Float[Tensor, "P 2 F"]]
"""Cosine and sine per token, image axis (row, column) and frequency."""


@lru_cache(maxsize=32)
def grid_positions(rows: int, columns: int, specials: int) -> Int[Tensor, "P 2"]:
    """List (row + 1, column + 1) of each patch in row-major order, after ``specials`` tokens at (0, 0)."""
    row, column = torch.meshgrid(torch.arange(1, rows + 1), torch.arange(1, columns + 1), indexing="ij")
    patches = torch.stack((row, column), dim=-1).reshape(-1, 2)
    return torch.cat((patches.new_zeros(specials, 2), patches))


def rotation(positions: Int[Tensor, "P 2"], head_dim: int) -> Rotation:
    """Compute the angles of each token.

    The first half of a head's channels turns with the row, the second half with the column; inside a half, channel j is
    paired with channel j + F.

    Args:
        positions: (row, column) per token; (0, 0) leaves a token as it is.
        head_dim: channels per head, a multiple of 4.
    """
    frequencies = head_dim // 4
    steps = torch.arange(frequencies, dtype=torch.float32, device=positions.device) / frequencies
    angles = positions.float()[..., None] * (1.0 / BASE**steps)
    return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "B H P D"], turn: Rotation) -> Float[Tensor, "B H P D"]:
    """Rotate queries or keys laid out head by head."""
    cos, sin = (table.to(x.dtype) for table in turn)
    low, high = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    turned = torch.addcmul(low * cos, high, sin, value=-1.0), torch.addcmul(high * cos, low, sin)
    return torch.stack(turned, dim=-2).flatten(-3)
