"""The rasteriser in plain torch: slow, readable, float64-capable. This file defines what every other implementation must draw.

Input: ``Gaussians`` and ``Cameras`` of any one floating type and device. Output: ``Rendering``; autograd gives the gradients.
Every pixel looks at every visible Gaussian: no tiles, no extents, no early exit. Memory is pixels x Gaussians in blocks.
Does not: hurry. 10k Gaussians at 64x64 take a second or so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from .constants import ALPHA_CAP, ALPHA_MIN, BLUR_PX2, JACOBIAN_MARGIN, TILE, TRANSMITTANCE_STOP
from .kernels.sh import SH_C0, SH_C1, SH_C2, SH_C3

_BLOCK = 4_000_000
"""Pixel-Gaussian pairs looked at together."""


@dataclass(frozen=True)
class Splats:
    """Visible Gaussians of one view, nearest first."""

    ids: Tensor
    """Index into the Gaussians, M."""
    means_px: Tensor
    """Projected centres, M 2."""
    conics: Tensor
    """Inverse blurred covariance xx, xy, yy; M 3."""
    depths: Tensor
    """z in the camera frame, M."""
    opacities: Tensor
    """After compensation when antialiased, M."""
    colors: Tensor
    """M 3."""
    normals: Tensor
    """Shortest axis in the camera frame, facing the camera; M 3."""


def rotation_from_quaternion(quats: Tensor) -> Tensor:
    """Rotation matrices ``N 3 3`` of wxyz quaternions of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def sh_basis(count: int, directions: Tensor) -> Tensor:
    """First ``count`` SH basis values ``N count`` of unit directions ``N 3``, in 3DGS order and signs."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [torch.full_like(x, SH_C0), -SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    values += [SH_C2[0] * x * y, -SH_C2[0] * y * z, SH_C2[1] * (3 * zz - 1), -SH_C2[0] * x * z, SH_C2[2] * (xx - yy)]
    values += [-SH_C3[0] * y * (3 * xx - yy), SH_C3[1] * x * y * z, -SH_C3[2] * y * (5 * zz - 1), SH_C3[3] * z * (5 * zz - 3)]
    values += [-SH_C3[2] * x * (5 * zz - 1), SH_C3[4] * z * (xx - yy), -SH_C3[0] * x * (xx - 3 * yy)]
    return torch.stack(values[:count], dim=-1)


def finite_mask(gaussians: Gaussians) -> Tensor:
    """True for Gaussians that can be drawn at all: finite, a quaternion with a direction, and opacity within [0, 1]."""
    mask = (gaussians.opacities >= 0) & (gaussians.opacities <= 1)
    for tensor in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.sh):
        mask &= torch.isfinite(tensor.flatten(1)).all(dim=1)
    return mask & (gaussians.quats != 0).any(dim=1)


def project(gaussians: Gaussians, cameras: Cameras, view: int, options: RasterOptions) -> Splats:
    """Project, shade and sort the Gaussians that may be seen.

    Source: Zwicker et al., EWA Splatting, 2001; Kerbl et al. 2023; opacity compensation from Yu et al., Mip-Splatting, 2024.
    """
    width, height = cameras.width[view], cameras.height[view]
    T_cam_world, K = cameras.T_cam_world[view], cameras.K[view]
    R_cam_world, t_cam_world = T_cam_world[:3, :3], T_cam_world[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    means_cam = gaussians.means @ R_cam_world.T + t_cam_world
    keep = finite_mask(gaussians) & (means_cam[:, 2] >= options.near) & (means_cam[:, 2] <= options.far)
    ids = keep.nonzero()[:, 0]
    # Depth order is that of float32 depths; ties keep the order of the Gaussians.
    ids = ids[torch.argsort(means_cam[ids, 2].float(), stable=True)]
    means, (x, y, z) = gaussians.means[ids], means_cam[ids].unbind(-1)

    margin_x, margin_y = JACOBIAN_MARGIN * 0.5 * width / fx, JACOBIAN_MARGIN * 0.5 * height / fy
    ray_x = torch.maximum(torch.minimum(x / z, (width - cx) / fx + margin_x), -(cx / fx + margin_x))
    ray_y = torch.maximum(torch.minimum(y / z, (height - cy) / fy + margin_y), -(cy / fy + margin_y))
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * ray_x / z, zero, fy / z, -fy * ray_y / z], dim=-1).reshape(-1, 2, 3)
    R_cam_local = R_cam_world @ rotation_from_quaternion(gaussians.quats[ids])
    axes = jacobian @ (R_cam_local * gaussians.scales[ids][:, None, :])
    sharp = axes @ axes.transpose(1, 2)
    xx, xy, yy = sharp[:, 0, 0] + BLUR_PX2, sharp[:, 0, 1], sharp[:, 1, 1] + BLUR_PX2
    det = xx * yy - xy * xy
    opacities = gaussians.opacities[ids]
    if options.antialiased:
        det_sharp = torch.linalg.cross(axes[:, 0], axes[:, 1]).square().sum(-1)
        opacities = opacities * torch.sqrt(torch.clamp(det_sharp, min=1e-30) / det)

    directions = torch.nn.functional.normalize(means - cameras.T_world_cam[view, :3, 3], dim=-1)
    degree = gaussians.sh_degree if options.sh_degree is None else min(options.sh_degree, gaussians.sh_degree)
    count = (degree + 1) ** 2
    colors = (sh_basis(count, directions)[:, :, None] * gaussians.sh[ids, :count]).sum(dim=1) + 0.5
    normals = R_cam_local[torch.arange(len(ids)), :, gaussians.scales[ids].argmin(dim=1)]
    normals = torch.where((normals * means_cam[ids]).sum(-1, keepdim=True) > 0, -normals, normals)
    return Splats(
        ids=ids,
        means_px=torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1),
        conics=torch.stack([yy / det, -xy / det, xx / det], dim=-1),
        depths=z,
        opacities=opacities,
        colors=colors.clamp(min=0),
        normals=normals,
    )


def blending_weights(splats: Splats, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights ``P M`` and final transmittance ``P`` at pixel centres ``P 2``."""
    dx, dy = (pixels[:, None, :] - splats.means_px[None]).unbind(-1)
    a, b, c = splats.conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (splats.opacities * torch.exp(-sigma)).clamp(max=ALPHA_CAP)
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=1)
    # Transmittance only falls, so "the next one is above the stop" is also "no earlier hit was refused".
    alpha = torch.where(after > TRANSMITTANCE_STOP, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return alpha * before, (after[:, -1] if after.shape[1] else torch.ones_like(pixels[:, 0]))


def _draw_pixels(splats: Splats, pixels: Tensor, options: RasterOptions) -> tuple[Tensor, ...]:
    weights, through = blending_weights(splats, pixels)
    background = pixels.new_tensor(options.background)
    color = weights @ splats.colors + through[:, None] * background
    alpha = 1 - through
    depth = (weights @ splats.depths) / alpha.clamp(min=1e-10)
    passed = (1 - weights.detach().cumsum(dim=1)) <= 0.5
    median = torch.zeros_like(depth)
    if weights.shape[1]:
        median = torch.where(passed.any(dim=1), splats.depths[passed.int().argmax(dim=1)].detach(), median)
    normals = weights.detach() @ splats.normals.detach()
    return color, alpha, depth, median, normals, weights.detach().sum(dim=0)


def _drawn_pixels(width: int, height: int, tiles: Tensor | None) -> Tensor:
    """Row-major indices of the pixels in wanted tiles."""
    if tiles is None:
        return torch.arange(width * height)
    rows = torch.arange(height)[:, None] // TILE
    columns = torch.arange(width)[None] // TILE
    return tiles[rows, columns].reshape(-1).nonzero()[:, 0]


def _draw_view(gaussians: Gaussians, cameras: Cameras, view: int, options: RasterOptions) -> tuple[Tensor, ...]:
    width, height = cameras.width[view], cameras.height[view]
    splats = project(gaussians, cameras, view, options)
    wanted = _drawn_pixels(width, height, None if options.tiles is None else options.tiles[view]).to(gaussians.means.device)
    centers = torch.stack([wanted % width, wanted // width], dim=-1).to(gaussians.means.dtype) + 0.5
    block = max(1, _BLOCK // max(1, len(splats.ids)))
    parts = [_draw_pixels(splats, centers[i : i + block], options) for i in range(0, len(centers), block)]
    new = gaussians.means.new_zeros
    pictures = [
        new(width * height, 3) + gaussians.means.new_tensor(options.background),
        new(width * height),
        new(width * height),
        new(width * height),
        new(width * height, 3),
    ]
    for k in range(5):
        if parts:
            pictures[k] = pictures[k].index_put((wanted,), torch.cat([part[k] for part in parts]))
        pictures[k] = pictures[k].reshape(height, width, *pictures[k].shape[1:])
    contribution = new(len(gaussians))
    for part in parts:
        contribution = contribution.index_add(0, splats.ids, part[5])
    return (*pictures, contribution)


def rasterize(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Rendering:
    """Draw checked Gaussians from checked cameras, by definition."""
    views = [_draw_view(gaussians, cameras, view, options) for view in range(len(cameras))]
    color, alpha, depth, median, normals, contribution = (torch.stack(parts) for parts in zip(*views, strict=True))
    return Rendering(
        color=color,
        alpha=alpha,
        depth=depth,
        median_depth=median if options.median_depth else None,
        normals=normals if options.normals else None,
        contribution=contribution if options.contribution else None,
        dropped=(int((~finite_mask(gaussians)).sum()),) * len(cameras),
    )
