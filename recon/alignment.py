"""Similarity that takes one set of camera centres to another.

Input: two lists of matching points. Output: ``Sim3``.
Does not: reject outliers, or match points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sim3:
    """x_b = scale * R_b_a @ x_a + t_b_a."""

    scale: float
    """Units of b per unit of a, > 0."""
    R_b_a: Float[Tensor, "3 3"]
    """Rotation from frame a to frame b."""
    t_b_a: Float[Tensor, "3"]
    """Origin of frame a in frame b."""

    def apply(self, points_a: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """Move points from frame a to frame b."""
        return self.scale * points_a @ self.R_b_a.T + self.t_b_a


def sim3_align(centers_a: Float[Tensor, "V 3"], centers_b: Float[Tensor, "V 3"]) -> Sim3:
    """Least-squares similarity from frame a to frame b.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40-43.

    Args:
        centers_a: points in frame a, at least three that are not on one line.
        centers_b: the same points in frame b.

    Raises:
        ValueError: fewer than three points, or all points of a coincide.
    """
    if len(centers_a) < 3:
        raise ValueError(f"sim3_align: wanted at least 3 points, got {len(centers_a)}")
    a, b = centers_a.double(), centers_b.double()
    mean_a, mean_b = a.mean(0), b.mean(0)
    variance_a = (a - mean_a).square().sum(1).mean()
    if variance_a <= 0:
        raise ValueError("sim3_align: all points of the first set coincide")
    U, S, Vt = torch.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.sign(torch.det(U) * torch.det(Vt))
    R = U @ torch.diag(sign) @ Vt
    scale = float((S * sign).sum() / variance_a)
    return Sim3(scale=scale, R_b_a=R, t_b_a=mean_b - scale * R @ mean_a)
