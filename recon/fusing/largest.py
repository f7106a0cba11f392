"""The Gaussians of a scene that cover most.

Input: Gaussians, a number. Output: so many of them. Does not: look through cameras; ``recon.editing.strongest`` can.
"""

from __future__ import annotations

import torch

from ..records import Gaussians

__all__ = ["largest"]


def largest(gaussians: Gaussians, count: int) -> Gaussians:
    """Keep the ``count`` Gaussians with the largest opacity times cross-section, in their order."""
    if len(gaussians) <= count:
        return gaussians
    sides = gaussians.scales.sort(dim=1).values
    weight = gaussians.opacities * sides[:, 1] * sides[:, 2]
    return gaussians.select(torch.topk(weight, count).indices.sort().values)
