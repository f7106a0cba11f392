"""World axes: which way is up in a file, and moving a scene to where the reader expects it.

Input and output: ``Gaussians``, ``Cameras`` and similarities between frames.
Does not: read or write files.

Our world has y down (OpenCV, as COLMAP and the 3DGS PLY): SuperSplat, which turns PLY, SOG and .splat by 180 degrees about z,
shows such files upright. SPZ and glTF demand y up. A frame here is a rotation from our world to the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import quats_to_rotations, rotations_to_quats
from ..harmonics import rotate_sh
from ..records import Cameras, Gaussians

Y_DOWN = torch.eye(3)
Y_UP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

CONVENTIONS: Mapping[str, Tensor] = {
    "opencv": Y_DOWN,  # x right, y down, z forward: COLMAP, 3DGS, SuperSplat's files
    "opengl": Y_UP,  # x right, y up, z backward: glTF, SPZ, three.js, Unity importers
    "blender": Z_UP,  # x right, y forward, z up: Blender, CAD, 3D printing
}
"""Name -> R_file_world."""

UP_AXES = ("x", "-x", "y", "-y", "z", "-z")


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """x_new = scale · R_new_old · x_old + shift."""

    R_new_old: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3))
    """Proper rotation."""
    scale: float = 1.0
    """New units per old unit."""
    shift: Float[Tensor, " 3"] = field(default_factory=lambda: torch.zeros(3))
    """In new units."""

    def after(self, first: Similarity) -> Similarity:
        """Return the similarity that does ``first``, then this one."""
        return Similarity(
            R_new_old=self.R_new_old @ first.R_new_old,
            scale=self.scale * first.scale,
            shift=self.scale * (self.R_new_old @ first.shift) + self.shift,
        )

    def inverse(self) -> Similarity:
        """Return the similarity that undoes this one."""
        R_old_new = self.R_new_old.T
        return Similarity(R_new_old=R_old_new, scale=1.0 / self.scale, shift=-(R_old_new @ self.shift) / self.scale)

    @property
    def is_identity(self) -> bool:
        return bool(torch.equal(self.R_new_old, torch.eye(3))) and self.scale == 1.0 and not bool(self.shift.any())


def moved_points(points: Float[Tensor, "N 3"], move: Similarity) -> Float[Tensor, "N 3"]:
    """Apply a similarity to points."""
    return move.scale * (points @ move.R_new_old.T) + move.shift


def moved_gaussians(gaussians: Gaussians, move: Similarity) -> Gaussians:
    """Apply a similarity to a scene; SH turn along, so that every colour is seen from where it was seen before."""
    if move.is_identity:
        return gaussians
    R = move.R_new_old
    return Gaussians(
        means=moved_points(gaussians.means, move),
        quats=rotations_to_quats(R @ quats_to_rotations(gaussians.quats)),
        scales=gaussians.scales * move.scale,
        opacities=gaussians.opacities,
        sh=rotate_sh(gaussians.sh, R),
    )


def moved_cameras(cameras: Cameras, move: Similarity) -> Cameras:
    """Apply a similarity to cameras; what they see does not change."""
    kind = cameras.T_world_cam
    T_new_cam = kind.clone()
    T_new_cam[:, :3, :3] = move.R_new_old.to(kind) @ kind[:, :3, :3]
    T_new_cam[:, :3, 3] = move.scale * (kind[:, :3, 3] @ move.R_new_old.to(kind).T) + move.shift.to(kind)
    return replace(cameras, T_world_cam=T_new_cam)


def up_rotation(up: str, R_file_world: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Turn a file frame by the smallest rotation that brings its up direction to the named axis.

    Args:
        up: one of UP_AXES.
        R_file_world: the frame to start from.
    """
    if up not in UP_AXES:
        raise ValueError(f"up: wanted one of {', '.join(UP_AXES)}, got {up!r}")
    wanted = torch.zeros(3)
    wanted["xyz".index(up[-1])] = -1.0 if up.startswith("-") else 1.0
    current = R_file_world @ torch.tensor([0.0, -1.0, 0.0])
    return rotation_between(current, wanted) @ R_file_world


def rotation_between(start: Float[Tensor, " 3"], end: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """Smallest rotation that takes unit vector ``start`` to ``end``; opposite ones turn about x (or z when they are along x).

    Source: Rodrigues' formula with the cross product as axis.
    """
    cosine = float(start @ end)
    if cosine < -1.0 + 1e-6:
        about_x = abs(float(start[0])) < 0.9
        return torch.diag(torch.tensor([1.0, -1.0, -1.0] if about_x else [-1.0, -1.0, 1.0]))
    v = torch.linalg.cross(start, end)
    skew = torch.tensor([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
    return torch.eye(3) + skew + skew @ skew / (1.0 + cosine)
