"""What predicted depth looks like from elsewhere: a colour loss that reaches depth through a differentiable rasteriser.

Input: predicted depth of reference views with their photos and cameras, photos to compare with, a rasteriser (passed in).
Output: one scalar whose gradient reaches the depth. Does not: import the rasteriser, choose views, or train a splat head.

Every pixel becomes one small round Gaussian: on its ray at the depth predicted, as wide as the pixel is there, as opaque as the
untrained head makes what is trusted so much. Pictures are drawn at the size of the depth maps, from one reference view at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from recon.geometry import backproject, inside_image, project, rgb_to_sh0, transform
from recon.records import Cameras, Gaussians, Rasterizer, RasterOptions

from .losses import color_loss

__all__ = ["Depicted", "drawn_loss", "half_size", "pixel_gaussians", "pull", "shared_surface"]

STEEPNESS = 4.0
"""Opacity is the sigmoid of so much times the confidence, as in the untrained head."""
SPREAD = 0.3
"""Sigma of a Gaussian in pixels of its own view. With the 0.52 of a fused scene nearer Gaussians paint over farther ones beside
them and the loss is least at depths 1 to 2% too large; with this at 0 to 0.5%."""
SAME_REL = 0.03
"""Two true depths closer than this are one surface."""
LARGEST_GAIN = 2.0
"""Photos of one scene differ in exposure and white balance by no more than this factor."""


@dataclass(frozen=True, kw_only=True)
class Depicted:
    """What is known of a reference view besides its depth, and of the T photos to compare with; all of one size."""

    photo: Float[Tensor, "h w 3"]
    confidence: Float[Tensor, "h w"]
    solid: Bool[Tensor, "h w"]
    """Pixels that are drawn: not sky, nor what lies outside the range in which depth is looked for."""
    K: Float[Tensor, "3 3"]
    T_world_cam: Float[Tensor, "4 4"]
    target_photos: Float[Tensor, "T h w 3"]
    target_cameras: Cameras
    shared: Bool[Tensor, "T h w"]
    """Pixels of the target photos whose surface, in truth, the reference view sees."""


def shared_surface(
    depth: Float[Tensor, "T h w"], cameras: Cameras, seen: Float[Tensor, "h w"], K: Float[Tensor, "3 3"], T_world_cam: Tensor
) -> Bool[Tensor, "T h w"]:
    """Where true depth of some views lies on what another view sees, by that view's own true depth.

    Args:
        depth: of the views asked about, whose cameras are ``cameras``; sky is 1e20 or more.
        seen: of the other; ``K`` and ``T_world_cam`` ``4 4`` are its.
    """
    height, width = seen.shape
    T_cam_world, rows = torch.linalg.inv(T_world_cam), []
    for target, z in enumerate(depth):
        points = transform(cameras.T_world_cam[target], backproject(z.clamp(max=1e6), cameras.K[target]))
        pixels, expected = project(transform(T_cam_world, points), K)
        column, row = (pixels[..., axis].floor().long().clamp(0, side - 1) for axis, side in ((0, width), (1, height)))
        same = (seen[row, column] / expected.clamp_min(1e-8) - 1).abs() < SAME_REL
        rows.append(same & inside_image(pixels, width, height) & (expected > 0) & (z < 1e20))
    return torch.stack(rows)


def pixel_gaussians(depth: Float[Tensor, "h w"], depicted: Depicted) -> Gaussians:
    """One Gaussian for every solid pixel. Differentiable in the depth, which moves it; its size as its own camera sees it stays."""
    solid, K = depicted.solid, depicted.K
    means = transform(depicted.T_world_cam, backproject(depth, K)[solid])
    sigma = SPREAD * depth[solid] / (K[0, 0] * K[1, 1]).sqrt()
    return Gaussians(
        means=means,
        quats=means.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(len(means), 4),
        scales=sigma[:, None].expand(-1, 3),
        opacities=torch.sigmoid(STEEPNESS * depicted.confidence[solid].detach()),
        sh=rgb_to_sh0(depicted.photo[solid])[:, None],
    )


def drawn_loss(depth: Float[Tensor, "h w"], depicted: Depicted, rasterizer: Rasterizer) -> Tensor:
    """Colour loss of the target photos where the reference view sees their surface.

    All else, and what is left uncovered, is taken from the photo itself, so that nothing is asked of it; exposure and white
    balance, which no depth explains, are brought to the photo's before they are compared.
    """
    drawn = rasterizer(pixel_gaussians(depth, depicted), depicted.target_cameras, RasterOptions())
    photos, shared = softened(depicted.target_photos), depicted.shared[..., None]
    cover = drawn.alpha.detach()[..., None] * shared
    with torch.no_grad():
        seen, wanted = drawn.color * shared, cover * photos
        gain = (seen * wanted).sum((1, 2)) / (seen * seen).sum((1, 2)).clamp_min(1e-6)
        gain = gain.clamp(1 / LARGEST_GAIN, LARGEST_GAIN)[:, None, None]
    return color_loss(gain * drawn.color * shared + (1 - cover) * photos, photos)


def pull(depth: Float[Tensor, "B h w"], depicted: Sequence[Depicted], rasterizer: Rasterizer) -> Tensor | None:
    """Mean colour loss over reference views, linear in the depth: what comes back through drawing is looked at before it goes on.

    Args:
        depth: of the reference views, in the order of ``depicted``.

    Returns:
        None when the loss is not finite or nothing is to be drawn. A pixel whose slope is not finite is left out.
    """
    leaf = depth.detach().requires_grad_()
    pairs = zip(leaf, depicted, strict=True)
    losses = [drawn_loss(z, one, rasterizer) for z, one in pairs if bool(one.solid.any()) and bool(one.shared.any())]
    if not losses:
        return None
    value = torch.stack(losses).mean()
    if not bool(torch.isfinite(value)):
        return None
    (slope,) = torch.autograd.grad(value, leaf)
    slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
    return value.detach() + (slope * (depth - depth.detach())).sum()


def softened(photos: Float[Tensor, "T h w 3"]) -> Float[Tensor, "T h w 3"]:
    """Photos as soft as what is drawn of them: Gaussians half a pixel wide, and the rasteriser's blur. Fine texture would otherwise
    cost as much at the true depth as at any other."""
    kernel = photos.new_tensor([0.25, 0.5, 0.25])
    weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    padded = F.pad(photos.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, weight, groups=3).permute(0, 2, 3, 1)


def half_size(photos: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V h w 3"]:
    """Photos as large as the depth maps."""
    return F.avg_pool2d(photos.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).contiguous()
