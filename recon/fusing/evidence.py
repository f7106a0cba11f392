"""What the other views say about a view's depth: agreement, free space, colour.

Input: depth and confidence of all views, cameras and photos. Output: per view an ``Evidence`` record.
Does not: remove or create anything; it measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..polishing.workers import over_rows
from ..posed import PosedViews
from . import kernels
from .kernels import AGREE_REL

__all__ = ["AGREE_REL", "CLIP_REL", "FLOATING", "Evidence", "at_photo_size", "gather_evidence"]

FLOATING = 0.3
"""Confidence-weighted number of neighbours that must see through a point, twice those that support it, to reject it."""
CLIP_REL = 0.1
"""Relative depth differences are clipped here before they are shown to the head."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Cross-view evidence about one view's depth map."""

    residuals: Float[Tensor, "H W 4"]
    """Depth disagreement with the best neighbour in [0, 1] (1 = CLIP_REL or unseen); support, the confidence-weighted
    share of neighbours that agree; violation, the share that see through the point; mean colour difference with
    agreeing neighbours in [0, 1] (0.5 where none agrees)."""
    depth: Float[Tensor, "H W"]
    """z-depth after averaging with the neighbours that agree."""
    trust: Float[Tensor, "H W"]
    """How much the depth can be relied on, in [0, 1]: own confidence raised by support, lowered by violation; 0 where the
    neighbours find the point's place empty."""


def at_photo_size(depth: Float[Tensor, "h w"], height: int, width: int, *, inverse: bool) -> Float[Tensor, "H W"]:
    """Bring a map to the photo's size; depth is interpolated as inverse depth, which is linear on planes."""
    if depth.shape == (height, width):
        return depth
    source = 1.0 / depth.clamp_min(1e-8) if inverse else depth
    resized = torch.nn.functional.interpolate(source[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    return 1.0 / resized.clamp_min(1e-8) if inverse else resized


def gather_evidence(
    posed: PosedViews,
    depth: Sequence[Float[Tensor, "_ _"]],
    confidence: Sequence[Float[Tensor, "_ _"]],
    neighbours: tuple[int, ...],
    index: int,
) -> Evidence:
    """Compare one view's depth map with its neighbours'.

    Every pixel is projected into each neighbour. Where the neighbour's depth agrees within about AGREE_REL it supports
    the pixel; where the neighbour looks past it, the pixel floats in space the neighbour found empty; where the
    neighbour stops short of it, the pixel is merely hidden there and nothing is learnt. Agreeing depths are averaged,
    weighted by confidence, along the pixel's own ray (to first order the ratio of neighbour depth to projected depth).
    """
    own_depth, own_confidence, image = depth[index].contiguous(), confidence[index], posed.image(index).contiguous()
    sums = torch.zeros(*own_depth.shape, 8)
    sums[..., kernels.LEAST] = CLIP_REL
    for j in neighbours:
        A, b = kernels.from_to(posed.cameras, index, j)
        given = (own_depth, image, A, b, depth[j].contiguous(), confidence[j].contiguous(), posed.image(j).contiguous(), sums)
        over_rows(kernels.compare, len(own_depth), *(t.numpy() for t in given))
    least, support, violation, informed, color_sum, color_weight, depth_sum, depth_weight = sums.unbind(-1)
    own_weight = own_confidence.clamp_min(0.05)
    depth_sum, depth_weight = depth_sum + own_depth * own_weight, depth_weight + own_weight
    share = informed.clamp_min(1e-3)
    residuals = torch.stack(
        [
            least / CLIP_REL,
            (support / share).clamp(0, 1),
            (violation / share).clamp(0, 1) * (informed > 0.05),
            torch.where(
                color_weight > 0.05, (color_sum / color_weight.clamp_min(1e-6)).clamp(0, 1), torch.full_like(own_depth, 0.5)
            ),
        ],
        dim=-1,
    )
    supported = 1 - (1 - own_confidence) * torch.exp(-1.5 * support)
    trust = supported * torch.exp(-1.5 * (violation - 0.5 * support).clamp_min(0))
    floating = (violation > FLOATING) & (violation > 2 * support)
    return Evidence(residuals=residuals, depth=depth_sum / depth_weight, trust=trust.clamp(0, 1) * ~floating)
