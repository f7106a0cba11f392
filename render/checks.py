"""What a rasteriser refuses, and how it says so.

Input: whatever a caller passed. Output: nothing, or a ``ValueError`` naming the argument, what was given and what was wanted.
Does not: look at single Gaussians; non-finite ones are dropped and counted while drawing.
"""

from __future__ import annotations

import torch

from recon.records import Cameras, Gaussians, RasterOptions

from .constants import TILE

MAX_SIDE = 16384
"""Pixels. A picture beyond this is a mistake in units."""
ROTATION_TOLERANCE = 1e-3
"""How far R R^T may be from the identity."""

_FLOATS = (torch.float32, torch.float64)


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise ValueError(message)


def check_gaussians(gaussians: Gaussians, device: torch.device) -> None:
    """Raise unless every tensor is float32 or float64 on ``device``."""
    _refuse(not isinstance(gaussians, Gaussians), f"gaussians: wanted a recon.records.Gaussians, got {type(gaussians).__name__}")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        tensor = getattr(gaussians, name)
        _refuse(tensor.dtype not in _FLOATS, f"gaussians.{name}: wanted float32 or float64, got {tensor.dtype}")
        _refuse(tensor.device.type != device.type, f"gaussians.{name}: wanted device {device.type}, got {tensor.device}")


def check_cameras(cameras: Cameras, device: torch.device) -> None:
    """Raise unless the cameras are undistorted pinholes of one common, sane size with rigid poses."""
    _refuse(not isinstance(cameras, Cameras), f"cameras: wanted a recon.records.Cameras, got {type(cameras).__name__}")
    _refuse(len(cameras) == 0, "cameras: wanted at least one, got none")
    for name in ("T_world_cam", "K"):
        tensor = getattr(cameras, name)
        _refuse(tensor.dtype not in _FLOATS, f"cameras.{name}: wanted float32 or float64, got {tensor.dtype}")
        _refuse(tensor.device.type != device.type, f"cameras.{name}: wanted device {device.type}, got {tensor.device}")
        _refuse(not bool(torch.isfinite(tensor).all()), f"cameras.{name}: wanted finite numbers, got NaN or infinity")
    sizes = sorted(set(zip(cameras.width, cameras.height, strict=True)))
    _refuse(len(sizes) > 1, f"cameras: one call draws one picture size, got {sizes}; call once per size")
    _refuse(max(sizes[0]) > MAX_SIDE, f"cameras: wanted sides up to {MAX_SIDE} px, got {sizes[0]}")
    K = cameras.K.detach().double()
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]])
    _refuse(bool((focal <= 0).any()), f"cameras.K: wanted focal lengths > 0 px, got {focal.min().item():g}")
    odd = torch.stack([K[:, 0, 1], K[:, 1, 0], K[:, 2, 0], K[:, 2, 1], K[:, 2, 2] - 1]).abs().max().item()
    _refuse(odd > 1e-6, "cameras.K: wanted [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got skew or another bottom row")
    R = cameras.T_world_cam.detach().double()[:, :3, :3]
    error = (R @ R.transpose(1, 2) - torch.eye(3, dtype=R.dtype, device=R.device)).abs().max().item()
    _refuse(error > ROTATION_TOLERANCE, f"cameras.T_world_cam: wanted rotations, got R R^T off the identity by {error:g}")
    _refuse(bool((torch.linalg.det(R) < 0).any()), "cameras.T_world_cam: wanted rotations, got a reflection")
    bottom = cameras.T_world_cam.detach().double()[:, 3] - torch.tensor([0.0, 0, 0, 1], dtype=R.dtype, device=R.device)
    _refuse(bool((bottom.abs() > 1e-6).any()), "cameras.T_world_cam: wanted a bottom row 0 0 0 1")
    distorted = cameras.distortion is not None and bool((cameras.distortion != 0).any())
    _refuse(distorted, "cameras.distortion: wanted pinhole cameras; draw a pinhole and resample it (recon.lens)")


def check_options(options: RasterOptions, cameras: Cameras) -> None:
    """Raise unless background, near, far, SH degree and tiles make sense for these cameras."""
    _refuse(not isinstance(options, RasterOptions), f"options: wanted a recon.records.RasterOptions, got {type(options).__name__}")
    _refuse(len(options.background) != 3, f"options.background: wanted 3 numbers, got {len(options.background)}")
    background = torch.tensor([float(b) for b in options.background])
    _refuse(not bool(torch.isfinite(background).all()), f"options.background: wanted finite numbers, got {options.background}")
    sane = 0.0 < options.near < options.far
    _refuse(not sane, f"options.near, options.far: wanted 0 < near < far, got {options.near} and {options.far}")
    degree = options.sh_degree
    _refuse(degree is not None and not 0 <= degree <= 3, f"options.sh_degree: wanted 0 to 3 or None, got {degree}")
    if options.tiles is not None:
        device = cameras.K.device
        wanted = (len(cameras), -(-cameras.height[0] // TILE), -(-cameras.width[0] // TILE))
        given = tuple(options.tiles.shape)
        _refuse(given != wanted, f"options.tiles: wanted shape {wanted} (views, tile rows, tile columns), got {given}")
        _refuse(options.tiles.dtype != torch.bool, f"options.tiles: wanted bool, got {options.tiles.dtype}")
        _refuse(options.tiles.device != device, f"options.tiles: wanted device {device}, got {options.tiles.device}")
