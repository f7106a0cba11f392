"""What a mesh is made from: depth, colour and trust of every pixel, drawn from the Gaussians.

Input: ``Gaussians``, pinhole cameras, a rasteriser. Output: one ``DepthPicture`` per camera.
Does not: fuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import pixel_grid, rays_cam
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions

OPAQUE = 0.6
"""Pixels less opaque than this have no surface."""
GRAZING = 0.12
"""Cosine between ray and normal below which depth is not believed (83 degrees)."""
CLEAR = 0.2
"""Pixels less opaque than this show that nothing stands there."""
EDGE = 0.05
"""Relative difference of expected and median depth that tells the edge of an object, where both are of two surfaces."""


@dataclass(frozen=True, kw_only=True)
class DepthPicture:
    """One camera's view of the surface."""

    depth: Float[Tensor, "H W"]
    """Median z-depth; 0 where it is not believed."""
    seen: Float[Tensor, "H W"]
    """Median z-depth of all that is opaque, believed or not; infinite where nothing stands, 0 where it is not known."""
    color: Float[Tensor, "H W 3"]
    """Rendered colour in [0, 1], divided by opacity."""
    K: Float[Tensor, "3 3"]
    T_world_cam: Float[Tensor, "4 4"]


def draw_depths(gaussians: Gaussians, cameras: Cameras, rasterizer: Rasterizer, far: float) -> Iterator[DepthPicture]:
    """Draw depth and normals from every camera and drop what is thin, grazing or at an edge.

    Args:
        far: Gaussians farther from a camera than this are background and not drawn, world units. Behind a surface that is not
            quite opaque they would pull the expected depth away from the median and make all of it look like an edge.
    """
    options = RasterOptions(median_depth=True, normals=True, far=far)
    for index in range(len(cameras)):
        camera = cameras.select([index])
        with torch.no_grad():
            drawn = rasterizer(gaussians, camera, options)
        assert drawn.median_depth is not None
        assert drawn.normals is not None
        depth, alpha, normals = drawn.median_depth[0], drawn.alpha[0], drawn.normals[0]
        rays = rays_cam(pixel_grid(*depth.shape), camera.K[0].float())
        facing = -(normals * rays).sum(dim=-1) / (normals.norm(dim=-1) * rays.norm(dim=-1)).clamp_min(1e-9)
        edge = (drawn.depth[0] - depth).abs() > EDGE * depth
        trusted = (alpha > OPAQUE) & (depth > 0) & (facing > GRAZING) & ~edge
        nothing = torch.zeros_like(depth)
        yield DepthPicture(
            depth=torch.where(trusted, depth, nothing),
            seen=torch.where(alpha > OPAQUE, depth, torch.where(alpha < CLEAR, nothing + torch.inf, nothing)),
            color=(drawn.color[0] / alpha[..., None].clamp_min(0.1)).clamp(0, 1),
            K=camera.K[0].float(),
            T_world_cam=camera.T_world_cam[0].float(),
        )


def choose_voxel(gaussians: Gaussians, cameras: Cameras) -> float:
    """Choose the grid size: what two pixels measure at the typical distance, but at least 1/800 of the scene.

    A finer grid than the pixels would only reproduce their noise.
    """
    means = gaussians.means[:: max(1, len(gaussians) // 50_000)]
    eyes = cameras.centers_world.float()
    range_ = torch.cdist(means[:20_000], eyes).median()
    pixel = float(range_ / cameras.K[:, 0, 0].float().median())
    lower, upper = torch.quantile(means, torch.tensor([0.05, 0.95]), dim=0)
    return max(2.0 * pixel, float((upper - lower).norm()) / 800.0)


def as_numpy(value: Tensor) -> np.ndarray:
    """Contiguous numpy copy, for libraries that keep pointers."""
    return np.array(value.detach().cpu().numpy(), order="C")
