"""Image blocks of adaptive size, each of which becomes one Gaussian on a plane.

Input: photo, depth and the pixels to be drawn from a view. Output: ``Leaves`` (geometry, fixed) and, with the head's
attributes, Gaussians (differentiable in the attributes).
Does not: decide which pixels a view owns (``recon.fusing.ownership``) or how many leaves a scene may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..geometry import rays_cam, rgb_to_sh0, rotations_to_quats
from ..records import Gaussians

SIZES = (16, 8, 4, 2, 1)
"""Block sides in pixels, coarse to fine."""
PLANE_TOLERANCE = 0.01
"""Relative depth error off the block's plane that costs as much as a colour error of COLOR_TOLERANCE."""
COLOR_TOLERANCE = 0.04
"""Colour error in [0, 1] against which depth errors are weighed."""
SLOPE_SHRINK = 0.5
"""Weight of a plane's residual variance against its explained variance when its slope is shrunk."""
MIN_FACING = 0.3
"""Cosine to the viewing ray below which a plane's slant is not believed."""


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Masked moments of one view's pixels over blocks of every size, from which leaves are cut."""

    sums: tuple[Float[Tensor, "13 _ _"], ...]
    """Per size: n, x, y, xx, xy, yy, d, dx, dy, dd, r, g, b summed over drawn pixels; x y in pixels from the centre of the
    coarsest block around, d inverse depth less ``reference``."""
    error: tuple[Float[Tensor, "_ _"], ...]
    """Per size but the finest that may be used, whose blocks are never cut: what is lost when the block is one Gaussian, in units
    of squared colour summed over pixels and channels."""
    reference: Float[Tensor, "h w"]
    """Mean inverse depth of each coarsest block."""
    levels: int
    """How many sizes, coarse to fine, may be used."""


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """Blocks chosen in one view, with the geometry of their Gaussians (world frame)."""

    view: int
    """Index of the view they were cut from."""
    level: Int[Tensor, " N"]
    """Index into SIZES."""
    block: Int[Tensor, "N 2"]
    """Row and column of the block at its size."""
    weight: Float[Tensor, " N"]
    """Drawn pixels in the block."""
    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    """Two tangential deviations for a spread of 1 (a block of side s has sigma s pixels), then one pixel along the normal."""
    rgb: Float[Tensor, "N 3"]
    """Mean colour of the drawn pixels."""

    def __len__(self) -> int:
        return len(self.level)


def _pool(maps: Float[Tensor, "C H W"], size: int) -> Float[Tensor, "C h w"]:
    return torch.nn.functional.avg_pool2d(maps[None], size)[0] * (size * size)


def _grow(maps: Shaped[Tensor, "*C h w"], factor: int) -> Shaped[Tensor, "*C H W"]:
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _pad(maps: Float[Tensor, "C H W"]) -> Float[Tensor, "C H2 W2"]:
    height, width = maps.shape[-2:]
    return torch.nn.functional.pad(maps, (0, -width % SIZES[0], 0, -height % SIZES[0]))


def build_pyramid(
    image: Float[Tensor, "H W 3"],
    depth: Float[Tensor, "H W"],
    drawn: Bool[Tensor, "H W"],
    *,
    finest: int = 1,
    boost: Float[Tensor, "H W"] | None = None,
) -> Pyramid:
    """Sum the moments of the drawn pixels over blocks of every size and price each block.

    Inverse depth is linear in pixel position on a plane, so a block's plane is a weighted linear fit whose residual
    follows from the moments alone.

    Args:
        drawn: pixels this view has to draw.
        finest: smallest block side allowed, one of SIZES.
        boost: factor on the price of each pixel (importance); None means 1.
    """
    big = SIZES[0]
    m = _pad(drawn.float()[None])[0]
    inverse = _pad(torch.where(drawn, 1.0 / depth.clamp_min(1e-8), torch.zeros_like(depth))[None])[0]
    coarse = _pool(torch.stack([m, inverse]), big)
    reference = coarse[1] / coarse[0].clamp_min(1e-6)
    d = (inverse - _grow(reference, big)) * m
    y = ((torch.arange(m.shape[0]) % big) + 0.5 - big / 2)[:, None] * m
    x = ((torch.arange(m.shape[1]) % big) + 0.5 - big / 2)[None] * m
    rgb = _pad(image.permute(2, 0, 1)) * m
    price = m if boost is None else m * _pad(boost[None])[0]
    sums = torch.stack([m, x, y, x * x, x * y, y * y, d, d * x, d * y, d * d, *rgb, (rgb * rgb).sum(0), price])
    per_size, errors = [], []
    for size in reversed(SIZES):
        if size > 1:
            sums = _pool(sums, 2)
        per_size.append(sums[:13])
        if size <= finest:
            continue
        n = sums[0].clamp_min(1e-6)
        color_error = (sums[13] - (sums[10:13] ** 2).sum(0) / n).clamp_min(0)
        residual = _fit_plane(sums[:10])[3]
        mean_inverse = _grow(reference, big // size).clamp_min(1e-8)
        relative = (residual / (mean_inverse * PLANE_TOLERANCE) ** 2).minimum(4.0 * n)
        errors.append((color_error + relative * COLOR_TOLERANCE**2) * (sums[14] / n))
    levels = SIZES.index(finest) + 1
    return Pyramid(sums=tuple(reversed(per_size)), error=tuple(reversed(errors)), reference=reference, levels=levels)


def _fit_plane(s: Float[Tensor, "C *N"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least-squares plane of d over x, y from moments, slightly ridged so that a lone pixel gets no slope.

    Slopes are shrunk where the residual is not small against what they explain, because a slope read from noise turns a
    block into a needle.

    Returns:
        Mean of d, slope along x, slope along y, and the sum of squared residuals of the unshrunk plane.
    """
    n = s[0].clamp_min(1e-6)
    mx, my, md = s[1] / n, s[2] / n, s[6] / n
    sxx = s[3] / n - mx * mx + 0.02
    sxy = s[4] / n - mx * my
    syy = s[5] / n - my * my + 0.02
    sxd, syd, sdd = s[7] / n - mx * md, s[8] / n - my * md, s[9] / n - md * md
    det = (sxx * syy - sxy * sxy).clamp_min(1e-9)
    b, c = (sxd * syy - syd * sxy) / det, (syd * sxx - sxd * sxy) / det
    explained = (b * sxd + c * syd).clamp_min(0)
    residual = (sdd - explained).clamp_min(0)
    trust = explained / (explained + SLOPE_SHRINK * residual).clamp_min(1e-20)
    return md, b * trust, c * trust, n * residual


def choose_blocks(pyramid: Pyramid, price: float) -> list[Bool[Tensor, "_ _"]]:
    """Cut every block whose loss exceeds ``price``, top down; returns the leaves of each size as masks."""
    leaves: list[Tensor] = []
    alive = torch.ones_like(pyramid.reference, dtype=torch.bool)
    for level in range(pyramid.levels):
        alive = alive & (pyramid.sums[level][0] > 0)
        split = alive & (pyramid.error[level] > price) if level < pyramid.levels - 1 else torch.zeros_like(alive)
        leaves.append(alive & ~split)
        alive = _grow(split, 2)
    return leaves


def price_for_budget(pyramids: Sequence[Pyramid], budget: int) -> float:
    """The lowest price whose leaves fit the budget.

    A block is cut when its own loss and those of all blocks around it exceed the price, so the smallest of these is the
    price at which it stops being cut; cutting it adds its non-empty children less one. Sorting these prices once gives
    the number of leaves at any price.
    """
    total, prices, gains = 0, [], []
    for pyramid in pyramids:
        total += int((pyramid.sums[0][0] > 0).sum())
        bound = torch.full_like(pyramid.reference, torch.inf)
        for level in range(pyramid.levels - 1):
            filled = pyramid.sums[level][0] > 0
            bound = torch.minimum(bound, pyramid.error[level])
            children = _pool((pyramid.sums[level + 1][0] > 0).float()[None], 2)[0]
            prices.append(bound[filled])
            gains.append(children[filled] - 1)
            bound = _grow(bound, 2)
    if not prices or total >= budget:
        return float("inf")
    price, order = torch.cat(prices).sort(descending=True)
    count = total + torch.cat(gains)[order].double().cumsum(0)
    fits = int((count <= budget).sum())
    return 0.0 if fits == len(price) else float(price[fits])


def cut_leaves(pyramid: Pyramid, price: float, *, view: int, K: Float[Tensor, "3 3"], T_world_cam: Float[Tensor, "4 4"]) -> Leaves:
    """Turn the blocks that a price leaves of one view into planar Gaussians."""
    return blocks_to_leaves(pyramid, choose_blocks(pyramid, price), view=view, K=K, T_world_cam=T_world_cam)


def blocks_to_leaves(
    pyramid: Pyramid,
    chosen: Sequence[Bool[Tensor, "_ _"]],
    *,
    view: int,
    K: Float[Tensor, "3 3"],
    T_world_cam: Float[Tensor, "4 4"],
) -> Leaves:
    """Turn chosen blocks of one view into planar Gaussians, coarse to fine and row by row.

    A block's inverse-depth plane gives the point under its centroid, the tangents per pixel and the normal; the pixel
    covariance of its drawn part, carried over by the tangents, gives the two tangential axes.
    Blocks of one or two pixels borrow the slopes of the four-pixel block around them, because they cannot tell their own.

    Args:
        chosen: per size, coarse to fine, which blocks; each of them has drawn pixels.
    """
    parts = []
    slopes_from, big = SIZES.index(4), SIZES[0]
    for level, mask in enumerate(chosen):
        rows, cols = torch.nonzero(mask, as_tuple=True)
        if len(rows) == 0:
            continue
        s = pyramid.sums[level][:, rows, cols]
        n = s[0]
        mean_d, b, c, _ = _fit_plane(s)
        if level > slopes_from:
            step = SIZES[slopes_from] // SIZES[level]
            _, b, c, _ = _fit_plane(pyramid.sums[slopes_from][:, rows // step, cols // step])
        across = big // SIZES[level]
        offset = torch.stack([s[1], s[2]], dim=-1) / n[:, None]
        coarse = torch.stack([cols // across, rows // across], dim=-1)
        center = (coarse + 0.5) * big + offset
        inverse = (pyramid.reference[rows // across, cols // across] + mean_d).clamp_min(1e-8)
        moment = (torch.stack([s[3], s[4], s[4], s[5]], dim=-1) / n[:, None]).reshape(-1, 2, 2)
        covariance = moment - offset[:, :, None] * offset[:, None, :] + torch.eye(2) / 12
        geometry = _plane_gaussians(center, inverse, torch.stack([b, c], dim=-1), 12 * covariance, K)
        parts.append((torch.full_like(rows, level), torch.stack([rows, cols], dim=-1), n, *geometry, (s[10:13] / n).T))
    if not parts:
        empty = torch.zeros(0)
        return Leaves(
            view=view, level=empty.long(), block=torch.zeros(0, 2).long(), weight=empty, means=torch.zeros(0, 3),
            quats=torch.zeros(0, 4), scales=torch.zeros(0, 3), rgb=torch.zeros(0, 3),
        )  # fmt: skip
    level, block, weight, means_cam, R_cam_local, scales, rgb = (torch.cat(column) for column in zip(*parts, strict=True))
    R_world_cam = T_world_cam[:3, :3]
    means = means_cam @ R_world_cam.T + T_world_cam[:3, 3]
    quats = rotations_to_quats(R_world_cam @ R_cam_local)
    return Leaves(view=view, level=level, block=block, weight=weight, means=means, quats=quats, scales=scales, rgb=rgb)


def _plane_gaussians(
    center: Float[Tensor, "N 2"],
    inverse: Float[Tensor, " N"],
    slopes: Float[Tensor, "N 2"],
    covariance_px: Float[Tensor, "N 2 2"],
    K: Float[Tensor, "3 3"],
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3 3"], Float[Tensor, "N 3"]]:
    """Point, axes and deviations (camera frame) of pixel blobs lying on planes of inverse depth."""
    ray = rays_cam(center, K)
    focal = torch.stack([K[0, 0], K[1, 1]])
    length = ray.norm(dim=-1)
    # The normal is ((b fx), (c fy), inverse depth along the ray minus the slopes); its z part follows from n . ray = inverse.
    tilt = slopes * focal
    normal = torch.cat([tilt, (inverse - (tilt * ray[:, :2]).sum(-1))[:, None]], dim=-1)
    facing = inverse / (normal.norm(dim=-1) * length).clamp_min(1e-12)
    slopes = slopes * (facing / MIN_FACING).clamp(max=1.0)[:, None]
    z = 1.0 / inverse
    along_x = torch.stack([z / K[0, 0], torch.zeros_like(z), torch.zeros_like(z)], dim=-1) - ray * (slopes[:, 0] * z * z)[:, None]
    along_y = torch.stack([torch.zeros_like(z), z / K[1, 1], torch.zeros_like(z)], dim=-1) - ray * (slopes[:, 1] * z * z)[:, None]
    J = torch.stack([along_x, along_y], dim=-1)
    L = J @ torch.linalg.cholesky(covariance_px + 1e-6 * torch.eye(2))
    M = L.transpose(1, 2) @ L
    values, vectors = torch.linalg.eigh(M / M.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None].clamp_min(1e-30))
    values = values * M.diagonal(dim1=1, dim2=2).sum(-1)[:, None]
    deviations = values.clamp_min(1e-24).sqrt()
    axes = (L @ vectors) / deviations[:, None, :]
    third = torch.linalg.cross(axes[:, :, 0], axes[:, :, 1])
    rotation = torch.cat([axes, torch.nn.functional.normalize(third, dim=-1)[:, :, None]], dim=-1)
    pixel = z / focal.mean()
    return ray * z[:, None], rotation, torch.cat([deviations, pixel[:, None]], dim=-1)


def pool_attributes(leaves: Leaves, maps: Float[Tensor, "H W C"], drawn: Bool[Tensor, "H W"]) -> Float[Tensor, "N C"]:
    """Average attribute maps over the drawn pixels of each leaf. Differentiable in ``maps``."""
    m = drawn.float()[None]
    stacked = _pad(torch.cat([maps.permute(2, 0, 1) * m, m]))
    out = maps.new_zeros(len(leaves), maps.shape[2])
    for level, size in enumerate(SIZES):
        at = torch.nonzero(leaves.level == level)[:, 0]
        if len(at):
            pooled = _pool(stacked, size)[:, leaves.block[at, 0], leaves.block[at, 1]]
            out = out.index_copy(0, at, (pooled[:-1] / pooled[-1:].clamp_min(1e-6)).T)
    return out


def leaves_to_gaussians(
    leaves: Leaves,
    *,
    opacity: Float[Tensor, " N"],
    log_scale: Float[Tensor, "N 2"],
    color_delta: Float[Tensor, "N 3"],
    spread: float,
) -> Gaussians:
    """Give leaves their appearance. Differentiable in the attributes.

    Args:
        opacity: in (0, 1).
        log_scale: natural logarithm of the factors on the tangential and on the normal deviation.
        color_delta: added to the mean colour.
        spread: sigma of a block in units of its side.
    """
    factor = log_scale.exp()
    scales = torch.cat([leaves.scales[:, :2] * spread * factor[:, :1], leaves.scales[:, 2:] * spread * factor[:, 1:]], dim=-1)
    return Gaussians(
        means=leaves.means,
        quats=leaves.quats,
        scales=scales,
        opacities=opacity.clamp(1e-4, 1 - 1e-4),
        sh=rgb_to_sh0(leaves.rgb + color_delta)[:, None],
    )
