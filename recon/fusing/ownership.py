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

from ..geometry import backproject, inside_image, project, sample_image, transform
from ..records import Cameras

SAME_SURFACE_REL = 0.02
"""Two depths closer than this are one surface."""
FINER = 1.4
"""A view draws a surface again only where its pixels are this much finer than those of the view that drew it."""
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
    T_cam_world = cameras.T_cam_world.float()
    footprint = [float(depth[i].median()) / float(cameras.K[i, 0, 0]) for i in range(views)]
    order = sorted(range(views), key=lambda i: footprint[i])
    sure: list[Tensor] = [torch.zeros(0, dtype=torch.bool)] * views
    points = [transform(cameras.T_world_cam[i].float(), backproject(depth[i], cameras.K[i].float())) for i in range(views)]
    for place, i in enumerate(order):
        open_pixels = valid[i] & (trust[i] >= sure_above)
        rows, cols = torch.nonzero(open_pixels, as_tuple=True)
        p, own_z, own_trust = points[i][rows, cols], depth[i][rows, cols], trust[i][rows, cols]
        left = torch.ones(len(rows), dtype=torch.bool)
        for j in order[:place]:
            at = torch.nonzero(left)[:, 0]
            pixels, z = project(transform(T_cam_world[j], p[at]), cameras.K[j].float())
            there = sample_image(torch.stack([depth[j], trust[j], valid[j].float()], dim=-1), pixels, mode="nearest")
            same = ((z - there[:, 0]).abs() < SAME_SURFACE_REL * z) & inside_image(pixels, cameras.width[j], cameras.height[j])
            fine = z / cameras.K[j, 0, 0].float() < FINER * own_z[at] / cameras.K[i, 0, 0].float()
            drawn_there = (there[:, 1] >= sure_above) & (there[:, 1] > 0.6 * own_trust[at]) & (there[:, 2] > 0.5)
            left[at[(z > 0) & same & fine & drawn_there]] = False
        mask = torch.zeros_like(open_pixels)
        mask[rows[left], cols[left]] = True
        sure[i] = _despeckle(mask, open_pixels)
    soft = []
    for i in range(views):
        wanted = valid[i] & (trust[i] < sure_above) & (trust[i] >= soft_above)
        filled = _filled_cells(i, cameras, T_cam_world, [points[j][sure[j]] for j in range(views)])
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


def _filled_cells(index: int, cameras: Cameras, T_cam_world: Tensor, points: list[Tensor]) -> Bool[Tensor, "H W"]:
    """Pixels of a view into whose cell some view's trusted point projects."""
    width, height = cameras.width[index], cameras.height[index]
    columns, rows = -(-width // CELL_PX), -(-height // CELL_PX)
    count = torch.zeros(rows * columns)
    for j, p in enumerate(points):
        if j == index or len(p) == 0:
            continue
        pixels, z = project(transform(T_cam_world[index], p[:: max(1, len(p) // 100_000)]), cameras.K[index].float())
        ok = inside_image(pixels, width, height) & (z > 0)
        cell = (pixels[ok] / CELL_PX).long()
        count.index_add_(0, cell[:, 1] * columns + cell[:, 0], torch.ones(len(cell)))
    filled = (count > 1).reshape(rows, columns)
    return filled.repeat_interleave(CELL_PX, 0).repeat_interleave(CELL_PX, 1)[:height, :width]
