"""How near and how far each view can see something.

Input: posed views, with sparse points when structure from motion gave any. Output: near and far z-depth per view.
Does not: look at pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .geometry import inside_image, project, transform
from .posed import PosedViews

MIN_POINTS = 20
"""Fewer sparse points than this in a view say too little about its range."""
GEOMETRY_NEAR, GEOMETRY_FAR = 0.25, 8.0
"""Without points: the range, in multiples of the depth at which the cameras look together."""


def view_depths(posed: PosedViews) -> list[Float[Tensor, " D"]]:
    """z-depths of what each view is likely to see: its sparse points, else the camera geometry's guess.

    Points that a view observed come first; a view with too few of them takes all points that project into it.
    """
    cameras = posed.cameras
    T_cam_world = cameras.T_cam_world.float()
    guess = geometry_depth(posed)
    depths: list[Tensor] = []
    for i in range(len(posed)):
        z = torch.empty(0)
        if posed.points_world is not None and len(posed.points_world):
            points = posed.points_world.float()
            observed = posed.visibility[i] if posed.visibility is not None else torch.ones(len(points), dtype=torch.bool)
            pixels, all_z = project(transform(T_cam_world[i], points), cameras.K[i].float())
            inside = inside_image(pixels, cameras.width[i], cameras.height[i]) & (all_z > 0)
            z = all_z[inside & observed]
            if len(z) < MIN_POINTS:
                z = all_z[inside]
        if len(z) < MIN_POINTS:
            z = guess[i] * torch.tensor([GEOMETRY_NEAR, 0.5, 1.0, 2.0, GEOMETRY_FAR])
        depths.append(z)
    return depths


def geometry_depth(posed: PosedViews) -> Float[Tensor, " V"]:
    """Typical scene depth per view from the cameras alone.

    Least-squares meeting point of the optical axes; where the axes hardly meet (forward-facing captures), four times
    the median camera distance, a common parallax of hand-held captures.
    """
    centers = posed.cameras.centers_world.double()
    axes = posed.cameras.T_world_cam[:, :3, 2].double()
    spread = (centers[:, None] - centers[None]).norm(dim=-1)
    baseline = float(spread[spread > 0].median()) if (spread > 0).any() else 1.0
    P = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    A, b = P.sum(0), (P @ centers[:, :, None]).sum(0)
    meeting = torch.linalg.lstsq(A, b).solution[:, 0]
    along = ((meeting - centers) * axes).sum(-1)
    conditioned = torch.linalg.eigvalsh(A)[0] > 0.02 * len(centers)
    fallback = torch.full_like(along, 4.0 * baseline)
    usable = conditioned & (along > 0.5 * baseline)
    return torch.where(usable, along, fallback).float()


def choose_depth_range(posed: PosedViews) -> Float[Tensor, "V 2"]:
    """Near and far z-depth per view with room around what the sparse points show.

    The 1% and 99% quantiles are widened, because sparse points miss plain surfaces, and far more so at the far end.
    """
    ranges = []
    for z in view_depths(posed):
        low, high = torch.quantile(z, torch.tensor([0.01, 0.98])).tolist()
        ranges.append((0.75 * low, max(1.6 * high, 2.0 * low)))
    return torch.tensor(ranges, dtype=torch.float32)
