"""What a mesh is made from: depth, colour and trust of every pixel, drawn from the Gaussians.

Input: ``Gaussians``, pinhole cameras, a rasteriser. Output: one ``DepthPicture`` per camera.
Does not: fuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import backproject, pixel_grid, rays_cam, transform
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions

OPAQUE = 0.6
"""Pixels less opaque than this have no surface."""
GRAZING = 0.12
"""Cosine between ray and normal below which depth is not believed (83 degrees)."""
CLEAR = 0.2
"""Pixels less opaque than this show that nothing stands there."""
EDGE = 0.05
"""Relative difference of expected and median depth that tells the edge of an object, where both are of two surfaces."""
GAP_WINDOW, GAP_ROUNDS = 9, 2
"""Gaps between splats are filled from this many pixels around, so many times over."""
GAP_SHARE, GAP_RANGE, GAP_SLACK = 0.25, 0.05, 0.01
"""Share of the window that must be believed, how far its depths may lie apart, and how far beyond them the gap's own may lie."""
FAINT = 0.02
"""Gaps less opaque than this show nothing of the surface."""
RAW_FACES = 3.0
"""Triangles of the raw surface for each one asked for: fewer lose detail, more only cost time to simplify."""
FACES_PER_CELL = 2.1
"""Triangles that marching cubes puts where the surface passes through one square of the grid, measured."""
AREA_SIDE, AREA_VIEWS, AREA_CELLS = 160, 6, 8.0
"""Pictures the area of the surface is estimated from, and the cells it is counted in, in sizes of the grid."""
CELLS_PER_SQUARE = 1.5
"""Cells that a plane of random direction touches, for each square of its area."""


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
        believed = fill_gaps(torch.where(trusted, depth, nothing), drawn.depth[0], alpha)
        seen = torch.where(alpha > OPAQUE, depth, torch.where(alpha < CLEAR, nothing + torch.inf, nothing))
        yield DepthPicture(
            depth=believed,
            seen=torch.where(believed > 0, believed, seen),
            color=(drawn.color[0] / alpha[..., None].clamp_min(FAINT)).clamp(0, 1),
            K=camera.K[0].float(),
            T_world_cam=camera.T_world_cam[0].float(),
        )


def fill_gaps(depth: Float[Tensor, "H W"], expected: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Believe the expected depth in the small gaps that splats leave between them: where all around is one surface, and what
    little the gap shows lies on it too. Without that a wall has holes of a few grid cells.

    Args:
        depth: 0 where it is not believed.
        expected: mean depth of what a pixel shows, however little.
        alpha: coverage.
    """
    filled, between, shown = as_numpy(depth), as_numpy(expected), as_numpy(alpha) > FAINT
    window = np.ones((GAP_WINDOW, GAP_WINDOW), np.uint8)
    for _ in range(GAP_ROUNDS):
        known = filled > 0
        farthest = cv2.dilate(filled, window)  # unknown depth is 0
        nearest = cv2.erode(np.where(known, filled, np.float32(np.inf)), window)
        share = cv2.blur(known.astype(np.float32), window.shape, borderType=cv2.BORDER_CONSTANT)
        one_surface = (share >= GAP_SHARE) & (farthest - nearest < GAP_RANGE * farthest)
        on_it = (between > nearest * (1 - GAP_SLACK)) & (between < farthest * (1 + GAP_SLACK))
        filled = np.where(~known & shown & one_surface & on_it, between, filled)
    return torch.from_numpy(filled)


def voxel_for(faces: int, gaussians: Gaussians, cameras: Cameras, pictures: Sequence[DepthPicture]) -> float:
    """Choose the grid size for a mesh that will have at most ``faces`` triangles: that of the data (``choose_voxel``), or coarser
    where so fine a grid would give many times as many triangles as may stay.

    Args:
        pictures: of ``cameras``; the area of the surface is estimated from a few of them.
    """
    finest = choose_voxel(gaussians, cameras)
    cell = AREA_CELLS * finest
    cells = []
    for index in torch.linspace(0, len(pictures) - 1, min(AREA_VIEWS, len(pictures))).round().long().tolist():
        picture = pictures[index]
        stride = max(1, max(picture.depth.shape) // AREA_SIDE)
        points_cam, believed = backproject(picture.depth, picture.K)[::stride, ::stride], picture.depth[::stride, ::stride] > 0
        at = transform(picture.T_world_cam, points_cam[believed])
        cells.append(torch.unique((at / cell).floor().long(), dim=0))
    area = len(torch.unique(torch.cat(cells), dim=0)) * cell**2 / CELLS_PER_SQUARE
    return max(finest, (FACES_PER_CELL * area / (RAW_FACES * faces)) ** 0.5)


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
