"""Merge points that fall into one voxel, weighted by their confidence.

Input: points with features and raw confidences. Output: one point and feature per occupied voxel.
Does not: activate features; they are averaged as the network gives them.

Source: Jiang et al., AnySplat, 2025, section 3.3 (differentiable voxelisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPSILON = 1e-6
"""Added to the sum of weights; the weights of a voxel sum to slightly less than one."""


@dataclass(frozen=True, kw_only=True)
class Voxels:
    """Occupied voxels in lexicographic order of their index."""

    points_world: Float[Tensor, "M 3"]
    features: Float[Tensor, "M C"]
    index: Int[Tensor, "M 3"]
    """Voxel coordinates: round(point / size), halves to even."""
    counts: Int[Tensor, " M"]
    """Points in each voxel."""
    inverse: Int[Tensor, " N"]
    """Voxel of each point."""


def merge_voxels(
    points_world: Float[Tensor, "N 3"], features: Float[Tensor, "N C"], confidence: Float[Tensor, " N"], size: float
) -> Voxels:
    """Average points and features per voxel with softmax weights of the raw confidence.

    Args:
        confidence: raw, any range; only differences inside a voxel matter.
        size: side of a voxel in world units.
    """
    cells = (points_world.detach() / size).round().to(torch.int64)
    index, inverse, counts = _unique_cells(cells)
    peak = torch.full_like(confidence[: len(index)], -torch.inf).scatter_reduce(0, inverse, confidence, "amax")
    weight = (confidence - peak[inverse]).exp()
    total = torch.zeros_like(peak).index_add(0, inverse, weight)
    weight = (weight / (total[inverse] + EPSILON))[:, None]

    def average(values: Tensor) -> Tensor:
        return values.new_zeros(len(index), values.shape[1]).index_add(0, inverse, values * weight)

    return Voxels(points_world=average(points_world), features=average(features), index=index, counts=counts, inverse=inverse)


def _unique_cells(cells: Int[Tensor, "N 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Find the distinct rows in lexicographic order; packs a row into one integer where the spans allow, which sorts faster."""
    low = cells.amin(dim=0)
    spans = [int(span) for span in (cells.amax(dim=0) - low + 1)]
    if spans[0] * spans[1] * spans[2] >= 2**62:
        return torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    strides = torch.tensor([spans[1] * spans[2], spans[2], 1], device=cells.device)
    packed, inverse, counts = torch.unique(((cells - low) * strides).sum(dim=1), return_inverse=True, return_counts=True)
    rows = torch.stack((packed // strides[0], packed // strides[1] % spans[1], packed % spans[2]), dim=1)
    return rows + low, inverse, counts
