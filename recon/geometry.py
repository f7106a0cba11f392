"""Rotations, projection and colour constants shared by every room.

Input and output: torch tensors, batched over leading dimensions. Frames are named in every argument.
Does not: hold cameras or images.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SH_C0 = 0.28209479177387814
"""Zeroth real spherical harmonic, 1 / (2 sqrt(pi))."""


def rgb_to_sh0(rgb: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Colour in [0, 1] to the degree 0 SH coefficient of the 3DGS basis."""
    return (rgb - 0.5) / SH_C0


def sh0_to_rgb(sh0: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Degree 0 SH coefficient to the colour it stands for."""
    return sh0 * SH_C0 + 0.5


def quats_to_rotations(quats: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Quaternions wxyz (any norm > 0) to rotation matrices."""
    w, x, y, z = torch.unbind(quats / quats.norm(dim=-1, keepdim=True).clamp_min(1e-12), dim=-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def rotations_to_quats(R: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 4"]:
    """Rotation matrices to unit quaternions wxyz with w >= 0.

    Takes the largest of the four candidate pivots, so that no rotation is close to a division by zero.
    Source: Shepperd, "Quaternion from rotation matrix", J. Guidance and Control 1978.
    """
    m = R.reshape(-1, 9)
    xx, yy, zz = m[:, 0], m[:, 4], m[:, 8]
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, m[:, 7] - m[:, 5], m[:, 2] - m[:, 6], m[:, 3] - m[:, 1]], dim=-1),
            torch.stack([m[:, 7] - m[:, 5], 1 + xx - yy - zz, m[:, 1] + m[:, 3], m[:, 2] + m[:, 6]], dim=-1),
            torch.stack([m[:, 2] - m[:, 6], m[:, 1] + m[:, 3], 1 - xx + yy - zz, m[:, 5] + m[:, 7]], dim=-1),
            torch.stack([m[:, 3] - m[:, 1], m[:, 2] + m[:, 6], m[:, 5] + m[:, 7], 1 - xx - yy + zz], dim=-1),
        ],
        dim=1,
    )
    pivots = torch.stack([xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy], dim=-1)
    best = pivots.argmax(dim=-1)
    quats = candidates[torch.arange(len(m), device=m.device), best]
    quats = quats / quats.norm(dim=-1, keepdim=True)
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    return quats.reshape(*R.shape[:-2], 4)


def pixel_grid(height: int, width: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "H W 2"]:
    """Pixel centres (x, y), at +0.5, of an image."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32) + 0.5,
        torch.arange(width, device=device, dtype=torch.float32) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def rays_cam(pixels: Float[Tensor, "*N 2"], K: Float[Tensor, "3 3"]) -> Float[Tensor, "*N 3"]:
    """Directions in the camera frame with z = 1 through pixel positions."""
    x = (pixels[..., 0] - K[0, 2]) / K[0, 0]
    y = (pixels[..., 1] - K[1, 2]) / K[1, 1]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def backproject(depth: Float[Tensor, "H W"], K: Float[Tensor, "3 3"]) -> Float[Tensor, "H W 3"]:
    """z-depth of every pixel centre to points in the camera frame."""
    grid = pixel_grid(*depth.shape, device=depth.device).to(depth.dtype)
    return rays_cam(grid, K) * depth[..., None]


def transform(T_a_b: Float[Tensor, "4 4"], points_b: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Move points from frame b to frame a."""
    return points_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def project(points_cam: Float[Tensor, "*N 3"], K: Float[Tensor, "3 3"]) -> tuple[Float[Tensor, "*N 2"], Float[Tensor, "*N"]]:
    """Points in the camera frame to pixel positions and z-depth. Positions of points with z <= 0 are meaningless."""
    z = points_cam[..., 2]
    safe = torch.where(z.abs() < 1e-12, torch.full_like(z, 1e-12), z)
    x = points_cam[..., 0] / safe * K[0, 0] + K[0, 2]
    y = points_cam[..., 1] / safe * K[1, 1] + K[1, 2]
    return torch.stack([x, y], dim=-1), z


def inside_image(pixels: Float[Tensor, "*N 2"], width: int, height: int) -> Bool[Tensor, "*N"]:
    """True where a pixel position lies within the image."""
    x, y = pixels[..., 0], pixels[..., 1]
    return (x >= 0) & (y >= 0) & (x < width) & (y < height)


def sample_image(image: Float[Tensor, "H W C"], pixels: Float[Tensor, "*N 2"], *, mode: str = "bilinear") -> Float[Tensor, "*N C"]:
    """Read an image at pixel positions (centres at +0.5); positions outside take the border's value."""
    height, width = image.shape[:2]
    scale = pixels.new_tensor([2.0 / width, 2.0 / height])
    grid = (pixels.reshape(1, 1, -1, 2) * scale - 1.0).to(image.dtype)
    batch = image.permute(2, 0, 1)[None]
    taken = torch.nn.functional.grid_sample(batch, grid, mode=mode, padding_mode="border", align_corners=False)
    return taken[0, :, 0].T.reshape(*pixels.shape[:-1], image.shape[2])
