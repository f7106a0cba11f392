"""The unit of a network's depth in the world of given cameras.

Input: depth maps of some views in the network's unit, the given cameras, sparse points. Output: one factor per view.
Does not: bend depth; a single factor per view keeps planes plane.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from recon.geometry import inside_image, project, sample_image, transform
from recon.posed import PosedViews
from recon.records import Cameras

LEAST_POINTS = 12
"""Sparse points a view needs for a factor of its own; otherwise it takes its group's."""


def match_unit(
    depth: Sequence[Tensor],
    T_world_cam_net: Float[Tensor, "G 4 4"],
    posed: PosedViews,
    cameras: Cameras,
    group: Sequence[int],
    depth_range: Float[Tensor, "V 2"],
) -> Float[Tensor, " G"]:
    """Find the factor that takes each view's depth to world units.

    Method: the median ratio of sparse point depth to predicted depth, per view; a view with few points takes the group's
    median; a group with few points takes the ratio of the spreads of the camera centres; without a spread, the ratio of the
    middle of the depth range to the median depth.

    Args:
        depth: depth maps ``H W`` in the network's unit, one per view of the group, each of its own size.
        T_world_cam_net: the cameras the network predicted for the group.
        cameras: given cameras of all views, at the sizes of the depth maps.
        group: view numbers.
        depth_range: near and far per view of all.
    """
    ratios = [point_ratios(maps, posed, cameras, view) for maps, view in zip(depth, group, strict=True)]
    together = torch.cat(ratios)
    if len(together) >= LEAST_POINTS:
        common = together.median()
    else:
        common = centre_ratio(T_world_cam_net[:, :3, 3], cameras.centers_world[list(group)])
        if common is None:
            middles = depth_range[list(group)].log().mean(dim=1).exp()
            common = (middles / torch.stack([maps.median() for maps in depth]).clamp_min(1e-12)).median()
    return torch.stack([own.median() if len(own) >= LEAST_POINTS else common for own in ratios]).float()


def point_ratios(depth: Float[Tensor, "H W"], posed: PosedViews, cameras: Cameras, view: int) -> Float[Tensor, " N"]:
    """Divide the depth of the sparse points a view observed by the depth predicted where they project."""
    if posed.points_world is None or posed.visibility is None:
        return torch.zeros(0)
    points_cam = transform(cameras.T_cam_world[view], posed.points_world[posed.visibility[view]].to(cameras.K))
    pixels, z = project(points_cam, cameras.K[view])
    usable = inside_image(pixels, cameras.width[view], cameras.height[view]) & (z > 0)
    found = sample_image(depth[..., None], pixels[usable].float(), mode="nearest")[:, 0]
    return z[usable].float() / found.clamp_min(1e-12)


def centre_ratio(predicted: Float[Tensor, "G 3"], given: Float[Tensor, "G 3"]) -> Float[Tensor, ""] | None:
    """Divide the spread of the given camera centres by that of the predicted ones; None when either has none."""
    spreads = [(c - c.mean(dim=0)).square().sum().sqrt().float() for c in (given, predicted)]
    if len(given) < 2 or min(float(s) for s in spreads) < 1e-9:
        return None
    return spreads[0] / spreads[1]
