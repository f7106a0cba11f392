"""Which other views help to see depth in a view, chosen by geometry, never by file order.

Input: posed views. Output: for each view its best-overlapping neighbours, best first.
Does not: look at pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .depth_range import view_depths
from .geometry import inside_image, pixel_grid, project, rays_cam, transform
from .posed import PosedViews

IDEAL_ANGLE_DEG = 10.0
"""Parallax at which matching is both possible and precise."""
MAX_ANGLE_DEG = 60.0
"""Parallax past which patches no longer look alike."""


def parallax_weight(angle_deg: Tensor) -> Tensor:
    """Value of a triangulation angle: rises to 1 at the ideal angle, then falls to 0.

    Source: the two-sided Gaussian of MVSNet's view selection (Yao et al., ECCV 2018, section 4.1), with a hard end.
    """
    below = torch.exp(-((angle_deg - IDEAL_ANGLE_DEG) ** 2) / (2 * 5.0**2))
    above = torch.exp(-((angle_deg - IDEAL_ANGLE_DEG) ** 2) / (2 * 20.0**2))
    weight = torch.where(angle_deg < IDEAL_ANGLE_DEG, below, above)
    return torch.where(angle_deg > MAX_ANGLE_DEG, torch.zeros_like(weight), weight)


def probe_points_world(posed: PosedViews, index: int, depths: Float[Tensor, " D"]) -> Float[Tensor, "P 3"]:
    """A coarse frustum grid of one view, at a few depths it is likely to see."""
    cameras = posed.cameras
    grid = pixel_grid(6, 6).reshape(-1, 2) * torch.tensor([cameras.width[index] / 6, cameras.height[index] / 6])
    rays = rays_cam(grid, cameras.K[index].float())
    points_cam = (rays[None] * depths[:, None, None]).reshape(-1, 3)
    return transform(cameras.T_world_cam[index].float(), points_cam)


def overlap_scores(posed: PosedViews) -> Float[Tensor, "V V"]:
    """Score how much view j helps view i: shared sight of i's likely surface, weighted by parallax.

    Each view's likely surface is its sparse points when it has at least 30 of them, else a frustum grid at the depths
    that the camera geometry suggests.
    """
    views, cameras = len(posed), posed.cameras
    T_cam_world = cameras.T_cam_world.float()
    centers = cameras.centers_world.float()
    scores = torch.zeros(views, views)
    for i, depths in enumerate(view_depths(posed)):
        points = None
        if posed.points_world is not None and posed.visibility is not None and int(posed.visibility[i].sum()) >= 30:
            points = posed.points_world[posed.visibility[i]].float()
        if points is None:
            quantiles = torch.quantile(depths, torch.tensor([0.1, 0.5, 0.9]))
            points = probe_points_world(posed, i, quantiles)
        to_i = torch.nn.functional.normalize(centers[i] - points, dim=-1)
        for j in range(views):
            if i == j:
                continue
            pixels, z = project(transform(T_cam_world[j], points), cameras.K[j].float())
            seen = inside_image(pixels, cameras.width[j], cameras.height[j]) & (z > 0)
            to_j = torch.nn.functional.normalize(centers[j] - points, dim=-1)
            angle = torch.rad2deg(torch.acos((to_i * to_j).sum(-1).clamp(-1, 1)))
            scores[i, j] = (seen * parallax_weight(angle)).mean()
    return scores


def choose_neighbours(posed: PosedViews, *, count: int) -> tuple[tuple[int, ...], ...]:
    """Pick up to ``count`` neighbours per view, spread around it.

    Greedy: the best score first, then each further one is discounted by how close it stands to those already chosen,
    because two neighbours at one place say the same thing.

    Args:
        count: most neighbours per view, >= 1.
    Returns:
        Per view the indices of its neighbours, best first; empty when nothing overlaps.
    """
    if count < 1:
        raise ValueError(f"choose_neighbours: wanted count >= 1, got {count}")
    scores = overlap_scores(posed)
    centers = posed.cameras.centers_world.float()
    chosen: list[tuple[int, ...]] = []
    for i in range(len(posed)):
        left = scores[i].clone()
        left[i] = 0
        picked: list[int] = []
        while len(picked) < count:
            best = int(left.argmax())
            if left[best] <= 1e-4:
                break
            picked.append(best)
            left[best] = 0
            away = (centers - centers[best]).norm(dim=-1)
            own = (centers[i] - centers[best]).norm().clamp_min(1e-9)
            left = left * (away / (0.5 * own)).clamp(0.35, 1.0)
        chosen.append(tuple(picked))
    return tuple(chosen)
