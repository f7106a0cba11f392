"""Ray-cast analytic primitives with mip-mapped textures on the CPU, rows of pixels side by side.

Input: a ``World`` of primitives, ``Eyes`` that look at it, a texture atlas. Output: colours, exact z-depth and normals.
Does not: decide what a world looks like (``worlds`` does) or imitate a camera (``photography`` does).
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from jaxtyping import Float, UInt8

from .both_targets import greater
from .shading import PENUMBRA, Eyes, World, geometry_of, lit, mean_lit, ray_of, shade, sky_of, surface_of, to_local
from .shapes import NO_HIT, unit_hit

__all__ = ["CpuCaster", "cast_colors", "cast_depth", "cast_surfaces"]

Array = np.ndarray


@nb.njit(fastmath=True, error_model="numpy")
def _reachable(primitives, eyes, view, v, width, around, active):
    """List the primitives that the rays of one pixel row may meet, with the camera as each of them sees it.

    The rays lie in a plane through the camera; what a bent ray leaves it by is allowed for. ``around`` receives the vector from the
    primitive's centre (3), its squared length less the bounding radius squared, and the camera in the primitive's frame (3).
    """
    T_world_cam, K, bend = eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
    y = (v - K[1, 2]) / K[1, 1]
    x = greater(abs(K[0, 2]), abs(width - K[0, 2])) / K[0, 0]
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
        lx, ly, lz = to_local(p, cx, cy, cz)
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
        mx, my, mz = to_local(p, dx, dy, dz)
        t = unit_hit(p, heights, around[k, 4], around[k, 5], around[k, 6], mx, my, mz)
        if t < best:
            best, index = t, n
    return best, index


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
            ray_of(T_world_cam, K, bend, (column + 0.5) * cell, v, direction)
            depth[view, row, column] = _nearest(
                primitives, world.heights, active, count, around, direction[0], direction[1], direction[2]
            )[0]
    return depth


@nb.njit(parallel=True, fastmath=True, error_model="numpy", nogil=True, cache=True)
def cast_surfaces(world, eyes, height, width, cell):
    """What ``cast_depth`` returns, and from the same rays unit normals ``V height/cell width/cell 3``; 0 for the sky.

    Normals are in the camera's frame and point towards it. They are those of the surface that depth is of, facets of relief and
    walls of holes included, and not the smoothed ones of shading.
    """
    views, rows, columns = eyes.K.shape[0], height // cell, width // cell
    depth, normals = np.empty((views, rows, columns), np.float32), np.zeros((views, rows, columns, 3), np.float32)
    for job in nb.prange(views * rows):
        view, row = job // rows, job % rows
        primitives, T_world_cam, K, bend = world.primitives[view], eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
        direction = np.empty(3, np.float64)
        around, active = np.empty((len(primitives), 7), np.float64), np.empty(len(primitives), np.int64)
        v = (row + 0.5) * cell
        count = _reachable(primitives, eyes, view, v, width, around, active)
        for column in range(columns):
            ray_of(T_world_cam, K, bend, (column + 0.5) * cell, v, direction)
            t, n = _nearest(primitives, world.heights, active, count, around, direction[0], direction[1], direction[2])
            depth[view, row, column] = t
            if n >= 0:
                geometry_of(primitives[n], world.heights, T_world_cam, t, direction, normals[view, row, column])
    return depth, normals


@nb.njit(fastmath=True, error_model="numpy")
def _color_row(world, atlas, sky, light, eyes, view, row, shift, share, out):
    """Add the colours of one row of a photo, seen through one place of its pixels."""
    primitives, T_world_cam, K, bend = world.primitives[view], eyes.T_world_cam[view], eyes.K[view], eyes.bend[view]
    width, total = out.shape[0], len(primitives)
    direction, at, color = np.empty(3, np.float64), np.empty(3, np.float64), np.empty(3, np.float64)
    around, active = np.empty((total, 7), np.float64), np.empty(total, np.int64)
    bright, seen, hits = np.ones(width, np.float64), np.empty(width, np.int64), np.empty((width, 6), np.float64)
    count = _reachable(primitives, eyes, view, row + 1 - shift, width, around, active)
    for column in range(width):
        ray_of(T_world_cam, K, bend, column + shift, row + 1 - shift, direction)
        t, n = _nearest(primitives, world.heights, active, count, around, direction[0], direction[1], direction[2])
        seen[column] = n
        if n >= 0:
            for i in range(3):
                at[i] = T_world_cam[i, 3] + t * direction[i]
            hit = hits[column]
            hit[2] = t
            hit[0], hit[1] = surface_of(primitives[n], world.heights, at, direction, hit[3:])
            if light[4] >= 0:
                place = (column + 2 * row) % PENUMBRA
                bright[column] = lit(primitives, world.heights, light, at, hit[3:], t, place)
    for column in range(width):
        ray_of(T_world_cam, K, bend, column + shift, row + 1 - shift, direction)
        n = seen[column]
        if n < 0:
            sky_of(atlas, sky, direction, K[0, 0], color)
        else:
            share_lit = mean_lit(bright, seen, column) if light[4] >= 0 else 1.0
            shade(primitives[n], atlas, light, share_lit, hits[column], direction, K[0, 0], color)
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


class CpuCaster:
    """Casts rays on this processor.

    Args:
        atlas: mip levels of the textures, as ``mip_atlas`` makes them.
    """

    def __init__(self, atlas: tuple[UInt8[Array, "T _ _ 3"], ...]) -> None:
        self.atlas = atlas

    def depth(self, world: World, eyes: Eyes, height: int, width: int, cell: int) -> Float[Array, "V h w"]:
        """z-depth at the centres of ``cell`` x ``cell`` pixel blocks; 1e30 for the sky."""
        return cast_depth(world, eyes, height, width, cell)

    def surfaces(
        self, world: World, eyes: Eyes, height: int, width: int, cell: int
    ) -> tuple[Float[Array, "V h w"], Float[Array, "V h w 3"]]:
        """Depth as ``depth`` finds it, and unit normals in the camera's frame; see ``cast_surfaces``."""
        return cast_surfaces(world, eyes, height, width, cell)

    def colors(
        self, world: World, sky: Float[Array, " 8"], light: Float[Array, " 5"], eyes: Eyes, height: int, width: int, samples: int
    ) -> Float[Array, "V H W 3"]:
        """Colours of all pixels, from ``samples`` rays each; ``sky`` and ``light`` as ``cast_colors`` has them."""
        return cast_colors(world, self.atlas, sky, light, eyes, height, width, samples)
