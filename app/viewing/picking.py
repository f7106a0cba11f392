"""What lies under a click.

Input: a ray of the page. Output: a point of the world.
Does not: know about browsers.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from recon.records import Cameras, Gaussians, Rasterizer, RasterOptions

from .page_frame import PageFrame

WINDOW_PX = 9
"""Pixels around the click that are looked at; the nearest to its middle counts."""
SOLID_ALPHA = 0.4
"""Where less than this is covered there is nothing to click on."""


def ray_camera(origin_world: Tensor, direction_world: Tensor, focal_px: float) -> Cameras:
    """A small camera that looks along a ray, ``WINDOW_PX`` pixels on each side."""
    forward = direction_world.double()
    side = torch.eye(3, dtype=torch.float64)[int(forward.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, side), dim=0)
    T_world_cam = torch.eye(4, dtype=torch.float64)
    T_world_cam[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    T_world_cam[:3, 3] = origin_world
    half = WINDOW_PX / 2
    K = torch.tensor([[focal_px, 0.0, half], [0.0, focal_px, half], [0.0, 0.0, 1.0]])
    return Cameras(T_world_cam=T_world_cam.float()[None], K=K[None], width=(WINDOW_PX,), height=(WINDOW_PX,))


def pick(
    gaussians: Gaussians,
    rasterizer: Rasterizer,
    frame: PageFrame,
    origin_page: np.ndarray,
    direction_page: np.ndarray,
    focal_px: float,
) -> Float[Tensor, " 3"] | None:
    """Find the surface along a ray: where half of the light is taken away.

    Args:
        focal_px: of the visitor's canvas; the window around the click then has its pixels.

    Returns:
        A point of the world, or None when nothing solid is there.
    """
    origin, direction = frame.to_world(origin_page), frame.direction_to_world(direction_page)
    camera = ray_camera(origin, direction, focal_px)
    with torch.no_grad():
        drawn = rasterizer(gaussians, camera, RasterOptions(near=0.05 / frame.scale, median_depth=True))
    assert drawn.median_depth is not None
    depth = torch.where(drawn.median_depth[0] > 0, drawn.median_depth[0], drawn.depth[0])
    offsets = torch.arange(WINDOW_PX) + 0.5 - WINDOW_PX / 2
    away = offsets[:, None] ** 2 + offsets[None] ** 2
    away = torch.where((drawn.alpha[0] >= SOLID_ALPHA) & (depth > 0), away, torch.inf)
    if not bool(away.isfinite().any()):
        return None
    row, column = divmod(int(away.argmin()), WINDOW_PX)
    z = float(depth[row, column])
    local = torch.tensor([float(offsets[column]) / focal_px, float(offsets[row]) / focal_px, 1.0], dtype=torch.float64) * z
    return camera.T_world_cam[0, :3, :3].double() @ local + origin
