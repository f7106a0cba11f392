"""Where Gaussians are missing, and which are idle.

Input: parameters, photos, what the scene shows of them. Output: parameters with idle rows dropped and new rows added.
Does not: step the optimiser.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import backproject, rgb_to_sh0, transform
from ..records import Cameras, Gaussians, Rendering
from .losses import Target

IDLE_OPACITY = 0.01
"""Gaussians below this are dropped."""
NEW_OPACITY = 0.3
NEW_SIGMA_PX = 0.7
"""Deviation of a new Gaussian in pixels of the size worked at."""
DRAWN_ALPHA = 0.3
"""Below this the rendered depth says nothing."""


def idle(opacities: Float[Tensor, " N"], scales: Float[Tensor, "N 3"]) -> Tensor:
    """True where a Gaussian shows nothing."""
    return (opacities < IDLE_OPACITY) | ~torch.isfinite(scales).all(1)


def propose(rendering: Rendering, target: Target, camera: Cameras, count: int, generator: torch.Generator) -> Gaussians:
    """Place Gaussians on the drawn surface where the picture differs most from the photo.

    Pixels are drawn at random with a probability that grows with their squared error; depth comes from the scene itself,
    colour from the photo. A feed-forward scene has its surfaces in place, so what is missing is detail on them.

    Args:
        rendering: of ``camera``, with median depth.
        count: how many to place, at most.
    """
    depth = rendering.median_depth if rendering.median_depth is not None else rendering.depth
    depth = torch.where(depth[0] > 0, depth[0], rendering.depth[0])
    error = (rendering.color[0] * target.weight[..., None] - target.image).square().mean(-1)
    usable = (rendering.alpha[0] > DRAWN_ALPHA) & (depth > 0) & (target.weight > 0.5)
    chance = (error * usable).flatten()
    found = int((chance > 0).sum())
    if found == 0 or count == 0:
        return empty_like(target.image)
    picked = torch.multinomial(chance.cpu(), min(count, found), generator=generator).to(chance.device)
    K = camera.K[0].float()
    points = transform(camera.T_world_cam[0].float(), backproject(depth, K).reshape(-1, 3)[picked])
    sigma = NEW_SIGMA_PX * depth.flatten()[picked] / float(K[0, 0])
    colors = target.image.reshape(-1, 3)[picked]
    return Gaussians(
        means=points,
        quats=points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(points), 1),
        scales=sigma[:, None].repeat(1, 3),
        opacities=torch.full_like(sigma, NEW_OPACITY),
        sh=rgb_to_sh0(colors)[:, None],
    )


def empty_like(image: Tensor) -> Gaussians:
    """No Gaussians, on the device of ``image``."""
    none = image.new_zeros(0)
    return Gaussians(
        means=none.reshape(0, 3), quats=none.reshape(0, 4), scales=none.reshape(0, 3), opacities=none, sh=none.reshape(0, 1, 3)
    )
