"""Between the scene's world and the page.

Input: viser's camera of a visitor. Output: ``Cameras`` in the world, and back.
Does not: move Gaussians; the page turns and scales what it shows.

    x_page = scale · R_page_world · x_world

Page units are world units times ``scale``. ``R_page_world`` is the identity until somebody says where up is. On the page up is -y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from recon.geometry import quats_to_rotations, rotations_to_quats
from recon.records import Cameras


@dataclass(frozen=True, kw_only=True)
class PageFrame:
    """Where the world is on the page."""

    scale: float
    """Page units per world unit."""
    R_page_world: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))
    """Rotation, float64."""

    def to_page(self, points_world: Tensor) -> np.ndarray:
        """Points ``... 3`` of the world on the page."""
        return (self.scale * (points_world.double() @ self.R_page_world.T)).numpy()

    def to_world(self, points_page: np.ndarray) -> Float[Tensor, "... 3"]:
        """Points ``... 3`` of the page in the world, float64."""
        return torch.as_tensor(np.asarray(points_page, np.float64)) @ self.R_page_world / self.scale

    def direction_to_world(self, direction_page: np.ndarray) -> Float[Tensor, " 3"]:
        """A direction of the page in the world, unit."""
        turned = torch.as_tensor(np.asarray(direction_page, np.float64)) @ self.R_page_world
        return torch.nn.functional.normalize(turned, dim=0)

    @property
    def wxyz(self) -> np.ndarray:
        """``R_page_world`` as a quaternion."""
        return rotations_to_quats(self.R_page_world[None])[0].numpy()


@dataclass(frozen=True, kw_only=True)
class Eye:
    """Where a visitor looks from, on the page."""

    wxyz: tuple[float, float, float, float]
    """Rotation camera to page, OpenCV axes."""
    position: tuple[float, float, float]
    """Centre, page units."""
    fov: float
    """Vertical, radians."""
    width: int
    """Of the canvas, pixels."""
    height: int
    """Likewise."""

    def sized(self, width: int, height: int) -> Eye:
        """The same view in another number of pixels."""
        return Eye(wxyz=self.wxyz, position=self.position, fov=self.fov, width=width, height=height)

    def fitted(self, long_side: int) -> Eye:
        """Shrink so that no side is longer than ``long_side``; sides stay at least 16 pixels."""
        factor = min(1.0, long_side / max(self.width, self.height))
        return self.sized(max(16, round(self.width * factor)), max(16, round(self.height * factor)))

    def turned(self, R: np.ndarray) -> Eye:
        """The eye after the page's world was turned by ``R`` about its origin."""
        R_page_cam = torch.from_numpy(R) @ quats_to_rotations(torch.tensor([self.wxyz], dtype=torch.float64))[0]
        w, x, y, z = rotations_to_quats(R_page_cam[None])[0].tolist()
        right, down, ahead = (R @ np.asarray(self.position)).tolist()
        return Eye(wxyz=(w, x, y, z), position=(right, down, ahead), fov=self.fov, width=self.width, height=self.height)

    def cameras(self, frame: PageFrame) -> Cameras:
        """One camera in the world."""
        R_page_cam = quats_to_rotations(torch.tensor([self.wxyz], dtype=torch.float64))[0]
        T_world_cam = torch.eye(4, dtype=torch.float64)
        T_world_cam[:3, :3] = frame.R_page_world.T @ R_page_cam
        T_world_cam[:3, 3] = frame.to_world(np.asarray(self.position))
        focal_px = self.height / (2.0 * math.tan(self.fov / 2.0))
        K = torch.tensor([[focal_px, 0.0, self.width / 2], [0.0, focal_px, self.height / 2], [0.0, 0.0, 1.0]])
        return Cameras(T_world_cam=T_world_cam.float()[None], K=K[None], width=(self.width,), height=(self.height,))


def vertical_fov(cameras: Cameras, index: int) -> float:
    """Vertical field of view of a camera, radians."""
    return float(2.0 * torch.atan(cameras.height[index] / (2.0 * cameras.K[index, 1, 1])))


def gaze(cameras: Cameras, index: int, frame: PageFrame, distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, point looked at (``distance`` ahead) and up vector of a camera, on the page."""
    T_world_cam = cameras.T_world_cam[index].double()
    position = frame.to_page(T_world_cam[:3, 3])
    R_page_cam = (frame.R_page_world @ T_world_cam[:3, :3]).numpy()
    return position, position + R_page_cam[:, 2] * distance, -R_page_cam[:, 1]


def camera_quaternion(cameras: Cameras, index: int, frame: PageFrame) -> np.ndarray:
    """Rotation camera to page as wxyz."""
    R_page_cam = frame.R_page_world @ cameras.T_world_cam[index, :3, :3].double()
    return rotations_to_quats(R_page_cam[None])[0].numpy()
