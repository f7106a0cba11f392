"""Small corrections of camera positions, rotations and focal lengths while polishing.

Input: gradients of the loss with respect to ``T_world_cam`` and ``K`` of the view just drawn. Output: cameras, changed in place.
The world does not drift: after every round the mean position, mean rotation and spread of the cameras are put back.
Does not: touch what the user gave (the caller leaves it out), or estimate distortion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..records import Cameras
from .adam import EPSILON

FIRST, SECOND = 0.8, 0.95
"""Decay of the running means: a view is seen every few dozen steps only."""


@dataclass(frozen=True, kw_only=True)
class CameraRates:
    """Steps of the camera corrections."""

    rotation_rad: float = 6e-4
    """Rotation per step, radians; positions move by this times the scene's median distance."""
    focal: float = 4e-4
    """Relative change of a focal length per step."""


def hat(v: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3 3"]:
    """Cross-product matrix."""
    zero = torch.zeros_like(v[..., 0])
    x, y, z = v.unbind(-1)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*v.shape[:-1], 3, 3)


def rotate(R: Float[Tensor, "*N 3 3"], turn: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3 3"]:
    """R exp(turn), turn in the local frame, radians."""
    return R @ torch.linalg.matrix_exp(hat(turn))


def rotation_vector(R: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 3"]:
    """Axis times angle of rotations by less than pi / 2."""
    axis = 0.5 * torch.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], dim=-1)
    sine = axis.norm(dim=-1, keepdim=True)
    return axis * torch.where(sine > 1e-8, torch.asin(sine.clamp(max=1.0)) / sine.clamp_min(1e-12), torch.ones_like(sine))


class CameraState:
    """Cameras that can be moved a little.

    Args:
        cameras: where they start.
        distance: median distance from the cameras to what they see, world units.
        move: whether positions and rotations may change.
        zoom: whether focal lengths may change; views that start with one K share one change.
    """

    def __init__(self, cameras: Cameras, *, distance: float, move: bool, zoom: bool, rates: CameraRates | None = None) -> None:
        self.T_world_cam = cameras.T_world_cam.float().clone()
        self.K = cameras.K.float().clone()
        self.move, self.zoom = move, zoom
        self.rates = rates or CameraRates()
        self.distance = distance
        self._T_start, self._K_start = self.T_world_cam.clone(), self.K.clone()
        _, self.group = torch.unique(self._K_start.reshape(-1, 9).round(decimals=3), dim=0, return_inverse=True)
        groups = int(self.group.max()) + 1 if len(self.K) else 0
        views, device = len(self.K), self.K.device
        self.log_zoom = torch.zeros(groups, device=device)
        self._memory = torch.zeros(2, views, 6, device=device)
        self._zoom_memory = torch.zeros(2, groups, device=device)
        self._steps = torch.zeros(views, device=device)
        self._zoom_steps = torch.zeros(groups, device=device)

    @property
    def moving(self) -> bool:
        return self.move or self.zoom

    def step(self, view: int, g_T: Float[Tensor, "4 4"], g_K: Float[Tensor, "3 3"], share: float) -> None:
        """Move one camera against its gradient.

        The derivative with respect to a local twist (rho, phi), T <- T exp(twist), is R^T g_t for rho and the antisymmetric
        part of R^T g_R for phi. Source: Sola et al., "A micro Lie theory", 2018, section II.

        Args:
            share: factor on the rates.
        """
        if not (torch.isfinite(g_T).all() and torch.isfinite(g_K).all()):
            return
        if self.move:
            R = self.T_world_cam[view, :3, :3]
            M = R.T @ g_T[:3, :3]
            phi = torch.stack([M[2, 1] - M[1, 2], M[0, 2] - M[2, 0], M[1, 0] - M[0, 1]])
            gradient = torch.cat([R.T @ g_T[:3, 3] * self.distance, phi])
            self._steps[view] += 1
            twist = -self.rates.rotation_rad * share * _adam(self._memory[:, view], gradient, float(self._steps[view]))
            self.T_world_cam[view, :3, 3] += R @ twist[:3] * self.distance
            self.T_world_cam[view, :3, :3] = rotate(R, twist[3:])
        if self.zoom:
            g = int(self.group[view])
            gradient = g_K[0, 0] * self.K[view, 0, 0] + g_K[1, 1] * self.K[view, 1, 1]
            self._zoom_steps[g] += 1
            members = max(1, int((self.group == g).sum()))
            change = _adam(self._zoom_memory[:, g], gradient, float(self._zoom_steps[g]))
            self.log_zoom[g] -= self.rates.focal * share * change / members**0.5
            self._apply_zoom()

    def _apply_zoom(self) -> None:
        factor = self.log_zoom.exp()[self.group]
        self.K[:, 0, 0] = self._K_start[:, 0, 0] * factor
        self.K[:, 1, 1] = self._K_start[:, 1, 1] * factor

    def settle(self, views: list[int]) -> None:
        """Put the mean position, mean rotation and spread of ``views`` back where they started.

        With T' = S T for one similarity S, the picture does not change when the Gaussians move along; they follow within
        the next steps because S differs from the identity by less than one step.
        """
        if not self.move or len(views) < 2:
            return
        now, start = self.T_world_cam[views], self._T_start[views]
        turn = rotation_vector(now[:, :3, :3] @ start[:, :3, :3].transpose(1, 2)).mean(0)
        R_back = torch.linalg.matrix_exp(hat(-turn))
        center_now, center_start = now[:, :3, 3].mean(0), start[:, :3, 3].mean(0)
        spread_now = (now[:, :3, 3] - center_now).norm()
        scale = (start[:, :3, 3] - center_start).norm() / spread_now.clamp_min(1e-12) if float(spread_now) > 1e-9 else 1.0
        moved = self.T_world_cam[views]
        moved[:, :3, :3] = R_back @ now[:, :3, :3]
        moved[:, :3, 3] = center_start + scale * (now[:, :3, 3] - center_now) @ R_back.T
        self.T_world_cam[views] = moved

    def changes(self, views: list[int]) -> dict[str, float]:
        """How far the cameras went: degrees, share of the median distance, relative focal change; means over ``views``."""
        now, start = self.T_world_cam[views], self._T_start[views]
        turn = rotation_vector(now[:, :3, :3] @ start[:, :3, :3].transpose(1, 2)).norm(dim=1).mean()
        moved = (now[:, :3, 3] - start[:, :3, 3]).norm(dim=1).mean()
        return {
            "rotation_deg": float(torch.rad2deg(turn)),
            "position_share": float(moved) / max(self.distance, 1e-12),
            "focal_share": float((self.log_zoom.exp() - 1).abs().mean()) if len(self.log_zoom) else 0.0,
        }

    def cameras(self, like: Cameras) -> Cameras:
        """The present cameras, with sizes and names of ``like``."""
        return Cameras(
            T_world_cam=self.T_world_cam.detach().cpu().clone(),
            K=self.K.detach().cpu().clone(),
            width=like.width,
            height=like.height,
            names=like.names,
        )


def _adam(memory: Tensor, gradient: Tensor, n: float) -> Tensor:
    """Update the running means in place; returns the step of rate 1."""
    memory[0] = FIRST * memory[0] + (1 - FIRST) * gradient
    memory[1] = SECOND * memory[1] + (1 - SECOND) * gradient**2
    return (memory[0] / (1 - FIRST**n)) / ((memory[1] / (1 - SECOND**n)).sqrt() + EPSILON)
