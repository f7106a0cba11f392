"""The rasteriser on an NVIDIA GPU, through gsplat's kernels.

Input: checked ``Gaussians`` and ``Cameras`` on a CUDA device. Output: ``Rendering``.
gsplat is published as source: its kernels are built the first time it is imported where nvcc is found. Where they do not load,
``why_unavailable`` says so and the CPU kernels are used.
Does not: give gradients for ``K`` or median depth, which gsplat's kernels do not have; both are refused by name.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from . import twin
from .constants import BLUR_PX2, TILE


@cache
def why_unavailable() -> str:
    """Say why this machine cannot draw with CUDA; empty when it can."""
    if not torch.cuda.is_available():
        return "no CUDA device, or a torch built without CUDA"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            backend = importlib.import_module("gsplat.cuda._backend")
    except (ImportError, OSError, RuntimeError) as error:
        return f"gsplat does not load ({type(error).__name__}: {error})"
    if backend._C is None:
        return "gsplat's kernels are not built: it needs nvcc (a CUDA toolkit) the first time it is used"
    return ""


def _tile_mask(options: RasterOptions, cameras: Cameras) -> Tensor | None:
    """Pixels of wanted tiles, ``V H W``; None for all."""
    if options.tiles is None:
        return None
    pixels = options.tiles.repeat_interleave(TILE, dim=1).repeat_interleave(TILE, dim=2)
    return pixels[:, : cameras.height[0], : cameras.width[0]]


def _call(gaussians: Gaussians, cameras: Cameras, options: RasterOptions, **what: Any) -> tuple[Tensor, Tensor]:
    gsplat = importlib.import_module("gsplat")
    drawn, alpha, _ = gsplat.rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        viewmats=cameras.T_cam_world,
        Ks=cameras.K,
        width=cameras.width[0],
        height=cameras.height[0],
        near_plane=options.near,
        far_plane=options.far,
        eps2d=BLUR_PX2,
        packed=False,
        tile_size=TILE,
        rasterize_mode="antialiased" if options.antialiased else "classic",
        **what,
    )
    return drawn, alpha[..., 0]


def _contribution(gaussians: Gaussians, cameras: Cameras, options: RasterOptions, mask: Tensor | None) -> Tensor:
    """Sum of blending weights ``V N``: the gradient of the summed picture with respect to a colour of one channel."""
    still = gaussians.detach()
    rows = []
    for view in range(len(cameras)):
        with torch.enable_grad():
            ones = torch.ones_like(still.opacities[:, None]).requires_grad_()
            drawn, _ = _call(still, cameras.select([view]), options, colors=ones)
            total = drawn[..., 0].sum() if mask is None else (drawn[0, ..., 0] * mask[view]).sum()
            rows.append(torch.autograd.grad(total, ones)[0][:, 0])
    return torch.stack(rows)


def _normals(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Tensor:
    """Shortest axis of each Gaussian in the camera frame, facing the camera, blended; ``V H W 3``."""
    still, T_cam_world = gaussians.detach(), cameras.T_cam_world.detach()
    axes = twin.rotation_from_quaternion(still.quats)
    shortest = axes[torch.arange(len(still), device=axes.device), :, still.scales.argmin(dim=1)]
    turned = shortest @ T_cam_world[:, :3, :3].transpose(1, 2)
    means_cam = still.means @ T_cam_world[:, :3, :3].transpose(1, 2) + T_cam_world[:, None, :3, 3]
    facing = torch.where((turned * means_cam).sum(-1, keepdim=True) > 0, -turned, turned)
    return _call(still, cameras, options, colors=facing)[0]


def rasterize(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Rendering:
    """Draw checked Gaussians from checked cameras on their GPU.

    Raises:
        ValueError: median depth or a gradient for ``K`` is asked for.
    """
    if options.median_depth:
        raise ValueError('options.median_depth: wanted False with CUDA, got True; load_rasterizer("cpu") draws it')
    if cameras.K.requires_grad and torch.is_grad_enabled():
        raise ValueError('cameras.K: wanted no gradient with CUDA, got requires_grad; load_rasterizer("cpu") has one')
    gaussians = Gaussians(**{name: getattr(gaussians, name).float() for name in ("means", "quats", "scales", "opacities", "sh")})
    cameras = replace(cameras, T_world_cam=cameras.T_world_cam.float(), K=cameras.K.float())
    whole, sound = len(gaussians), twin.finite_mask(gaussians)
    kept = sound.nonzero()[:, 0]
    gaussians = gaussians if len(kept) == whole else gaussians.select(kept)
    degree = gaussians.sh_degree if options.sh_degree is None else min(options.sh_degree, gaussians.sh_degree)
    background = gaussians.means.new_tensor(options.background).expand(len(cameras), 3)
    drawn, alpha = _call(
        gaussians, cameras, options, colors=gaussians.sh, sh_degree=degree, backgrounds=background, render_mode="RGB+ED"
    )
    color, depth, mask = drawn[..., :3], drawn[..., 3], _tile_mask(options, cameras)
    normals = _normals(gaussians, cameras, options) if options.normals else None
    if mask is not None:
        color = torch.where(mask[..., None], color, background[:, None, None])
        alpha, depth = alpha * mask, depth * mask
        normals = None if normals is None else normals * mask[..., None]
    contribution = None
    if options.contribution:
        contribution = color.new_zeros(len(cameras), whole)
        contribution[:, kept] = _contribution(gaussians, cameras, options, mask)
    return Rendering(
        color=color,
        alpha=alpha,
        depth=depth,
        normals=normals,
        contribution=contribution,
        dropped=(whole - len(kept),) * len(cameras),
    )
