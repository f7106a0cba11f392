"""The focal length that local points agree on.

Input: points per pixel in each camera's frame. Output: intrinsics. Does not: move the principal point off the centre.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 5
"""Reweighting rounds."""
HUBER_PX = 2.0
"""Residual in pixels from which a point counts less."""


def fit_focal(
    points_cam: Float[Tensor, "V H W 3"], weight: Float[Tensor, "V H W"], *, most_samples: int = 20_000
) -> Float[Tensor, "V 3 3"]:
    """Fit one focal length per view, equal in x and y, principal point at the centre.

    Method: the median ratio of the pixel's offset from the centre to (x/z, y/z), then least squares of one against the other,
    reweighted a few times by the squared Huber weight, so that far-off points do not count.

    Args:
        weight: how far to trust each point, >= 0.
        most_samples: pixels used per view, on a regular grid.
    """
    views, height, width, _ = points_cam.shape
    step = max(1, int((height * width / most_samples) ** 0.5))
    points, weights = points_cam[:, ::step, ::step].double(), weight[:, ::step, ::step].double()
    u = torch.arange(0, width, step, device=points.device).double() + 0.5 - width / 2
    v = torch.arange(0, height, step, device=points.device).double() + 0.5 - height / 2
    offsets = torch.stack(torch.meshgrid(v, u, indexing="ij")[::-1], dim=-1)
    slopes = points[..., :2] / points[..., 2:].clamp_min(1e-9)
    focal = (offsets.norm(dim=-1) / slopes.norm(dim=-1).clamp_min(1e-9)).flatten(1).median(dim=1).values
    for _ in range(ROUNDS):
        residual = (focal[:, None, None, None] * slopes - offsets).norm(dim=-1)
        trust = (weights * (HUBER_PX / residual.clamp_min(HUBER_PX)) ** 2)[..., None]
        top = (trust * slopes * offsets).sum(dim=(1, 2, 3))
        focal = top / (trust * slopes * slopes).sum(dim=(1, 2, 3)).clamp_min(1e-12)
    focal = focal.abs().clamp_min(1.0)
    K = torch.zeros(views, 3, 3, dtype=points_cam.dtype, device=points_cam.device)
    K[:, 0, 0] = K[:, 1, 1] = focal.to(K.dtype)
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1.0
    return K
