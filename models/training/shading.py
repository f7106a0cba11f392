"""What a ray meets first, whether light reaches it there, and its colour.

Input: a ``World`` of primitives, ``Eyes`` that look at it, a texture atlas, one ray. Output: hits, normals, colours.
Does not: go through photos; ``raycast`` does that with a processor's cores, ``raycast_cuda`` with a GPU's threads, and both
call what is here, so that a seed means one world on either. Numba's cache of ``raycast`` looks at that file alone: after an edit
here run with ``NUMBA_CACHE_DIR`` set to an empty folder.

Rays are scaled so that their parameter is z-depth. Each primitive is a unit shape in its own frame (``shapes``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from .both_targets import floor, greater, lesser, sign
from .shapes import CONE, CYLINDER, NO_HIT, ROOM, local_normal, true_normal, unit_hit

__all__ = [
    "PENUMBRA",
    "Eyes",
    "World",
    "first_hit",
    "geometry_of",
    "lit",
    "mean_lit",
    "mip_atlas",
    "ray_of",
    "shade",
    "sky_of",
    "surface_of",
    "to_local",
]

PENUMBRA = 4
"""Rays to different places of the light that neighbouring pixels of a row send, and over which their shadow is averaged."""


class World(NamedTuple):
    """What rays may meet."""

    primitives: np.ndarray
    """``V N FIELDS`` float32: what is there when each photo is taken."""
    heights: np.ndarray
    """``G P P`` float32: the height fields that primitives name."""


class Eyes(NamedTuple):
    """Where rays start and how they spread, photo by photo."""

    T_world_cam: np.ndarray
    """``V 4 4`` float32."""
    K: np.ndarray
    """``V 3 3`` float32."""
    bend: np.ndarray
    """``V`` float32: a ray through x, y of the plane z = 1 leaves along x, y times (1 + bend (x^2 + y^2)); 0 is a pinhole."""


def mip_atlas(textures: np.ndarray) -> tuple[np.ndarray, ...]:
    """Halve ``T S S 3`` uint8 textures down to 8 pixels; S is a power of two."""
    if textures.shape[1] & (textures.shape[1] - 1) or textures.shape[1] != textures.shape[2]:
        raise ValueError(f"textures: wanted squares of a power of two, got {textures.shape[1]} x {textures.shape[2]} pixels")
    levels = [np.ascontiguousarray(textures)]
    while levels[-1].shape[1] > 8:
        last = levels[-1].astype(np.float32)
        half = (last[:, ::2, ::2] + last[:, 1::2, ::2] + last[:, ::2, 1::2] + last[:, 1::2, 1::2]) / 4
        levels.append(np.rint(half).astype(np.uint8))
    return tuple(levels)


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def to_local(p, x, y, z):
    """Rotate a world vector into a primitive's frame and divide by its half sizes."""
    return (
        (p[4] * x + p[5] * y + p[6] * z) / p[13],
        (p[7] * x + p[8] * y + p[9] * z) / p[14],
        (p[10] * x + p[11] * y + p[12] * z) / p[15],
    )


@nb.njit(fastmath=True, error_model="numpy")
def ray_of(T_world_cam, K, bend, u, v, direction):
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    wider = 1 + bend * (x * x + y * y)
    x, y = x * wider, y * wider
    for i in range(3):
        direction[i] = T_world_cam[i, 0] * x + T_world_cam[i, 1] * y + T_world_cam[i, 2]


@nb.njit(fastmath=True, error_model="numpy")
def first_hit(primitives, heights, x, y, z, dx, dy, dz, through_walls):
    """Parameter and index of the first primitive that a ray from a point hits, or (NO_HIT, -1).

    Args:
        through_walls: leave rooms out.
    """
    best, index = NO_HIT, -1
    dd = dx * dx + dy * dy + dz * dz
    for n in range(primitives.shape[0]):
        p = primitives[n]
        if through_walls and p[0] == ROOM:
            continue
        cx, cy, cz = x - p[1], y - p[2], z - p[3]
        outside = cx * cx + cy * cy + cz * cz - p[25] * p[25]
        if outside > 0:
            cd = cx * dx + cy * dy + cz * dz
            if cd > 0 or cd * cd < dd * outside:
                continue
        lx, ly, lz = to_local(p, cx, cy, cz)
        mx, my, mz = to_local(p, dx, dy, dz)
        t = unit_hit(p, heights, lx, ly, lz, mx, my, mz)
        if t < best:
            best, index = t, n
    return best, index


@nb.njit(fastmath=True, error_model="numpy")
def lit(primitives, heights, light, at, normal, t, place):
    """1 where a point sees one place of the light, 0 where something hides it. A room's walls hide nothing."""
    aside = light[4] * ((place + 0.5) / PENUMBRA * 2 - 1)
    if abs(light[1]) < 0.9:
        tx, ty, tz = float(light[2]), 0.0, -float(light[0])
    else:
        tx, ty, tz = 0.0, float(light[2]), -float(light[1])
    aside /= math.sqrt(tx * tx + ty * ty + tz * tz)
    sx, sy, sz = light[0] + aside * tx, light[1] + aside * ty, light[2] + aside * tz
    norm = math.sqrt(sx * sx + sy * sy + sz * sz)
    sx, sy, sz = sx / norm, sy / norm, sz / norm
    if normal[0] * sx + normal[1] * sy + normal[2] * sz <= 0:
        return 0.0
    off = 2e-3 * t
    x, y, z = at[0] + off * normal[0], at[1] + off * normal[1], at[2] + off * normal[2]
    return 1.0 if first_hit(primitives, heights, x, y, z, sx, sy, sz, True)[1] < 0 else 0.0


@nb.njit(fastmath=True, error_model="numpy")
def mean_lit(bright, seen, column):
    """How much of the light a pixel sees: the mean over the neighbours in its row that show the same primitive."""
    among, total = 0, 0.0
    for other in range(greater(column - PENUMBRA // 2, 0), lesser(column + PENUMBRA // 2, len(seen))):
        if seen[other] == seen[column]:
            among += 1
            total += bright[other]
    return total / among


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def _turn_to_world(p, nx, ny, nz, direction, normal):
    """Write the world's unit vector towards the camera for a direction across the unit shape."""
    nx, ny, nz = nx / p[13], ny / p[14], nz / p[15]
    wx = p[4] * nx + p[7] * ny + p[10] * nz
    wy = p[5] * nx + p[8] * ny + p[11] * nz
    wz = p[6] * nx + p[9] * ny + p[12] * nz
    norm = math.sqrt(wx * wx + wy * wy + wz * wz) + 1e-12
    if wx * direction[0] + wy * direction[1] + wz * direction[2] > 0:
        norm = -norm
    normal[0], normal[1], normal[2] = wx / norm, wy / norm, wz / norm


@nb.njit(fastmath=True, error_model="numpy")
def surface_of(p, heights, at, direction, normal):
    """Write the unit normal towards the camera, in the world; return where in its texture a hit lies, by dominant axis."""
    hx, hy, hz = to_local(p, at[0] - p[1], at[1] - p[2], at[2] - p[3])
    nx, ny, nz = local_normal(p, heights, hx, hy, hz)
    x, y, z = hx * p[13], hy * p[14], hz * p[15]
    if p[0] in (CYLINDER, CONE) and abs(hz) < 0.999:
        u, v = math.atan2(hy, hx) * p[13], z
    elif abs(nx) >= abs(ny) and abs(nx) >= abs(nz):
        u, v = y + 0.37 * p[13] * sign(nx), z
    elif abs(ny) >= abs(nz):
        u, v = x + 0.21 * p[14] * sign(ny), z
    else:
        u, v = x + 0.11 * p[15] * sign(nz), y
    _turn_to_world(p, nx, ny, nz, direction, normal)
    return u * p[17], v * p[17]


@nb.njit(fastmath=True, error_model="numpy")
def geometry_of(p, heights, T_world_cam, t, direction, normal):
    """Write the unit normal towards the camera, in the camera's frame, of the surface that a ray meets at depth ``t``."""
    x, y, z = T_world_cam[0, 3] + t * direction[0], T_world_cam[1, 3] + t * direction[1], T_world_cam[2, 3] + t * direction[2]
    hx, hy, hz = to_local(p, x - p[1], y - p[2], z - p[3])
    nx, ny, nz = true_normal(p, heights, hx, hy, hz)
    _turn_to_world(p, nx, ny, nz, direction, normal)
    wx, wy, wz = float(normal[0]), float(normal[1]), float(normal[2])
    for i in range(3):
        normal[i] = T_world_cam[0, i] * wx + T_world_cam[1, i] * wy + T_world_cam[2, i] * wz


@nb.njit(fastmath=True, error_model="numpy")
def sample(atlas, texture, u, v, level, out):
    """Bilinear, mirrored look-up at one mip level; ``u v`` in texture widths."""
    image = atlas[lesser(greater(int(level), 0), len(atlas) - 1)]
    size = image.shape[1]
    x, y = u * size, v * size
    column, row = floor(x), floor(y)
    fx, fy = x - column, y - row
    around = 2 * size - 1  # sizes are powers of two, so that "and" is the remainder
    left, right, top, below = column & around, (column + 1) & around, row & around, (row + 1) & around
    left, right = lesser(left, around - left), lesser(right, around - right)
    top, below = lesser(top, around - top), lesser(below, around - below)
    w00, w01 = (1 - fx) * (1 - fy) / 255.0, fx * (1 - fy) / 255.0
    w10, w11 = (1 - fx) * fy / 255.0, fx * fy / 255.0
    for c in range(3):
        above = w00 * image[texture, top, left, c] + w01 * image[texture, top, right, c]
        out[c] = above + w10 * image[texture, below, left, c] + w11 * image[texture, below, right, c]


@nb.njit(fastmath=True, error_model="numpy")
def shade(p, atlas, light, lit, hit, direction, focal, out):
    """Colour of a primitive where it is hit: texture, Lambert light, a highlight when glossy. ``hit`` is u, v, depth, normal."""
    wx, wy, wz = hit[3], hit[4], hit[5]
    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    facing = -(wx * direction[0] + wy * direction[1] + wz * direction[2]) / reach
    texels = hit[2] / focal * p[17] * atlas[0].shape[1] / math.sqrt(greater(facing, 0.15))
    sample(atlas, int(p[16]), hit[0], hit[1], math.log2(greater(texels, 1.0)) + 0.3, out)
    lambert = greater(wx * light[0] + wy * light[1] + wz * light[2], 0.0) * lit
    shade = light[3] + (1 - light[3]) * lambert
    highlight = 0.0
    if p[24] > 0:
        along = 2 * facing
        rx, ry, rz = direction[0] / reach + along * wx, direction[1] / reach + along * wy, direction[2] / reach + along * wz
        highlight = lit * p[24] * greater(rx * light[0] + ry * light[1] + rz * light[2], 0.0) ** 24
    for c in range(3):
        out[c] = (p[21 + c] + p[18 + c] * out[c]) * shade + highlight


@nb.njit(fastmath=True, error_model="numpy")
def sky_of(atlas, sky, direction, focal, out):
    """Colour of the sky: a texture wrapped around and a haze at the horizon."""
    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    up = lesser(greater(-direction[1] / reach, 0.0), 1.0)
    u, v = math.atan2(direction[0], direction[2]) * sky[1], direction[1] / reach * sky[1]
    sample(atlas, int(sky[0]), u, v, 1.0 + math.log2(greater(sky[1] * 256.0 / focal, 1.0)), out)
    for c in range(3):
        out[c] = sky[5 + c] * (1 - 0.5 * up) + sky[2 + c] * out[c]
