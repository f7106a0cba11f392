"""Cameras of held-out photos fitted to a frozen scene before scoring.

Input: frozen Gaussians, photos with approximate cameras, a rasteriser. Output: cameras. The scene never changes, so that the
score cannot be bought; what it removes is the error of the held-out cameras themselves.
Does not: fit focal length, exposure or anything but position and rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..polishing.cameras import CameraRates, CameraState
from ..polishing.losses import LossConfig, photo_loss
from ..polishing.targets import Targets
from ..posed import PosedViews
from ..progress import Progress
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How long cameras are fitted."""

    steps: int = 60
    """Per photo: two thirds at half the size, one third whole."""
    rotation_rad: float = 1.5e-3
    """First rotation per step, radians; falls to a twentieth. Positions move by this times the median distance."""


def align_cameras(
    gaussians: Gaussians, posed: PosedViews, rasterizer: Rasterizer, config: AlignConfig, progress: Progress
) -> Cameras:
    """Fit position and rotation of every photo by gradient descent on the photo loss; return the best state seen, or the given one.

    Source: the evaluation protocol of Ye et al., "YoNoSplat", 2025, section 4.1 (camera optimisation on frozen Gaussians).
    """
    distance = float(torch.cdist(gaussians.means[:: max(1, len(gaussians) // 2000)], posed.cameras.centers_world.float()).median())
    targets = Targets(posed, gaussians.means.device)
    fitted = []
    for i in range(len(posed)):
        state = CameraState(
            posed.cameras.select([i]).to(gaussians.means.device),
            distance=distance,
            move=True,
            zoom=False,
            rates=CameraRates(rotation_rad=config.rotation_rad),
        )
        best, least = state.T_world_cam[0].clone(), float("inf")
        for step in range(config.steps + 1):
            if step % 16 == 0:
                progress.update("score", (i + step / config.steps) / len(posed), "aligning cameras")
            share = step / config.steps
            factor = 1 if step == 0 or share >= 0.67 else 2
            width, height = targets.size(i, factor)
            T = state.T_world_cam[0].clone().requires_grad_()
            K = targets.scaled_K(state.K[0], i, factor)
            camera = Cameras(T_world_cam=T[None], K=K[None], width=(width,), height=(height,))
            rendering = rasterizer(gaussians, camera, RasterOptions())
            loss = photo_loss(rendering.color[0].detach(), targets.at(i, factor), LossConfig())
            if factor == 1 and loss.squared_error < least:
                best, least = T.detach().clone(), loss.squared_error
            if step < config.steps:
                (g_T,) = torch.autograd.grad(rendering.color, T, loss.gradient[None])
                state.step(0, g_T, torch.zeros(3, 3, device=g_T.device), 0.05**share)
        fitted.append(best.cpu())
    return replace(posed.cameras, T_world_cam=torch.stack(fitted)) if fitted else posed.cameras
