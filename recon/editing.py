"""Change a finished scene: crop, clean, prune, merge, move, measure the difference.

Input: ``Gaussians`` and what to do. Output: ``Gaussians`` (the same record, fewer or moved) or numbers.
Does not: read or write files, or change cameras (``formats.conventions`` moves them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .clusters import cluster_sizes
from .formats.registry import finite_mask
from .fusing.largest import largest
from .records import Cameras, Gaussians, Rasterizer, RasterOptions

INVISIBLE_OPACITY = 1.0 / 255.0
"""Below this no rasteriser draws a Gaussian."""
MOST_QUANTILE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """What `clean` takes for dirt. Each test is off at 0."""

    floater_share: float = 0.002
    """Groups of touching Gaussians smaller than this share of the scene are floaters."""
    evidence_px: float = 0.25
    """A Gaussian that covers less than this many pixels in every camera has too little evidence. Needs cameras."""
    sky_distances: float = 0.0
    """Gaussians above the horizon and farther than this many typical distances are sky. Needs cameras; 8 is a good start."""
    far_reaches: float = 20.0
    """Gaussians farther from the middle than this many scene radii are outliers, as are those larger than the scene."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """A cleaned scene and what was taken away."""

    gaussians: Gaussians
    removed: dict[str, int]
    """Reason -> number of Gaussians, each counted under the first reason that applied."""


def quantiles(values: Float[Tensor, " N"], levels: Sequence[float]) -> list[float]:
    """Quantiles of at most a million evenly picked values."""
    picked = values[:: max(1, math.ceil(len(values) / MOST_QUANTILE))].float()
    return torch.quantile(picked, torch.tensor(levels)).tolist()


def scene_middle(gaussians: Gaussians) -> tuple[Float[Tensor, " 3"], float]:
    """Median centre, and the radius that holds nine tenths of the Gaussians, world units."""
    means = gaussians.means[finite_mask(gaussians)]
    centre = means.median(dim=0).values
    return centre, max(quantiles((means - centre).norm(dim=1), [0.9])[0], 1e-9)


def crop_box(gaussians: Gaussians, lower: Float[Tensor, " 3"], upper: Float[Tensor, " 3"], *, outside: bool = False) -> Gaussians:
    """Keep Gaussians whose centre lies in an axis-aligned box, world units; ``outside`` keeps the others."""
    inside = ((gaussians.means >= lower) & (gaussians.means <= upper)).all(dim=1)
    return gaussians.select(inside != outside)


def crop_sphere(gaussians: Gaussians, centre: Float[Tensor, " 3"], radius: float, *, outside: bool = False) -> Gaussians:
    """Keep Gaussians whose centre lies in a ball, world units; ``outside`` keeps the others."""
    inside = (gaussians.means - centre).norm(dim=1) <= radius
    return gaussians.select(inside != outside)


def outlier_mask(gaussians: Gaussians, far_reaches: float = 20.0) -> Bool[Tensor, " N"]:
    """True for Gaussians that make viewers fail: not finite, invisible, very far out, or larger than the scene.

    One Gaussian with an extent of thousands of scene sizes spoils the depth sorting of a viewer and can hang a graphics card.
    """
    centre, radius = scene_middle(gaussians)
    far = (gaussians.means - centre).norm(dim=1) > far_reaches * radius
    huge = gaussians.scales.max(dim=1).values > radius
    return ~finite_mask(gaussians) | (gaussians.opacities < INVISIBLE_OPACITY) | far | huge


def prune(gaussians: Gaussians, far_reaches: float = 20.0) -> Gaussians:
    """Drop outliers (``outlier_mask``)."""
    return gaussians.select(~outlier_mask(gaussians, far_reaches))


def floater_mask(gaussians: Gaussians, share: float) -> Bool[Tensor, " N"]:
    """True for Gaussians in small groups that touch nothing else.

    Space is divided into cells of three typical extents; cells that touch, corners included, form one group.
    """
    cell = 6.0 * max(quantiles(gaussians.scales.max(dim=1).values, [0.5])[0], 1e-12)
    return cluster_sizes(gaussians.means, cell) < share * len(gaussians)


def contributions(gaussians: Gaussians, cameras: Cameras, rasterizer: Rasterizer) -> Float[Tensor, " N"]:
    """Largest sum of blending weights that each Gaussian has in any camera, pixels."""
    best = torch.zeros(len(gaussians))
    with torch.no_grad():
        for index in range(len(cameras)):
            drawn = rasterizer(gaussians, cameras.select([index]), RasterOptions(contribution=True))
            assert drawn.contribution is not None
            best = torch.maximum(best, drawn.contribution[0].cpu())
    return best


def sky_mask(gaussians: Gaussians, cameras: Cameras, distances: float) -> Bool[Tensor, " N"]:
    """True for Gaussians above the cameras' horizon (world y down) and far beyond the typical distance from them."""
    eye = cameras.centers_world.mean(dim=0)
    offset = gaussians.means - eye
    range_ = offset.norm(dim=1)
    typical = quantiles(range_, [0.5])[0]
    return (range_ > distances * typical) & (-offset[:, 1] > 0.02 * range_)


def clean(
    gaussians: Gaussians, config: CleanConfig, *, cameras: Cameras | None = None, rasterizer: Rasterizer | None = None
) -> Cleaned:
    """Remove what is not the scene: broken values, outliers, sky, floaters, Gaussians without evidence.

    Args:
        cameras: pinhole cameras that saw the scene, world frame; None skips what needs them.
        rasterizer: measures evidence; None skips it.
    """
    removed: dict[str, int] = {}

    def drop(reason: str, mask: Bool[Tensor, " N"]) -> None:
        nonlocal gaussians
        removed[reason] = int(mask.sum())
        gaussians = gaussians.select(~mask)

    drop("not finite", ~finite_mask(gaussians))
    if config.far_reaches > 0 and len(gaussians):
        drop("outliers", outlier_mask(gaussians, config.far_reaches))
    if config.sky_distances > 0 and cameras is not None and len(gaussians):
        drop("sky", sky_mask(gaussians, cameras, config.sky_distances))
    if config.floater_share > 0 and len(gaussians):
        drop("floaters", floater_mask(gaussians, config.floater_share))
    if config.evidence_px > 0 and cameras is not None and rasterizer is not None and len(gaussians):
        drop("low evidence", contributions(gaussians, cameras, rasterizer) < config.evidence_px)
    return Cleaned(gaussians=gaussians, removed=removed)


def strongest(
    gaussians: Gaussians, count: int, *, cameras: Cameras | None = None, rasterizer: Rasterizer | None = None
) -> Gaussians:
    """Keep the ``count`` Gaussians that matter most, in their order.

    What matters is the pixels a Gaussian covers in its best camera; without cameras, opacity times its largest cross-section.
    """
    if len(gaussians) <= count:
        return gaussians
    if cameras is None or rasterizer is None:
        return largest(gaussians, count)
    kept = torch.topk(contributions(gaussians, cameras, rasterizer), count).indices.sort().values
    return gaussians.select(kept)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two scenes differ to the eye."""

    psnr_db: tuple[float, ...]
    """Per view; 100 at most."""
    alpha_difference: float
    """Mean absolute difference of accumulated opacity."""
    depth_difference: float
    """Median relative difference of depth where both are opaque; nan where nothing is."""


def compare(first: Gaussians, second: Gaussians, cameras: Cameras, rasterizer: Rasterizer) -> Comparison:
    """Draw two scenes from the same cameras and measure how the pictures differ."""
    psnr_db, alpha, depth = [], [], []
    with torch.no_grad():
        for index in range(len(cameras)):
            camera = cameras.select([index])
            a, b = (rasterizer(scene, camera, RasterOptions()) for scene in (first, second))
            error = float((a.color.clamp(0, 1) - b.color.clamp(0, 1)).square().mean())
            psnr_db.append(min(100.0, -10.0 * math.log10(max(error, 1e-10))))
            alpha.append(float((a.alpha - b.alpha).abs().mean()))
            both = (a.alpha > 0.5) & (b.alpha > 0.5)
            depth.append(((a.depth - b.depth).abs() / a.depth.clamp_min(1e-9))[both])
    joined = torch.cat(depth)
    return Comparison(
        psnr_db=tuple(psnr_db),
        alpha_difference=sum(alpha) / max(len(alpha), 1),
        depth_difference=float(joined.median()) if len(joined) else math.nan,
    )
