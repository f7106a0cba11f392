"""Long inputs in pieces: which views go together, and how the pieces are joined.

Input: number of views, or the geometry of overlapping groups of views. Output: groups; one geometry in one world.
Does not: run networks.

Every group predicts its own world and unit. Views that two groups share see the same pixels, so their lifted points give
the similarity between the two worlds.
Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from recon.formats.conventions import Similarity, moved_gaussians, moved_points
from recon.geometry import backproject, transform
from recon.records import Gaussians

from .networks.geometry import Geometry

POINTS_PER_VIEW = 2000
"""Pixels of a shared view used to fit, on a regular grid."""
ROUNDS = 10
"""Reweighting rounds of the fit."""


def windows(views: int, size: int, overlap: int) -> list[list[int]]:
    """List groups of consecutive views; neighbours share ``overlap`` views or more, and the last group is full.

    Args:
        size: views in a group; > overlap.
    """
    if views <= size:
        return [list(range(views))]
    if not 0 < overlap < size:
        raise ValueError(f"windows: wanted 0 < overlap < size, got {overlap} and {size}")
    starts = [*range(0, views - size, size - overlap), views - size]
    return [list(range(start, start + size)) for start in starts]


def fit_similarity(source: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"], weight: Float[Tensor, " N"]) -> Similarity:
    """Fit the similarity that takes source points to target points, robust to a share of wrong pairs.

    Method: weighted Umeyama; weights are divided by the residual beyond its median, a few times.

    Args:
        weight: trust in each pair, >= 0, not all zero.
    """
    a, b, trust = source.double(), target.double(), weight.double()
    scale, R, shift = 1.0, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(ROUNDS):
        total = trust.sum().clamp_min(1e-12)
        mean_a, mean_b = (trust[:, None] * a).sum(0) / total, (trust[:, None] * b).sum(0) / total
        centred_a, centred_b = a - mean_a, b - mean_b
        U, S, Vt = torch.linalg.svd((trust[:, None] * centred_b).T @ centred_a / total)
        sign = torch.ones(3, dtype=torch.float64)
        sign[2] = torch.linalg.det(U @ Vt).sign()
        R = (U * sign) @ Vt
        spread = (trust * centred_a.square().sum(1)).sum() / total
        scale = float((S * sign).sum() / spread.clamp_min(1e-18))
        shift = mean_b - scale * R @ mean_a
        residual = (scale * a @ R.T + shift - b).norm(dim=1)
        limit = residual.median().clamp_min(1e-12)
        trust = weight.double() * (limit / residual.clamp_min(limit))
    return Similarity(R_new_old=R.to(source), scale=scale, shift=shift.to(source))


def moved(T_world_cam: Float[Tensor, "V 4 4"], move: Similarity) -> Float[Tensor, "V 4 4"]:
    """Move cameras to the new world; they stay rigid."""
    placed = T_world_cam.clone()
    placed[:, :3, :3] = move.R_new_old @ T_world_cam[:, :3, :3]
    placed[:, :3, 3] = moved_points(T_world_cam[:, :3, 3], move)
    return placed


def join(parts: Sequence[Geometry], groups: Sequence[Sequence[int]]) -> Geometry:
    """Bring groups into the world of the first and keep each view once, from the group that came first.

    Gaussians of all groups are kept; shared views have theirs twice at most.

    Args:
        parts: geometry of each group, views in the order of ``groups``.
        groups: view numbers; together 0, 1, 2, ... and overlapping one after the other.
    """
    joined, seen = parts[0], list(groups[0])
    for part, group in zip(parts[1:], groups[1:], strict=True):
        shared = [view for view in group if view in seen]
        move = between(part, [group.index(v) for v in shared], joined, [seen.index(v) for v in shared])
        fresh = [k for k, view in enumerate(group) if view not in seen]
        splats = None
        if joined.gaussians is not None and part.gaussians is not None:
            splats = Gaussians.concatenate([joined.gaussians, moved_gaussians(part.gaussians, move)])
        joined = Geometry(
            T_world_cam=torch.cat((joined.T_world_cam, moved(part.T_world_cam[fresh], move))),
            K=torch.cat((joined.K, part.K[fresh])),
            depth=torch.cat((joined.depth, move.scale * part.depth[fresh])),
            confidence=torch.cat((joined.confidence, part.confidence[fresh])),
            gaussians=splats,
        )
        seen += [group[k] for k in fresh]
    return joined


def between(part: Geometry, at_part: Sequence[int], whole: Geometry, at_whole: Sequence[int]) -> Similarity:
    """Fit the similarity from one geometry's world to another's over the pixels of shared views."""
    height, width = part.depth.shape[1:]
    step = max(1, int((height * width / POINTS_PER_VIEW) ** 0.5))
    pairs = []
    for i, j in zip(at_part, at_whole, strict=True):
        sides = [
            transform(g.T_world_cam[k], backproject(g.depth[k], g.K[k])[::step, ::step].reshape(-1, 3))
            for g, k in ((part, i), (whole, j))
        ]
        trust = (part.confidence[i] * whole.confidence[j])[::step, ::step].reshape(-1)
        pairs.append((*sides, trust / (part.depth[i][::step, ::step].reshape(-1).square() + 1e-12)))
    return fit_similarity(*(torch.cat(column) for column in zip(*pairs, strict=True)))
