"""Turn a reconstruction so that down is +y, as people hold their cameras.

Input: cameras in an arbitrary world. Output: a rotation, and the result turned by it.
Does not: change scale or origin, or touch cameras the user gave.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from .records import Cameras

if TYPE_CHECKING:
    from .cameras.result import SfmResult

MIN_AGREEMENT = 0.3
"""Length of the mean up vector (1 = all agree) below which the cameras do not tell what is up."""


def mean_direction(directions: Float[Tensor, "V 3"], *, passes: int = 5) -> Float[Tensor, " 3"]:
    """Mean of unit vectors, re-weighted by agreement so that a few rolled cameras do not count."""
    weights = directions.new_ones(len(directions))
    mean = directions.mean(0)
    for _ in range(passes):
        mean = (directions * weights[:, None]).sum(0) / weights.sum().clamp_min(1e-12)
        unit = torch.nn.functional.normalize(mean, dim=0)
        weights = ((directions @ unit + 1) / 2).clamp_min(1e-3) ** 4
    return mean


def up_world(cameras: Cameras) -> Float[Tensor, " 3"]:
    """Unit up vector of the world, from the registered cameras.

    People roll their cameras little, so the images' x axes lie in the horizontal plane: up is the direction least spanned
    by them, on the side of the mean image up. Where the axes span no plane (all cameras alike), the mean image up is taken;
    where the cameras look straight down and their ups cancel, up is against the mean viewing direction.
    """
    kept = cameras.registered_mask
    R = cameras.T_world_cam[kept, :3, :3].double()
    ups = -R[:, :, 1]
    if float(ups.mean(0).norm()) < MIN_AGREEMENT:
        return torch.nn.functional.normalize(-mean_direction(R[:, :, 2]), dim=0)
    mean_up = torch.nn.functional.normalize(mean_direction(ups), dim=0)
    rights = R[:, :, 0]
    values, vectors = torch.linalg.eigh(rights.T @ rights / len(rights))
    candidate = vectors[:, 0] * torch.sign(vectors[:, 0] @ mean_up)
    spans_plane = values[1] > 0.05 and values[0] < 0.25 * values[1]
    return candidate if spans_plane and float(candidate @ mean_up) > 0.8 else mean_up


def upright_rotation(cameras: Cameras) -> Float[Tensor, "3 3"]:
    """The smallest rotation ``R_up_world`` that takes the world's up vector to -y."""
    a = up_world(cameras)
    b = torch.tensor([0.0, -1.0, 0.0], dtype=a.dtype)
    axis = torch.linalg.cross(a, b)
    cosine = float(a @ b)
    if cosine < -1 + 1e-9:
        return torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=a.dtype))
    x, y, z = axis.tolist()
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=a.dtype)
    return torch.eye(3, dtype=a.dtype) + skew + skew @ skew / (1 + cosine)


def turn(solved: SfmResult, R_up_world: Float[Tensor, "3 3"]) -> SfmResult:
    """Rotate cameras and points of a reconstruction into the upright world."""
    T = solved.cameras.T_world_cam.clone()
    R = R_up_world.to(T.dtype)
    kept = solved.cameras.registered_mask
    T[kept, :3] = R @ T[kept, :3]
    points = solved.points_world @ R_up_world.to(solved.points_world.dtype).T
    return replace(solved, cameras=replace(solved.cameras, T_world_cam=T), points_world=points)
