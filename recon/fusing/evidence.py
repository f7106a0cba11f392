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

from ..geometry import backproject, inside_image, project, sample_image, transform
from ..posed import PosedViews

AGREE_REL = 0.015
"""Relative depth difference at which agreement has fallen to 1/e."""
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
    cameras = posed.cameras
    T_cam_world = cameras.T_cam_world.float()
    own_depth, own_confidence, image = depth[index], confidence[index], posed.image(index)
    points_world = transform(cameras.T_world_cam[index].float(), backproject(own_depth, cameras.K[index].float()))
    least = torch.full_like(own_depth, CLIP_REL)
    support, violation, informed = (torch.zeros_like(own_depth) for _ in range(3))
    color_sum, color_weight = torch.zeros_like(own_depth), torch.zeros_like(own_depth)
    depth_sum, depth_weight = own_depth * own_confidence.clamp_min(0.05), own_confidence.clamp_min(0.05).clone()
    for j in neighbours:
        pixels, z = project(transform(T_cam_world[j], points_world), cameras.K[j].float())
        seen = inside_image(pixels, cameras.width[j], cameras.height[j]) & (z > 0)
        there = sample_image(torch.stack([depth[j], confidence[j]], dim=-1), pixels)
        other_depth, other_confidence = there[..., 0], there[..., 1] * seen
        relative = (z - other_depth) / z.clamp_min(1e-8)
        agree = torch.exp(-((relative / AGREE_REL) ** 2))
        through = ((relative < -3 * AGREE_REL) & seen).float()
        least = torch.where(seen, torch.minimum(least, relative.abs()), least)
        hidden = (relative > 3 * AGREE_REL).float()
        support += other_confidence * agree
        violation += other_confidence * through
        informed += other_confidence * (1 - hidden)
        color = (sample_image(posed.image(j), pixels) - image).abs().mean(-1)
        weight = other_confidence * agree
        color_sum += color * weight
        color_weight += weight
        depth_sum += weight * own_depth * (other_depth / z.clamp_min(1e-8))
        depth_weight += weight
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
