"""Height fields: bumps, ridges and terraces on square grids, where rays meet them, and random ones.

Input: a random generator, or grids and a ray in the grid's frame. Output: grids, parameters of hits, slopes.
Does not: place them in a world; ``scenes`` does.

A grid spans [-1, 1] in x and y and holds heights in [-1, 1]; between its points they are bilinear, so that along a ray each cell
asks for the roots of one quadratic and nothing is approximated.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from jaxtyping import Float

from .both_targets import floor, greater, lesser

__all__ = ["height_at", "height_gradient", "height_hit", "height_slope", "reliefs"]

NO_HIT = 1e30
RIM = 0.12
"""Share of a terrain's half width in which it sinks to its lowest level."""


@nb.njit(fastmath=True, error_model="numpy")
def _root_between(a, b, c, end):
    """Smallest root in [0, end] of ``a s^2 + b s + c``, or -1. A change of sign over the span always has one."""
    last = (a * end + b) * end + c
    if c * last <= 0:
        root = math.sqrt(greater(b * b - 4.0 * a * c, 0.0))
        q = -0.5 * (b + math.copysign(root, b))
        one = q / a if abs(a) > 1e-30 else NO_HIT
        two = c / q if abs(q) > 1e-30 else 0.0
        low, high = lesser(one, two), greater(one, two)
        found = low if low >= -1e-9 else high
        return lesser(greater(found, 0.0), end)
    square = b * b - 4.0 * a * c
    if square > 0 and abs(a) > 1e-30:
        middle = -0.5 * b / a
        if 0 < middle < end:
            low = middle - 0.5 * math.sqrt(square) / abs(a)
            if low > 0:
                return low
    return -1.0


@nb.njit(fastmath=True, error_model="numpy")
def height_hit(heights, which, enter, leave, ox, oy, oz, dx, dy, dz):
    """First parameter between ``enter`` and ``leave`` at which a ray meets a height field, walking from cell to cell.

    Source: Amanatides and Woo, "A fast voxel traversal algorithm for ray tracing", 1987.
    """
    grid = heights[which]
    cells = grid.shape[0] - 1
    x, y = (ox + enter * dx + 1.0) * 0.5 * cells, (oy + enter * dy + 1.0) * 0.5 * cells
    step_x, step_y = 0.5 * cells * dx, 0.5 * cells * dy
    i, j = lesser(greater(floor(x), 0), cells - 1), lesser(greater(floor(y), 0), cells - 1)
    way_x, way_y = 1 if step_x > 0 else -1, 1 if step_y > 0 else -1
    each_x = 1.0 / abs(step_x) if abs(step_x) > 1e-12 else NO_HIT
    each_y = 1.0 / abs(step_y) if abs(step_y) > 1e-12 else NO_HIT
    next_x = ((i + 1 - x) if way_x > 0 else (x - i)) * each_x
    next_y = ((j + 1 - y) if way_y > 0 else (y - j)) * each_y
    span, at = leave - enter, 0.0
    z = oz + enter * dz
    while True:
        until = lesser(span, lesser(next_x, next_y))
        h00, h10, h01, h11 = grid[j, i], grid[j, i + 1], grid[j + 1, i], grid[j + 1, i + 1]
        z0, z1 = z + at * dz, z + until * dz
        lowest, highest = lesser(lesser(h00, h10), lesser(h01, h11)), greater(greater(h00, h10), greater(h01, h11))
        if until >= at and lesser(z0, z1) <= highest and greater(z0, z1) >= lowest:
            u, v = x + at * step_x - i, y + at * step_y - j
            hx, hy, hxy = h10 - h00, h01 - h00, h00 - h10 - h01 + h11
            s = _root_between(
                -hxy * step_x * step_y,
                dz - hx * step_x - hy * step_y - hxy * (u * step_y + v * step_x),
                z0 - h00 - hx * u - hy * v - hxy * u * v,
                until - at,
            )
            if s >= 0:
                return enter + at + s
        if until >= span:
            return NO_HIT
        at = until
        if next_x < next_y:
            i, next_x = i + way_x, next_x + each_x
        else:
            j, next_y = j + way_y, next_y + each_y
        if i < 0 or j < 0 or i >= cells or j >= cells:
            return NO_HIT


@nb.njit(fastmath=True, error_model="numpy")
def height_slope(heights, which, x, y):
    """Slopes along x and y, blended from central differences at the four nearest points so that shading is smooth."""
    grid = heights[which]
    cells = grid.shape[0] - 1
    u, v = (x + 1.0) * 0.5 * cells, (y + 1.0) * 0.5 * cells
    i, j = lesser(greater(floor(u), 0), cells - 1), lesser(greater(floor(v), 0), cells - 1)
    u, v = u - i, v - j
    slope_x = slope_y = 0.0
    for b in range(2):
        for a in range(2):
            weight = (u if a else 1.0 - u) * (v if b else 1.0 - v)
            row, column = j + b, i + a
            left, right = greater(column - 1, 0), lesser(column + 1, cells)
            upper, lower = greater(row - 1, 0), lesser(row + 1, cells)
            slope_x += weight * (grid[row, right] - grid[row, left]) / (right - left)
            slope_y += weight * (grid[lower, column] - grid[upper, column]) / (lower - upper)
    return slope_x * 0.5 * cells, slope_y * 0.5 * cells


@nb.njit(fastmath=True, error_model="numpy")
def height_gradient(heights, which, x, y):
    """Slopes along x and y of the bilinear cell itself, as rays meet it; they jump from cell to cell."""
    grid = heights[which]
    cells = grid.shape[0] - 1
    u, v = (x + 1.0) * 0.5 * cells, (y + 1.0) * 0.5 * cells
    i, j = lesser(greater(floor(u), 0), cells - 1), lesser(greater(floor(v), 0), cells - 1)
    u, v = u - i, v - j
    h00, h10, h01, h11 = grid[j, i], grid[j, i + 1], grid[j + 1, i], grid[j + 1, i + 1]
    slope_x = (1.0 - v) * (h10 - h00) + v * (h11 - h01)
    slope_y = (1.0 - u) * (h01 - h00) + u * (h11 - h10)
    return slope_x * 0.5 * cells, slope_y * 0.5 * cells


def height_at(grid: Float[np.ndarray, "P P"], x: float, y: float) -> float:
    """Height at a place of the frame; beside the grid that of its corner."""
    if max(abs(x), abs(y)) >= 1:
        return float(grid[0, 0])
    u, v = (np.array([x, y]) + 1) / 2 * (len(grid) - 1)
    i, j = int(u), int(v)
    above = grid[j, i] * (i + 1 - u) + grid[j, i + 1] * (u - i)
    return float(above * (j + 1 - v) + (grid[j + 1, i] * (i + 1 - u) + grid[j + 1, i + 1] * (u - i)) * (v - j))


def reliefs(rng: np.random.Generator, count: int, points: int = 65) -> Float[np.ndarray, "G N N"]:
    """Random height fields: octaves of noise as they are, as ridges or in terraces.

    Args:
        count: how many; the first half sink to -1 at their rim, as terrain that stands on a plain.
        points: on a side.
    """
    out = np.empty((count, points, points), np.float32)
    across = np.linspace(-1, 1, points)
    inside = np.clip((1 - np.maximum(np.abs(across)[:, None], np.abs(across)[None])) / RIM, 0, 1)
    for index in range(count):
        height, weight = np.zeros((points, points)), 1.0
        for octave in range(int(rng.integers(3, 6))):
            height += weight * _smooth_noise(rng, int(rng.integers(2, 5)) * 2**octave + 1, points)
            weight *= rng.uniform(0.3, 0.6)
        kind = rng.random()
        if kind < 0.3:
            height = -np.abs(height)
        elif kind < 0.5:
            steps = rng.uniform(1.5, 4.0)
            height = (np.floor(height * steps) + np.clip((height * steps) % 1 * 4, 0, 1)) / steps
        height = 2 * (height - height.min()) / max(float(np.ptp(height)), 1e-9) - 1
        out[index] = (height + 1) * inside - 1 if index < count // 2 else height
    return out


def _smooth_noise(rng: np.random.Generator, knots: int, points: int) -> Float[np.ndarray, "N N"]:
    """Random values at ``knots`` x ``knots`` places, blended by cosines between them."""
    values = rng.normal(0, 1, (knots, knots))
    at = np.linspace(0, knots - 1, points)
    low = np.minimum(at.astype(int), knots - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (at - low))
    rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share
