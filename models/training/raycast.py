"""Ray-cast analytic primitives with mip-mapped textures on the CPU.

Input: primitive records, a texture atlas, cameras. Output: colours and exact z-depth.
Does not: decide what a world looks like (``worlds`` does) or imitate a camera (``photography`` does).

Rays are scaled so that their parameter is z-depth. Each primitive is a unit shape in its own frame.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

__all__ = ["BOX", "CARD", "CYLINDER", "ELLIPSOID", "FIELDS", "ROOM", "cast_colors", "cast_depth", "mip_atlas"]

ROOM, BOX, ELLIPSOID, CYLINDER, CARD = range(5)
"""Shapes: a box seen from inside, a box, an ellipsoid, a capped cylinder along z, a flat card at z = 0."""

FIELDS = 26
"""Float32 columns of a primitive: shape 0, centre 1-3, R_local_world 4-12, half sizes 13-15, texture 16, texture widths per
unit 17, colour gain 18-20, colour offset 21-23, gloss 24, bounding radius 25."""

NO_HIT = np.float32(1e30)


def mip_atlas(textures: np.ndarray) -> tuple[np.ndarray, ...]:
    """Halve ``T S S 3`` uint8 textures down to 8 pixels."""
    levels = [np.ascontiguousarray(textures)]
    while levels[-1].shape[1] > 8:
        last = levels[-1].astype(np.float32)
        half = (last[:, ::2, ::2] + last[:, 1::2, ::2] + last[:, ::2, 1::2] + last[:, 1::2, 1::2]) / 4
        levels.append(np.rint(half).astype(np.uint8))
    return tuple(levels)


@nb.njit(inline="always", fastmath=True)
def _slab(o, d):
    """Enter and exit of the unit slab along one axis."""
    safe = d if abs(d) > 1e-9 else np.float32(1e-9)
    a, b = (-1 - o) / safe, (1 - o) / safe
    return min(a, b), max(a, b)


@nb.njit(inline="always", fastmath=True)
def _unit_hit(shape, ox, oy, oz, dx, dy, dz):
    """Nearest positive parameter at which a local ray meets a unit shape."""
    if shape in (ROOM, BOX):
        x0, x1 = _slab(ox, dx)
        y0, y1 = _slab(oy, dy)
        z0, z1 = _slab(oz, dz)
        enter, leave = max(x0, max(y0, z0)), min(x1, min(y1, z1))
        if shape == ROOM:
            return leave if leave > 1e-4 else NO_HIT
        return enter if enter < leave and enter > 1e-4 else NO_HIT
    if shape == ELLIPSOID:
        a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1
        root = b * b - a * c
        t = (-b - math.sqrt(root)) / a if root > 0 else NO_HIT
        return t if t > 1e-4 else NO_HIT
    if shape == CYLINDER:
        a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1
        root = b * b - a * c
        if root <= 0 or a < 1e-12:
            return NO_HIT
        root = math.sqrt(root)
        z0, z1 = _slab(oz, dz)
        enter, leave = max((-b - root) / a, z0), min((-b + root) / a, z1)
        return enter if enter < leave and enter > 1e-4 else NO_HIT
    t = -oz / dz if abs(dz) > 1e-9 else NO_HIT
    inside = t > 1e-4 and abs(ox + t * dx) <= 1 and abs(oy + t * dy) <= 1
    return t if inside else NO_HIT


@nb.njit(inline="always", fastmath=True)
def _to_local(p, x, y, z):
    """Rotate a world vector into a primitive's frame and divide by its half sizes."""
    return (
        (p[4] * x + p[5] * y + p[6] * z) / p[13],
        (p[7] * x + p[8] * y + p[9] * z) / p[14],
        (p[10] * x + p[11] * y + p[12] * z) / p[15],
    )


@nb.njit(fastmath=True)
def _nearest(primitives, ox, oy, oz, dx, dy, dz):
    """Depth and index of the first primitive hit, or (NO_HIT, -1)."""
    best, index = NO_HIT, -1
    dd = dx * dx + dy * dy + dz * dz
    for n in range(primitives.shape[0]):
        p = primitives[n]
        cx, cy, cz = ox - p[1], oy - p[2], oz - p[3]
        cd = cx * dx + cy * dy + cz * dz
        outside = cx * cx + cy * cy + cz * cz - p[25] * p[25]
        if outside > 0 and (cd > 0 or cd * cd < dd * outside):
            continue
        lx, ly, lz = _to_local(p, cx, cy, cz)
        mx, my, mz = _to_local(p, dx, dy, dz)
        t = _unit_hit(int(p[0]), lx, ly, lz, mx, my, mz)
        if t < best:
            best, index = t, n
    return best, index


@nb.njit(fastmath=True)
def _sample(atlas, texture, u, v, level, out):
    """Bilinear, mirrored look-up at one mip level; ``u v`` in texture widths."""
    level = min(max(int(level), 0), len(atlas) - 1)
    image = atlas[level]
    size = image.shape[1]
    x, y = u * size, v * size
    column, row = math.floor(x), math.floor(y)
    fx, fy = x - column, y - row
    period = 2 * size
    for c in range(3):
        out[c] = 0.0
    for j in range(2):
        yy = (row + j) % period
        yy = int(yy if yy < size else period - 1 - yy)
        for i in range(2):
            xx = (column + i) % period
            xx = int(xx if xx < size else period - 1 - xx)
            weight = (fx if i else 1 - fx) * (fy if j else 1 - fy) / 255.0
            for c in range(3):
                out[c] += weight * image[texture, yy, xx, c]


@nb.njit(fastmath=True)
def _shade(p, atlas, light, hit, direction, depth, focal, out):
    """Colour of a primitive at a local hit: texture by dominant axis, Lambert light, a highlight when glossy."""
    shape = int(p[0])
    nx, ny, nz = np.float32(0), np.float32(0), np.float32(1)
    if shape == ELLIPSOID:
        nx, ny, nz = hit[0], hit[1], hit[2]
    elif shape == CYLINDER and abs(hit[2]) < 0.999:
        nx, ny, nz = hit[0], hit[1], np.float32(0)
    elif shape in (ROOM, BOX):
        ax, ay, az = abs(hit[0]), abs(hit[1]), abs(hit[2])
        nz = np.float32(0)
        if ax >= ay and ax >= az:
            nx = np.sign(hit[0])
        elif ay >= az:
            ny = np.sign(hit[1])
        else:
            nz = np.sign(hit[2])
    x, y, z = hit[0] * p[13], hit[1] * p[14], hit[2] * p[15]
    if shape == CYLINDER and abs(hit[2]) < 0.999:
        u, v = math.atan2(hit[1], hit[0]) * p[13], z
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
    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    facing = -(wx * direction[0] + wy * direction[1] + wz * direction[2]) / (norm * reach)
    if facing < 0:
        norm, facing = -norm, -facing
    wx, wy, wz = wx / norm, wy / norm, wz / norm
    texels = depth / focal * p[17] * atlas[0].shape[1] / math.sqrt(max(facing, 0.15))
    _sample(atlas, int(p[16]), u * p[17], v * p[17], math.log2(max(texels, 1.0)) + 0.3, out)
    lambert = max(wx * light[0] + wy * light[1] + wz * light[2], 0.0)
    shade = light[3] + (1 - light[3]) * lambert
    highlight = 0.0
    if p[24] > 0:
        along = 2 * facing
        rx, ry, rz = direction[0] / reach + along * wx, direction[1] / reach + along * wy, direction[2] / reach + along * wz
        highlight = p[24] * max(rx * light[0] + ry * light[1] + rz * light[2], 0.0) ** 24
    for c in range(3):
        out[c] = (p[21 + c] + p[18 + c] * out[c]) * shade + highlight


@nb.njit(fastmath=True)
def _ray(T_world_cam, K, u, v, direction):
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    for i in range(3):
        direction[i] = T_world_cam[i, 0] * x + T_world_cam[i, 1] * y + T_world_cam[i, 2]


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def cast_depth(primitives, T_world_cam, K, height, width, cell):
    """z-depth at the centres of ``cell`` x ``cell`` pixel blocks, ``V height/cell width/cell``; 1e30 for the sky."""
    views, rows, columns = T_world_cam.shape[0], height // cell, width // cell
    depth = np.empty((views, rows, columns), np.float32)
    for job in nb.prange(views * rows):
        view, row = job // rows, job % rows
        direction = np.empty(3, np.float32)
        origin = T_world_cam[view, :3, 3]
        for column in range(columns):
            _ray(T_world_cam[view], K[view], (column + 0.5) * cell, (row + 0.5) * cell, direction)
            depth[view, row, column] = _nearest(
                primitives, origin[0], origin[1], origin[2], direction[0], direction[1], direction[2]
            )[0]
    return depth


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def cast_colors(primitives, atlas, sky, light, T_world_cam, K, height, width, samples):
    """Colours ``V height width 3``, one or two rays a pixel.

    ``sky`` holds texture, texture scale, gain (3) and horizon colour (3); ``light`` a direction and the ambient share.
    """
    views = T_world_cam.shape[0]
    image = np.zeros((views, height, width, 3), np.float32)
    for job in nb.prange(views * height):
        view, row = job // height, job % height
        direction, out, hit = np.empty(3, np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
        origin = T_world_cam[view, :3, 3]
        for column in range(width):
            for sample in range(samples):
                shift = (sample + 0.5) / samples
                _ray(T_world_cam[view], K[view], column + shift, row + 1 - shift, direction)
                t, n = _nearest(primitives, origin[0], origin[1], origin[2], direction[0], direction[1], direction[2])
                if n < 0:
                    reach = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
                    up = min(max(-direction[1] / reach, 0.0), 1.0)
                    u, v = math.atan2(direction[0], direction[2]) * sky[1], direction[1] / reach * sky[1]
                    _sample(atlas, int(sky[0]), u, v, 1.0 + math.log2(max(sky[1] * 256.0 / K[view, 0, 0], 1.0)), out)
                    for c in range(3):
                        out[c] = sky[5 + c] * (1 - 0.5 * up) + sky[2 + c] * out[c]
                else:
                    p = primitives[n]
                    x, y, z = origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]
                    hit[0], hit[1], hit[2] = _to_local(p, x - p[1], y - p[2], z - p[3])
                    _shade(p, atlas, light, hit, direction, t, K[view, 0, 0], out)
                for c in range(3):
                    image[view, row, column, c] += out[c] / samples
    return image
