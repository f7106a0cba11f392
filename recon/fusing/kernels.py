"""The pixel loops of evidence and ownership, compiled for the CPU.

Input: maps of two views and how pixels of one fall into the other. Output: sums and masks, changed in place.
Does not: decide anything; what the numbers mean is said where they are used. Readable twins stand in the tests.

Geometry: a pixel ``p = (u, v, 1)`` at z-depth ``d`` is seen by the other view at ``q = d A p + b``, with ``A = K_o R_o_r K_r^-1``
and ``b = K_o t_o_r``; its depth there is ``q_z``, since the last row of ``K`` is 0 0 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..polishing.workers import kernel
from ..records import Cameras

__all__ = ["AGREE_REL", "LEAST", "compare", "count_cells", "from_to", "leave_out"]

AGREE_REL = 0.015
"""Relative depth difference at which agreement has fallen to 1/e."""
LEAST, SUPPORT, VIOLATION, INFORMED, COLOR, COLOR_WEIGHT, DEPTH, DEPTH_WEIGHT = range(8)
"""Channels of what ``compare`` adds up."""
NO_AGREEMENT = 5.0
"""Differences of so many AGREE_REL count as no agreement at all: exp(-25)."""


def from_to(cameras: Cameras, source: int, target: int) -> tuple[Float[Tensor, "3 3"], Float[Tensor, " 3"]]:
    """``A`` and ``b`` from pixels of one view to another, found in float64."""
    T_target_source = cameras.T_cam_world[target].double() @ cameras.T_world_cam[source].double()
    K = cameras.K.double()
    A = K[target] @ T_target_source[:3, :3] @ torch.linalg.inv(K[source])
    return A.float(), (K[target] @ T_target_source[:3, 3]).float()


@kernel
def compare(begin, end, depth, image, A, b, other_depth, other_confidence, other_image, sums):
    """Add what one neighbour says about rows [begin, end) to ``sums`` (``H W 8``)."""
    height, width = other_depth.shape
    half, one = np.float32(0.5), np.float32(1.0)
    for y in range(begin, end):
        v = np.float32(y) + half
        for x in range(depth.shape[1]):
            u, d = np.float32(x) + half, depth[y, x]
            z = d * (A[2, 0] * u + A[2, 1] * v + A[2, 2]) + b[2]
            if not z > 0:
                continue
            px = (d * (A[0, 0] * u + A[0, 1] * v + A[0, 2]) + b[0]) / z
            py = (d * (A[1, 0] * u + A[1, 1] * v + A[1, 2]) + b[1]) / z
            if not (px >= 0 and py >= 0 and px < width and py < height):
                continue
            px, py = max(px - half, np.float32(0.0)), max(py - half, np.float32(0.0))
            column, row = min(int(px), width - 1), min(int(py), height - 1)
            right, below = min(column + 1, width - 1), min(row + 1, height - 1)
            fx, fy = px - np.float32(column), py - np.float32(row)
            w00, w01, w10, w11 = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
            there = (
                w00 * other_depth[row, column] + w01 * other_depth[row, right]
                + w10 * other_depth[below, column] + w11 * other_depth[below, right]
            )  # fmt: skip
            sure = (
                w00 * other_confidence[row, column] + w01 * other_confidence[row, right]
                + w10 * other_confidence[below, column] + w11 * other_confidence[below, right]
            )  # fmt: skip
            relative = (z - there) / max(z, np.float32(1e-8))
            cell = sums[y, x]
            cell[LEAST] = min(cell[LEAST], abs(relative))
            if relative <= np.float32(3 * AGREE_REL):
                cell[INFORMED] += sure
            if relative < np.float32(-3 * AGREE_REL):
                cell[VIOLATION] += sure
            if abs(relative) > np.float32(NO_AGREEMENT * AGREE_REL):
                continue
            ratio = relative / np.float32(AGREE_REL)
            weight = sure * np.float32(math.exp(-ratio * ratio))
            difference = np.float32(0.0)
            for c in range(3):
                color = (
                    w00 * other_image[row, column, c] + w01 * other_image[row, right, c]
                    + w10 * other_image[below, column, c] + w11 * other_image[below, right, c]
                )  # fmt: skip
                difference += abs(color - image[y, x, c])
            cell[SUPPORT] += weight
            cell[COLOR] += weight * difference / np.float32(3.0)
            cell[COLOR_WEIGHT] += weight
            cell[DEPTH] += weight * d * there / max(z, np.float32(1e-8))
            cell[DEPTH_WEIGHT] += weight


@kernel
def leave_out(begin, end, depth, trust, left, A, b, other_depth, other_trust, limits):
    """Clear ``left`` (``H W``) in rows [begin, end) where the other view draws the same surface as finely.

    Args:
        other_trust: 0 where the other view's pixels are masked.
        limits: largest relative difference of one surface, least trust that is drawn, least share of one's own trust, and
            how much deeper the other view may see a surface and still see it finely enough.
    """
    height, width = other_depth.shape
    half = np.float32(0.5)
    same, least, share, deeper = limits[0], limits[1], limits[2], limits[3]
    for y in range(begin, end):
        v = np.float32(y) + half
        for x in range(depth.shape[1]):
            if not left[y, x]:
                continue
            u, d = np.float32(x) + half, depth[y, x]
            z = d * (A[2, 0] * u + A[2, 1] * v + A[2, 2]) + b[2]
            if not (z > 0 and z < deeper * d):
                continue
            px = (d * (A[0, 0] * u + A[0, 1] * v + A[0, 2]) + b[0]) / z
            py = (d * (A[1, 0] * u + A[1, 1] * v + A[1, 2]) + b[1]) / z
            if not (px >= 0 and py >= 0 and px < width and py < height):
                continue
            column, row = min(int(px), width - 1), min(int(py), height - 1)
            if abs(z - other_depth[row, column]) < same * z:
                believed = other_trust[row, column]
                if believed >= least and believed > share * trust[y, x]:
                    left[y, x] = False


@kernel
def count_cells(points_world, T_cam_world, K, width, height, cell_px, counts):
    """Count the points that fall into each cell (``rows columns``) of a view."""
    for n in range(points_world.shape[0]):
        x, y, z = points_world[n, 0], points_world[n, 1], points_world[n, 2]
        depth = T_cam_world[2, 0] * x + T_cam_world[2, 1] * y + T_cam_world[2, 2] * z + T_cam_world[2, 3]
        if not depth > 0:
            continue
        px = (T_cam_world[0, 0] * x + T_cam_world[0, 1] * y + T_cam_world[0, 2] * z + T_cam_world[0, 3]) / depth
        py = (T_cam_world[1, 0] * x + T_cam_world[1, 1] * y + T_cam_world[1, 2] * z + T_cam_world[1, 3]) / depth
        px, py = px * K[0, 0] + K[0, 2], py * K[1, 1] + K[1, 2]
        if px >= 0 and py >= 0 and px < width and py < height:
            counts[int(py) // cell_px, int(px) // cell_px] += 1
