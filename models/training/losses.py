"""What the depth network is asked for: the right plane, the right position, and honest confidence; and what a picture is asked for.

Input: network output and exact depth, or a picture and its photo. Output: one scalar, and numbers for the log.
Does not: know about worlds or optimisers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..mini import MiniConfig, MiniOutput

__all__ = ["Target", "color_loss", "depth_loss", "depth_metrics", "normal_loss", "target_position"]


ONE_SURFACE_REL = 0.05
"""Neighbouring depths that differ by more belong to two surfaces, across which there is no normal."""
ONE_SURFACE_COS = 0.9
"""Cosine between the exact normal and the one that true depth spans across a pixel, below which an edge runs through it."""


@dataclass(frozen=True)
class Target:
    """True position in coarse planes at 1/2, 1/4 and 1/8, and where the depth range reaches the surface."""

    position: dict[int, Float[Tensor, "B h w"]]
    valid: dict[int, Bool[Tensor, "B h w"]]
    """False in front of the near plane; sky and what lies beyond the far plane count as the far plane."""


def target_position(depth: dict[int, Tensor], depth_range: Float[Tensor, "B 2"], planes: int) -> Target:
    """Count true z-depth in planes of the sweep."""
    far_inverse = 1.0 / depth_range[:, 1, None, None]
    step = (1.0 / depth_range[:, 0, None, None] - far_inverse) / (planes - 1)
    position = {cell: (1.0 / z - far_inverse) / step for cell, z in depth.items()}
    valid = {cell: p <= planes - 0.5 for cell, p in position.items()}
    return Target({cell: p.clamp(0, planes - 1) for cell, p in position.items()}, valid)


def depth_loss(output: MiniOutput, target: Target, config: MiniConfig) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over planes and log-error of positions at each stage, and the confidence's cross-entropy.

    ``log(1 + error)`` keeps asking for precision while letting hopeless pixels go.
    """
    t2, t4, t8 = (target.position[c] for c in (2, 4, 8))
    v2, v4, v8 = (target.valid[c].float() for c in (2, 4, 8))
    center = (config.fine_planes - 1) / 2
    fine_index = (t4 - output.guess.detach()) / config.fine_step + center
    reached = v4 * ((fine_index >= 0) & (fine_index <= config.fine_planes - 1))
    error = (output.position - t2).abs()
    right = (error.detach() < 0.5) & target.valid[2]
    parts = {
        "plane": _mean(_soft_cross_entropy(output.logits, t8), v8),
        "coarse": _mean(torch.log1p((output.coarse - t8).abs()), v8),
        "guess": _mean(torch.log1p(2 * (output.guess - t4).abs()), v4),
        "fine_plane": _mean(_soft_cross_entropy(output.fine_logits, fine_index), reached),
        "fine": _mean(torch.log1p(4 * (output.fine - t4).abs()), v4),
        "final": _mean(torch.log1p(4 * error), v2),
        "confidence": F.binary_cross_entropy_with_logits(output.confidence_logit, right.float()),
    }
    weights = {"plane": 0.5, "coarse": 0.3, "guess": 0.5, "fine_plane": 0.3, "fine": 0.3, "final": 1.0, "confidence": 0.3}
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


def surface_normals(depth: Float[Tensor, "B h w"], K: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B h-1 w-1 3"]:
    """Unit normals in the camera frame, across each pixel and its neighbours to the right and below. Differentiable.

    Args:
        K: in pixels of the depth map.
    """
    height, width = depth.shape[1:]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    u, v = u.to(depth), v.to(depth)
    x = (u - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    y = (v - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    points = torch.stack([x * depth, y * depth, depth], dim=-1)
    right, below = points[:, :-1, 1:] - points[:, :-1, :-1], points[:, 1:, :-1] - points[:, :-1, :-1]
    return F.normalize(torch.linalg.cross(below, right), dim=-1, eps=1e-12)


def normal_loss(
    predicted: Float[Tensor, "B h w"],
    depth: Float[Tensor, "B h w"],
    normals: Float[Tensor, "B h w 3"],
    valid: Bool[Tensor, "B h w"],
    K: Float[Tensor, "B 3 3"],
) -> Tensor:
    """Mean of 1 - cos between the normals that predicted depth spans and the exact ones, where truth is one surface.

    Predicted depth spans a normal across a pixel and its neighbours to the right and below, so the exact one is the mean of these
    three. Where the normal that true depth spans is another one, an edge or a step runs through: the right depth would be punished
    there, so nothing is asked for.

    Args:
        normals: unit, in the camera frame and towards the camera, as in ``Capture``.
    """
    true = torch.where(valid, depth, 1.0)
    right, below = true[:, :-1, 1:] / true[:, :-1, :-1], true[:, 1:, :-1] / true[:, :-1, :-1]
    solid = valid[:, :-1, :-1] & valid[:, :-1, 1:] & valid[:, 1:, :-1]
    smooth = solid & ((right - 1).abs() < ONE_SURFACE_REL) & ((below - 1).abs() < ONE_SURFACE_REL)
    exact = F.normalize(normals[:, :-1, :-1] + normals[:, :-1, 1:] + normals[:, 1:, :-1], dim=-1, eps=1e-12)
    one = smooth & ((surface_normals(true, K) * exact).sum(-1) > ONE_SURFACE_COS)
    return _mean(1 - (surface_normals(predicted, K) * exact).sum(-1), one.float())


def color_loss(drawn: Float[Tensor, "V H W 3"], photos: Float[Tensor, "V H W 3"]) -> Tensor:
    """L1 and structural dissimilarity, four to one. Source: 3D Gaussian Splatting, Kerbl et al. 2023, equation 7."""
    a, b = (t.permute(0, 3, 1, 2) for t in (drawn, photos))
    mean_a, mean_b, aa, bb, ab = (F.avg_pool2d(t, 7, 1) for t in (a, b, a * a, b * b, a * b))
    covariance, variance = ab - mean_a * mean_b, aa + bb - mean_a**2 - mean_b**2
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (variance + 9e-4))
    return 0.8 * (drawn - photos).abs().mean() + 0.2 * (1 - ssim.mean())


@torch.no_grad()
def depth_metrics(output: MiniOutput, depth: Tensor, predicted: Tensor, target: Target) -> dict[str, float]:
    """Shares of solid pixels within a plane, half a plane, 1% and 2% of depth, and how far confidence is from the truth."""
    solid = (depth < 1e20) & target.valid[2] & (target.position[2] > 0)
    error = (output.position - target.position[2]).abs()[solid]
    relative = ((predicted - depth).abs() / depth)[solid]
    confidence = output.confidence_logit.sigmoid()[solid]
    right = (error < 0.5).float()
    bins = (confidence * 10).long().clamp(0, 9)
    counts = torch.bincount(bins, minlength=10).clamp_min(1)
    gap = (torch.bincount(bins, confidence, 10) - torch.bincount(bins, right, 10)).abs() / counts
    sure = confidence > 0.5
    return {
        "within_plane": float((error < 1).float().mean()),
        "within_half_plane": float(right.mean()),
        "within_1%": float((relative < 0.01).float().mean()),
        "within_2%": float((relative < 0.02).float().mean()),
        "error_planes": float(error.mean()),
        "confident": float(sure.float().mean()),
        "confident_right": float(right[sure].mean()) if bool(sure.any()) else 0.0,
        "calibration_error": float((gap * counts).sum() / counts.sum()),
    }


def _soft_cross_entropy(logits: Tensor, position: Tensor) -> Tensor:
    """Cross-entropy against a position split between its two neighbouring hypotheses."""
    log_probability = logits.log_softmax(dim=1)
    at = position.clamp(0, logits.shape[1] - 1 - 1e-4)
    low = at.floor().long()[:, None]
    share = (at - at.floor())[:, None]
    return -((1 - share) * log_probability.gather(1, low) + share * log_probability.gather(1, low + 1))[:, 0]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(1.0)
