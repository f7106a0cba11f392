"""Which view draws which piece of surface, so that nothing is drawn twice.

Input: averaged depth, trust and cameras of all views. Output: per view the pixels it draws surely and softly.
Does not: make Gaussians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry import backproject, transform
from ..polishing.workers import over_rows
from ..records import Cameras
from . import kernels

SAME_SURFACE_REL = 0.02
"""Two depths closer than this are one surface."""
FINER = 1.4
"""A view draws a surface again only where its pixels are this much finer than those of the view that drew it."""
TRUST_SHARE = 0.6
"""Share of its own trust that a view's pixel wants of the view that draws its surface instead."""
MOST_POINTS = 100_000
"""Points of a view that fill cells of others."""
CELL_PX = 4
"""Cell in which a surely drawn point makes a soft one unnecessary."""


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """What each view draws."""

    sure: tuple[Bool[Tensor, "_ _"], ...]
    """Pixels with trusted depth that no earlier view draws as finely."""
    soft: tuple[Bool[Tensor, "_ _"], ...]
    """Pixels whose depth is a guess and that no trusted surface fills."""


def assign_pixels(
    cameras: Cameras,
    depth: Sequence[Float[Tensor, "_ _"]],
    trust: Sequence[Float[Tensor, "_ _"]],
    valid: Sequence[Bool[Tensor, "_ _"]],
    *,
    sure_above: float,
    soft_above: float,
) -> Ownership:
    """Let views draw in order of how finely they see; a pixel is left out where an earlier view drew its surface.

    An earlier view that agrees in depth either drew the spot or left it to one still earlier, so leaving it out opens no
    hole. Soft pixels are drawn last, and only where the trusted points of the other views leave their cell empty.

    Args:
        sure_above: trust from which depth is used as it is.
        soft_above: trust below which a pixel is not drawn at all.
    """
    views = len(depth)
    footprint = [float(depth[i].median()) / float(cameras.K[i, 0, 0]) for i in range(views)]
    order = sorted(range(views), key=lambda i: footprint[i])
    sure: list[Tensor] = [torch.zeros(0, dtype=torch.bool)] * views
    drawable = [(trust[i] * valid[i]).float().contiguous() for i in range(views)]
    z = [d.float().contiguous() for d in depth]
    for place, i in enumerate(order):
        open_pixels = valid[i] & (trust[i] >= sure_above)
        left = open_pixels.clone()
        for j in order[:place]:
            A, b = kernels.from_to(cameras, i, j)
            deeper = FINER * float(cameras.K[j, 0, 0]) / float(cameras.K[i, 0, 0])
            limits = torch.tensor([SAME_SURFACE_REL, sure_above, TRUST_SHARE, deeper])
            given = (z[i], drawable[i], left, A, b, z[j], drawable[j], limits)
            over_rows(kernels.leave_out, len(left), *(t.numpy() for t in given))
        sure[i] = _despeckle(left, open_pixels)
    points = [_some_points(cameras, z[i], sure[i], i) for i in range(views)]
    soft = []
    for i in range(views):
        wanted = valid[i] & (trust[i] < sure_above) & (trust[i] >= soft_above)
        filled = _filled_cells(cameras, i, points) if bool(wanted.any()) else torch.zeros_like(wanted)
        soft.append(wanted & ~filled)
    return Ownership(sure=tuple(sure), soft=tuple(soft))


def _despeckle(mask: Bool[Tensor, "H W"], allowed: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Remove lone pixels, fill pinholes by a 3x3 majority and grow by one pixel, within the allowed pixels.

    Without the overlap a dark seam shows where two views' parts of one surface meet.
    """
    votes = torch.nn.functional.avg_pool2d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0]
    kept = (mask & (votes > 0.3)) | (votes > 0.7)
    grown = torch.nn.functional.max_pool2d(kept[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    return grown & allowed


def _some_points(cameras: Cameras, depth: Tensor, drawn: Tensor, index: int) -> Float[Tensor, "N 3"]:
    """World positions of a view's drawn pixels, at most about MOST_POINTS of them."""
    points_cam = backproject(depth, cameras.K[index].float())[drawn]
    return transform(cameras.T_world_cam[index].float(), points_cam[:: max(1, len(points_cam) // MOST_POINTS)]).contiguous()


def _filled_cells(cameras: Cameras, index: int, points: list[Tensor]) -> Bool[Tensor, "H W"]:
    """Pixels of a view into whose cell trusted points of other views project."""
    width, height = cameras.width[index], cameras.height[index]
    counts = torch.zeros(-(-height // CELL_PX), -(-width // CELL_PX), dtype=torch.int32)
    T_cam_world, K = cameras.T_cam_world[index].float().contiguous().numpy(), cameras.K[index].float().contiguous().numpy()
    for j, p in enumerate(points):
        if j != index:
            kernels.count_cells(p.numpy(), T_cam_world, K, width, height, CELL_PX, counts.numpy())
    return (counts > 1).repeat_interleave(CELL_PX, 0).repeat_interleave(CELL_PX, 1)[:height, :width]
