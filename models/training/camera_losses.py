"""What the camera network is asked for: relative rotations and translations of all pairs, focal lengths, depth, and how sure it is.

Input: answers and exact cameras. Output: scalars, and numbers for the log. Does not: know about worlds.

Only relations between cameras count, so that the world an answer lives in does not matter. Translations and depth are in units of
the largest distance between two cameras of the capture (YoNoSplat, Ye et al. 2025, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recon.cameras.scoring import score_cameras
from recon.records import Cameras

from ..camera_network import CameraAnswer, largest_distance

__all__ = ["TrueViews", "camera_errors", "camera_loss", "camera_metrics"]

ROUND = 0.01
"""Error below which a distance counts as its square, so that its gradient ends smoothly."""
NEAREST_SCALE = 0.02
"""Least unit of length, over the median depth: cameras nearer to each other than this have only turned."""
SKY = 1e20
WEIGHTS = {"rotation": 1.0, "place": 1.0, "focal": 0.5, "depth": 0.5, "told": 0.1}


@dataclass(frozen=True)
class TrueViews:
    """What is true of B captures of V photos, in the order of the groups."""

    K: Float[Tensor, "B V 3 3"]
    """Pixels of the photos that the network sees."""
    T_world_cam: Float[Tensor, "B V 4 4"]
    sizes: tuple[tuple[int, int, int], ...]
    """Per group: number of photos, height and width in pixels."""
    depth: tuple[Float[Tensor, "B _ _ _"], ...]
    """Per group, z-depth at the middles of 8 x 8 pixels, world units; from ``SKY`` on there is nothing."""

    @property
    def longest(self) -> Float[Tensor, " V"]:
        """Longest side of each photo, pixels."""
        return torch.tensor([float(max(h, w)) for count, h, w in self.sizes for _ in range(count)], device=self.K.device)

    @property
    def unit(self) -> Float[Tensor, " B"]:
        """Unit of length of each capture."""
        flat = torch.cat([one.flatten(1) for one in self.depth], dim=1)
        middle = torch.where(flat < SKY, flat, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)
        return largest_distance(self.T_world_cam[..., :3, 3]).maximum(NEAREST_SCALE * middle).clamp(min=1e-9)


@dataclass(frozen=True)
class CameraErrors:
    """Smooth errors, 0 for a perfect answer."""

    rotation: Float[Tensor, "B V V"]
    """Of the rotation from one camera to another: chord, radians for small ones."""
    place: Float[Tensor, "B V V"]
    """Of where the second camera is, seen from the first, in units."""
    focal: Float[Tensor, "B V"]
    """Of the logarithms of both focal lengths."""
    depth: tuple[Float[Tensor, "B _ _ _"], ...]
    """Of the logarithm of depth."""
    solid: tuple[Bool[Tensor, "B _ _ _"], ...]
    """Where there is something to see."""


def between(T_world_cam: Float[Tensor, "B V 4 4"]) -> tuple[Float[Tensor, "B V V 3 3"], Float[Tensor, "B V V 3"]]:
    """Rotation and translation T_first_second = T_first_world @ T_world_second of all ordered pairs."""
    R, center = T_world_cam[..., :3, :3].float(), T_world_cam[..., :3, 3].float()
    R_first_world = R.transpose(-1, -2)[:, :, None]
    apart = center[:, None] - center[:, :, None]
    return R_first_world @ R[:, None], (R_first_world @ apart[..., None])[..., 0]


def smooth_norm(x: Float[Tensor, "*B n"]) -> Float[Tensor, "*B"]:
    """Length of vectors, quadratic near 0."""
    return (x.square().sum(dim=-1) + ROUND**2).sqrt() - ROUND


def camera_errors(answer: CameraAnswer, truth: TrueViews) -> CameraErrors:
    """Compare an answer with the truth, whatever world each is in."""
    R_said, t_said = between(answer.T_world_cam)
    R_true, t_true = between(truth.T_world_cam)
    unit = truth.unit
    focal = torch.stack([truth.K[..., 0, 0], truth.K[..., 1, 1]], dim=-1) / truth.longest[:, None]
    solid = tuple(one < SKY for one in truth.depth)
    depth = tuple(
        smooth_norm((said - (torch.where(seen, true, unit[:, None, None, None]) / unit[:, None, None, None]).log())[..., None])
        * seen
        for said, true, seen in zip(answer.log_depth, truth.depth, solid, strict=True)
    )
    return CameraErrors(
        rotation=smooth_norm((R_said - R_true).flatten(-2) / 2**0.5),
        place=smooth_norm(t_said - t_true / unit[:, None, None, None]),
        focal=smooth_norm(answer.log_focal - focal.log()),
        depth=depth,
        solid=solid,
    )


def camera_loss(answer: CameraAnswer, truth: TrueViews) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted errors over all pairs of photos, and how well the network knows them.

    What it says of its errors is judged by the likelihood of these under Laplace's law, without pulling at the answers themselves:
    that is beta = 1 of Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", 2022, section 4, and keeps hard
    photos from being given up.

    Returns:
        The loss, and its parts; all but ``told`` are 0 for a perfect answer.
    """
    errors = camera_errors(answer, truth)
    views = errors.rotation.shape[1]
    pairs = ~torch.eye(views, dtype=torch.bool, device=errors.rotation.device)
    rotation, place = errors.rotation[:, pairs], errors.place[:, pairs]
    depth = torch.cat([one[seen] for one, seen in zip(errors.depth, errors.solid, strict=True)])
    depth_spread = torch.cat([one[seen] for one, seen in zip(answer.log_depth_spread, errors.solid, strict=True)])
    spread = answer.log_spread
    both = torch.logaddexp(spread[:, :, None], spread[:, None])[:, pairs]
    told = (
        unlikely(rotation, both[..., 0])
        + unlikely(place, both[..., 1])
        + unlikely(errors.focal, spread[..., 2])
        + unlikely(depth, depth_spread)
    )
    parts = {
        "rotation": mean_of(rotation),
        "place": mean_of(place),
        "focal": errors.focal.mean(),
        "depth": mean_of(depth),
        "told": told,
    }
    return torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum(), parts


def mean_of(values: Tensor) -> Tensor:
    """Mean; 0 of nothing."""
    return values.sum() / max(values.numel(), 1)


def unlikely(error: Tensor, log_spread: Tensor) -> Tensor:
    """Mean negative logarithm of Laplace's law; the errors are taken as they are."""
    log_spread = log_spread.clamp(-6.0, 3.0)
    return mean_of(error.detach() * (-log_spread).exp() + log_spread)


@torch.no_grad()
def camera_metrics(answer: CameraAnswer, truth: TrueViews) -> dict[str, float]:
    """Score an answer as found cameras are scored, and the medians behind it."""
    said, true = between(answer.T_world_cam), between(truth.T_world_cam)
    views = said[0].shape[1]
    pairs = torch.triu(torch.ones(views, views, dtype=torch.bool), diagonal=1).to(said[0].device)
    chord = (said[0] - true[0])[:, pairs].flatten(-2).norm(dim=-1) / 8**0.5
    a, b = said[1][:, pairs], true[1][:, pairs]
    direction = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1))
    errors = camera_errors(answer, truth)
    widths, heights = (tuple(size[k] for size in truth.sizes for _ in range(size[0])) for k in (2, 1))
    K = truth.K.clone()
    K[..., [0, 1], [0, 1]] = answer.log_focal.exp() * truth.longest[:, None]
    scores = []
    for i in range(len(K)):
        found, reference = (
            Cameras(T_world_cam=T[i].float().cpu(), K=lens[i].cpu(), width=widths, height=heights)
            for T, lens in ((answer.T_world_cam, K), (truth.T_world_cam, truth.K))
        )
        scores.append(score_cameras(found, reference))
    depth = torch.cat([one[seen] for one, seen in zip(errors.depth, errors.solid, strict=True)])
    return {
        "auc30": sum(one.auc30 for one in scores) / len(scores),
        "rotation_deg": float(torch.rad2deg(2 * chord.clamp(max=1.0).asin()).median()),
        "direction_deg": float(torch.rad2deg(direction).median()),
        "focal_error": sum(one.focal_error or 0.0 for one in scores) / len(scores),
        "depth_error": float(depth.median()) if len(depth) else 0.0,
    }
