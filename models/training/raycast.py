"""Ray-cast analytic primitives with mip-mapped textures on the CPU.

Input: a ``World`` of primitives, ``Eyes`` that look at it, a texture atlas. Output: colours and exact z-depth.
Does not: decide what a world looks like (``worlds`` does) or imitate a camera (``photography`` does).

Rays are scaled so that their parameter is z-depth. Each primitive is a unit shape in its own frame (``shapes``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from .shapes import CONE, CYLINDER, NO_HIT, ROOM, local_normal, unit_hit

__all__ = ["Eyes", "World", "cast_colors", "cast_depth", "mip_atlas"]

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
def _to_local(p, x, y, z):
    """Rotate a world vector into a primitive's frame and divide by its half sizes."""
    return (
        (p[4] * x + p[5] * y + p[6] * z) / p[13],
        (p[7] * x + p[8] * y + p[9] * z) / p[14],
        (p[10] * x + p[11] * y + p[12] * z) / p[15],
    )


@nb.njit(fastmath=True, error_model="numpy")
def _ray(T_world_cam, K, bend, u, v, direction):
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    wider = 1 + bend * (x * x + y * y)
    x, y = x * wider, y * wider
    for i in range(3):
        direction[i] = T_world_cam[i, 0] * x + T_world_cam[i, 1] * y + T_world_cam[i, 2]


@nb.njit(fastmath=True, error_model="numpy")
def _reachable(primitives, eyes, view, v, width, around, active):
    """List the primitives that the rays of one pixel row may meet, with the camera as each of them sees it.

    The rays lie in a plane through the camera; what a bent ray leaves it by is allowed for. ``around`` receives the vector from the
    primitive's centre (3), its squared length less the bounding radius squared, and the camera in the primitive's frame (3).
    """
    T_world_cam, K, bend = eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
    y = (v - K[1, 2]) / K[1, 1]
    x = max(abs(K[0, 2]), abs(width - K[0, 2])) / K[0, 0]
    slack = abs(bend * y) * (x * x + y * y)
    nx = T_world_cam[0, 1] - y * T_world_cam[0, 2]
    ny = T_world_cam[1, 1] - y * T_world_cam[1, 2]
    nz = T_world_cam[2, 1] - y * T_world_cam[2, 2]
    norm = math.sqrt(1.0 + y * y)
    count = 0
    for n in range(primitives.shape[0]):
        p = primitives[n]
        cx, cy, cz = T_world_cam[0, 3] - p[1], T_world_cam[1, 3] - p[2], T_world_cam[2, 3] - p[3]
        away = cx * cx + cy * cy + cz * cz
        if abs(cx * nx + cy * ny + cz * nz) > norm * (1.001 * p[25]) + slack * math.sqrt(away):
            continue
        lx, ly, lz = _to_local(p, cx, cy, cz)
        around[count, 0], around[count, 1], around[count, 2] = cx, cy, cz
        around[count, 3] = away - p[25] * p[25]
        around[count, 4], around[count, 5], around[count, 6] = lx, ly, lz
        active[count] = n
        count += 1
    return count


@nb.njit(fastmath=True, error_model="numpy")
def _nearest(primitives, heights, active, count, around, dx, dy, dz):
    """Parameter and index of the first listed primitive that a ray hits, or (NO_HIT, -1)."""
    best, index = NO_HIT, -1
    dd = dx * dx + dy * dy + dz * dz
    for k in range(count):
        outside = around[k, 3]
        if outside > 0:
            cd = around[k, 0] * dx + around[k, 1] * dy + around[k, 2] * dz
            if cd > 0 or cd * cd < dd * outside:
                continue
        n = active[k]
        p = primitives[n]
        mx, my, mz = _to_local(p, dx, dy, dz)
        t = unit_hit(p, heights, around[k, 4], around[k, 5], around[k, 6], mx, my, mz)
        if t < best:
            best, index = t, n
    return best, index


@nb.njit(fastmath=True, error_model="numpy")
def _lit(world, view, light, at, normal, t, place, around, active):
    """1 where a point sees one place of the light, 0 where something hides it. A room's walls hide nothing."""
    primitives = world.primitives[view]
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
    count = 0
    for n in range(primitives.shape[0]):
        cx, cy, cz = x - primitives[n, 1], y - primitives[n, 2], z - primitives[n, 3]
        outside = cx * cx + cy * cy + cz * cz - primitives[n, 25] * primitives[n, 25]
        cd = cx * sx + cy * sy + cz * sz
        if primitives[n, 0] == ROOM or (outside > 0 and (cd > 0 or cd * cd < outside)):
            continue
        around[count, 3] = -1.0
        around[count, 4], around[count, 5], around[count, 6] = _to_local(primitives[n], cx, cy, cz)
        active[count] = n
        count += 1
    return 1.0 if _nearest(primitives, world.heights, active, count, around, sx, sy, sz)[1] < 0 else 0.0


@nb.njit(fastmath=True, error_model="numpy")
def _surface(p, heights, at, direction, normal):
    """Write the unit normal towards the camera, in the world; return where in its texture a hit lies, by dominant axis."""
    hx, hy, hz = _to_local(p, at[0] - p[1], at[1] - p[2], at[2] - p[3])
    nx, ny, nz = local_normal(p, heights, hx, hy, hz)
    x, y, z = hx * p[13], hy * p[14], hz * p[15]
    if p[0] in (CYLINDER, CONE) and abs(hz) < 0.999:
        u, v = math.atan2(hy, hx) * p[13], z
    elif abs(nx) >= abs(ny) and abs(nx) >= abs(nz):
        u, v = y + 0.37 * p[13] * np.sign(nx), z
    elif abs(ny) >= abs(nz):
        u, v = x + 0.21 * p[14] * np.sign(ny), z
    else:
        u, v = x + 0.11 * p[15] * np.sign(nz), y
    nx, ny, nz = nx / p[13], ny / p[14], nz / p[15]
    wx = p[4] * nx + p[7] * ny + p[10] * nz
    wy = p[5] * nx + p[8] * ny + p[11] * nz
    wz = p[6] * nx + p[9] * ny + p[12] * nz
    norm = math.sqrt(wx * wx + wy * wy + wz * wz) + 1e-12
    if wx * direction[0] + wy * direction[1] + wz * direction[2] > 0:
        norm = -norm
    normal[0], normal[1], normal[2] = wx / norm, wy / norm, wz / norm
    return u * p[17], v * p[17]


@nb.njit(fastmath=True, error_model="numpy")
def _sample(atlas, texture, u, v, level, out):
    """Bilinear, mirrored look-up at one mip level; ``u v`` in texture widths."""
    image = atlas[min(max(int(level), 0), len(atlas) - 1)]
    size = image.shape[1]
    x, y = u * size, v * size
    column, row = math.floor(x), math.floor(y)
    fx, fy = x - column, y - row
    around = 2 * size - 1  # sizes are powers of two, so that "and" is the remainder
    left, right, top, below = column & around, (column + 1) & around, row & around, (row + 1) & around
    left, right = min(left, around - left), min(right, around - right)
    top, below = min(top, around - top), min(below, around - below)
    w00, w01 = (1 - fx) * (1 - fy) / 255.0, fx * (1 - fy) / 255.0
    w10, w11 = (1 - fx) * fy / 255.0, fx * fy / 255.0
    for c in range(3):
        above = w00 * image[texture, top, left, c] + w01 * image[texture, top, right, c]
        out[c] = above + w10 * image[texture, below, left, c] + w11 * image[texture, below, right, c]


@nb.njit(fastmath=True, error_model="numpy")
def _shade(p, atlas, light, lit, hit, direction, focal, out):
    """Colour of a primitive where it is hit: texture, Lambert light, a highlight when glossy. ``hit`` is u, v, depth, normal."""
    wx, wy, wz = hit[3], hit[4], hit[5]
    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    facing = -(wx * direction[0] + wy * direction[1] + wz * direction[2]) / reach
    texels = hit[2] / focal * p[17] * atlas[0].shape[1] / math.sqrt(max(facing, 0.15))
    _sample(atlas, int(p[16]), hit[0], hit[1], math.log2(max(texels, 1.0)) + 0.3, out)
    lambert = max(wx * light[0] + wy * light[1] + wz * light[2], 0.0) * lit
    shade = light[3] + (1 - light[3]) * lambert
    highlight = 0.0
    if p[24] > 0:
        along = 2 * facing
        rx, ry, rz = direction[0] / reach + along * wx, direction[1] / reach + along * wy, direction[2] / reach + along * wz
        highlight = lit * p[24] * max(rx * light[0] + ry * light[1] + rz * light[2], 0.0) ** 24
    for c in range(3):
        out[c] = (p[21 + c] + p[18 + c] * out[c]) * shade + highlight


@nb.njit(fastmath=True, error_model="numpy")
def _sky(atlas, sky, direction, focal, out):
    """Colour of the sky: a texture wrapped around and a haze at the horizon."""
    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    up = min(max(-direction[1] / reach, 0.0), 1.0)
    u, v = math.atan2(direction[0], direction[2]) * sky[1], direction[1] / reach * sky[1]
    _sample(atlas, int(sky[0]), u, v, 1.0 + math.log2(max(sky[1] * 256.0 / focal, 1.0)), out)
    for c in range(3):
        out[c] = sky[5 + c] * (1 - 0.5 * up) + sky[2 + c] * out[c]


@nb.njit(parallel=True, fastmath=True, error_model="numpy", nogil=True, cache=True)
def cast_depth(world, eyes, height, width, cell):
    """z-depth at the centres of ``cell`` x ``cell`` pixel blocks, ``V height/cell width/cell``; 1e30 for the sky."""
    views, rows, columns = eyes.K.shape[0], height // cell, width // cell
    depth = np.empty((views, rows, columns), np.float32)
    for job in nb.prange(views * rows):
        view, row = job // rows, job % rows
        primitives, T_world_cam, K, bend = world.primitives[view], eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
        direction = np.empty(3, np.float64)
        around, active = np.empty((len(primitives), 7), np.float64), np.empty(len(primitives), np.int64)
        v = (row + 0.5) * cell
        count = _reachable(primitives, eyes, view, v, width, around, active)
        for column in range(columns):
            _ray(T_world_cam, K, bend, (column + 0.5) * cell, v, direction)
            depth[view, row, column] = _nearest(
                primitives, world.heights, active, count, around, direction[0], direction[1], direction[2]
            )[0]
    return depth


@nb.njit(fastmath=True, error_model="numpy")
def _color_row(world, atlas, sky, light, eyes, view, row, shift, share, out):
    """Add the colours of one row of a photo, seen through one place of its pixels."""
    primitives, T_world_cam, K, bend = world.primitives[view], eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
    width, total = out.shape[0], len(primitives)
    direction, at, color = np.empty(3, np.float64), np.empty(3, np.float64), np.empty(3, np.float64)
    around, active = np.empty((total, 7), np.float64), np.empty(total, np.int64)
    around_hit, active_hit = np.empty((total, 7), np.float64), np.empty(total, np.int64)
    lit, seen, hits = np.ones(width, np.float64), np.empty(width, np.int64), np.empty((width, 6), np.float64)
    count = _reachable(primitives, eyes, view, row + 1 - shift, width, around, active)
    for column in range(width):
        _ray(T_world_cam, K, bend, column + shift, row + 1 - shift, direction)
        t, n = _nearest(primitives, world.heights, active, count, around, direction[0], direction[1], direction[2])
        seen[column] = n
        if n >= 0:
            for i in range(3):
                at[i] = T_world_cam[i, 3] + t * direction[i]
            hit = hits[column]
            hit[2] = t
            hit[0], hit[1] = _surface(primitives[n], world.heights, at, direction, hit[3:])
            if light[4] >= 0:
                place = (column + 2 * row) % PENUMBRA
                lit[column] = _lit(world, view, light, at, hit[3:], t, place, around_hit, active_hit)
    for column in range(width):
        _ray(T_world_cam, K, bend, column + shift, row + 1 - shift, direction)
        n = seen[column]
        if n < 0:
            _sky(atlas, sky, direction, K[0, 0], color)
        else:
            bright = lit[column]
            if light[4] >= 0:
                among, bright = 0, 0.0
                for other in range(max(column - PENUMBRA // 2, 0), min(column + PENUMBRA // 2, width)):
                    if seen[other] == n:
                        among += 1
                        bright += lit[other]
                bright /= among
            _shade(primitives[n], atlas, light, bright, hits[column], direction, K[0, 0], color)
        for c in range(3):
            out[column, c] += color[c] * share


@nb.njit(parallel=True, fastmath=True, error_model="numpy", nogil=True, cache=True)
def cast_colors(world, atlas, sky, light, eyes, height, width, samples):
    """Colours ``V height width 3``, one or two rays a pixel.

    ``sky`` holds texture, texture scale, gain (3) and horizon colour (3); ``light`` a direction, the ambient share, and the tangent
    of half the angle under which the light is seen: below 0 nothing casts a shadow.
    """
    image = np.zeros((eyes.K.shape[0], height, width, 3), np.float32)
    for job in nb.prange(eyes.K.shape[0] * height):
        view, row = job // height, job % height
        for sample in range(samples):
            shift = (sample + 0.5) / samples
            _color_row(world, atlas, sky, light, eyes, view, row, shift, 1.0 / samples, image[view, row])
    return image
