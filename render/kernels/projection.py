"""From Gaussians to splats: cull, project, shade. One pass, visible ones only.

Input: Gaussian arrays (float32) and one camera (float64, see ``layout``). Output: splats, packed at the front of each part.
Geometry is computed in float64: a needle's 2-D determinant loses all digits in float32, and scalar float64 costs the same.
Does not: sort.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from ..constants import ALPHA_MIN, BLUR_PX2, JACOBIAN_MARGIN, LOG2_E
from .jit import inlined, kernel, parallel
from .layout import (
    BLUE,
    CENTER,
    CURVE_Y,
    DEPTH,
    EXTENT_Y,
    FAR,
    FOCAL_X,
    FOCAL_Y,
    GREEN,
    HEIGHT,
    LOG2_OPACITY,
    MEAN_X,
    MEAN_Y,
    NARROW,
    NEAR,
    PRINCIPAL_X,
    PRINCIPAL_Y,
    RED,
    SKEW,
    SLOPE_X,
    SLOPE_Y,
    TIP_Y,
    TRANSLATION,
    WIDTH,
    WIDTH2,
)
from .sh import sh_basis
from .tiles import LARGE, fits, pack_head, pack_row, pixel_interval, tile_columns

PART = 4096
"""Gaussians per part. Fixed, so that results do not depend on the number of threads."""
LARGEST_PX = 1e18
"""A splat beyond this cannot be drawn in float32; it is dropped like a non-finite one."""


@inlined
def quaternion_axes(w, x, y, z):
    """Rotation matrix, row by row, of a quaternion of any length."""
    n = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * n, x * n, y * n, z * n
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@inlined
def clamped_ray(ratio, focal, principal, size):
    """Clamp x/z to the image plus a margin: the linearised projection blows up far outside the view. Source: gsplat."""
    margin = JACOBIAN_MARGIN * 0.5 * size / focal
    return max(-(principal / focal + margin), min((size - principal) / focal + margin, ratio))


@inlined
def covariance_2d(camera, x, y, z, quat, scale, index):
    """Blurred 2-D covariance (xx, xy, yy) and the determinant before the blur.

    Method: S = P P^T with P = J R_cam_world R_world_local diag(scale); the rotated axes are projected one by one.
    Source: Zwicker et al., EWA Splatting, 2001, eq. 31; blur as in 3D Gaussian Splatting, 2023.
    """
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = quaternion_axes(
        float(quat[index, 0]), float(quat[index, 1]), float(quat[index, 2]), float(quat[index, 3])
    )
    fx, fy = camera[FOCAL_X], camera[FOCAL_Y]
    ray_x = clamped_ray(x / z, fx, camera[PRINCIPAL_X], camera[WIDTH])
    ray_y = clamped_ray(y / z, fy, camera[PRINCIPAL_Y], camera[HEIGHT])
    ax, ay = fx / z, fy / z
    # Rows of J R_cam_world.
    a0 = ax * (camera[0] - ray_x * camera[6])
    a1 = ax * (camera[1] - ray_x * camera[7])
    a2 = ax * (camera[2] - ray_x * camera[8])
    b0 = ay * (camera[3] - ray_y * camera[6])
    b1 = ay * (camera[4] - ray_y * camera[7])
    b2 = ay * (camera[5] - ray_y * camera[8])
    s0, s1, s2 = float(scale[index, 0]), float(scale[index, 1]), float(scale[index, 2])
    p0, p1, p2 = s0 * (a0 * r00 + a1 * r10 + a2 * r20), s1 * (a0 * r01 + a1 * r11 + a2 * r21), s2 * (a0 * r02 + a1 * r12 + a2 * r22)
    q0, q1, q2 = s0 * (b0 * r00 + b1 * r10 + b2 * r20), s1 * (b0 * r01 + b1 * r11 + b2 * r21), s2 * (b0 * r02 + b1 * r12 + b2 * r22)
    xx, xy, yy = p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2
    # |p x q|^2: the determinant without cancellation.
    c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
    det = c0 * c0 + c1 * c1 + c2 * c2
    return xx + BLUR_PX2, xy, yy + BLUR_PX2, det


@inlined
def blurred_determinant(xx, yy, det):
    """Determinant after the blur, from the blurred diagonal and the determinant before it; no cancellation."""
    return det + BLUR_PX2 * (xx + yy - BLUR_PX2)


@inlined
def _stored(value):
    """What is left of a number in a splat's row, which is single precision."""
    return float(np.float32(value))


@inlined
def tile_word(width, height, mean_x, mean_y, extent_x, extent_y, skew, tip_y, width2, narrow):
    """Packed tiles of a splat (see ``tiles``) and how many there are; 0 hits when it reaches no pixel centre."""
    top, bottom = pixel_interval(mean_y, extent_y, 0, height - 1)
    left, right = pixel_interval(mean_x, extent_x, 0, width - 1)
    if top > bottom or left > right:
        return 0, 0
    first_row, rows = top >> 4, (bottom >> 4) - (top >> 4) + 1
    first_column, columns = left >> 4, (right >> 4) - (left >> 4) + 1
    small = fits(rows, columns)
    word = pack_head(first_row, rows, first_column) if small else LARGE
    hits = 0
    for row in range(rows):
        first, last = first_column, first_column + columns - 1
        if (rows > 1 and columns > 1) or not small:
            first, last = tile_columns(first_row + row, width, mean_x, mean_y, skew, tip_y, width2, narrow)
            if small:
                first, last = max(first, first_column), min(last, first_column + columns - 1)
        count = max(0, last - first + 1)
        hits += count
        if small and count > 0:
            word = pack_row(word, row, first - first_column, count)
    return word, hits


@kernel
def _project_part(begin, end, means, quats, scales, opacities, sh, sh_count, camera, antialiased, splats, words, slots, ids):
    basis = np.empty(16, dtype=np.float64)
    width, height, near, far = camera[WIDTH], camera[HEIGHT], camera[NEAR], camera[FAR]
    kept, dropped, slot = 0, 0, 0
    for g in range(begin, end):
        wx, wy, wz = float(means[g, 0]), float(means[g, 1]), float(means[g, 2])
        opacity = float(opacities[g])
        finite = wx + wy + wz + opacity
        finite += float(quats[g, 0]) + float(quats[g, 1]) + float(quats[g, 2]) + float(quats[g, 3])
        finite += float(scales[g, 0]) + float(scales[g, 1]) + float(scales[g, 2])
        turned = quats[g, 0] != 0.0 or quats[g, 1] != 0.0 or quats[g, 2] != 0.0 or quats[g, 3] != 0.0
        if finite - finite != 0.0 or opacity > 1.0 or opacity < 0.0 or not turned:
            dropped += 1
            continue
        z = camera[6] * wx + camera[7] * wy + camera[8] * wz + camera[TRANSLATION + 2]
        if z < near or z > far or opacity < ALPHA_MIN:
            continue
        x = camera[0] * wx + camera[1] * wy + camera[2] * wz + camera[TRANSLATION]
        y = camera[3] * wx + camera[4] * wy + camera[5] * wz + camera[TRANSLATION + 1]
        xx, xy, yy, det0 = covariance_2d(camera, x, y, z, quats, scales, g)
        det = blurred_determinant(xx, yy, det0)
        if antialiased:
            opacity *= math.sqrt(det0 / det)
            if opacity < ALPHA_MIN:
                continue
        q = 2.0 * math.log(opacity / ALPHA_MIN)
        extent_x, extent_y = math.sqrt(q * xx), math.sqrt(q * yy)
        mean_x, mean_y = camera[FOCAL_X] * x / z + camera[PRINCIPAL_X], camera[FOCAL_Y] * y / z + camera[PRINCIPAL_Y]
        if mean_x + extent_x < 0.0 or mean_x - extent_x > width or mean_y + extent_y < 0.0 or mean_y - extent_y > height:
            continue
        narrow, width2 = det / (yy * yy), q * det / yy
        skew, tip_y = xy / yy, xy * math.sqrt(q / xx)
        slope = math.sqrt(0.5 * LOG2_E * yy / det)
        dx, dy, dz = wx - camera[CENTER], wy - camera[CENTER + 1], wz - camera[CENTER + 2]
        n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
        sh_basis(sh_count, dx * n, dy * n, dz * n, basis)
        red, green, blue = 0.5, 0.5, 0.5
        for k in range(sh_count):
            red += basis[k] * sh[g, k, 0]
            green += basis[k] * sh[g, k, 1]
            blue += basis[k] * sh[g, k, 2]
        finite = red + green + blue + extent_x + extent_y + mean_x + mean_y + slope + width2
        if finite - finite != 0.0 or max(width2, extent_x, extent_y, abs(mean_x), abs(mean_y)) > LARGEST_PX:
            dropped += 1
            continue
        word, hits = tile_word(
            int(width),
            int(height),
            _stored(mean_x),
            _stored(mean_y),
            _stored(extent_x),
            _stored(extent_y),
            _stored(skew),
            _stored(tip_y),
            _stored(width2),
            _stored(narrow),
        )
        if hits == 0:
            continue
        at = begin + kept
        splats[at, MEAN_X], splats[at, MEAN_Y] = mean_x, mean_y
        splats[at, SLOPE_X], splats[at, SLOPE_Y] = slope, -slope * skew
        splats[at, CURVE_Y], splats[at, LOG2_OPACITY] = 0.5 * LOG2_E / yy, math.log2(opacity)
        splats[at, RED], splats[at, GREEN], splats[at, BLUE] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)
        splats[at, DEPTH] = z
        splats[at, EXTENT_Y], splats[at, SKEW], splats[at, TIP_Y] = extent_y, skew, tip_y
        splats[at, WIDTH2], splats[at, NARROW] = width2, narrow
        words[at] = word
        slots[at] = slot
        slot += hits
        ids[at] = g
        kept += 1
    return kept, dropped, slot


@parallel
def project(means, quats, scales, opacities, sh, sh_count, camera, antialiased, splats, words, slots, ids, totals):
    """Write the visible splats of part p from row p * PART on.

    Args:
        splats: ``N 16`` float32 out.
        words: N int64 out, the packed tiles of each splat.
        slots: N int32 out, how many hits come before each splat in its part.
        ids: N int32 out, the Gaussian behind each splat.
        totals: ``parts 3`` int64 out: splats kept, Gaussians dropped as not finite, hits.
    """
    count = means.shape[0]
    for part in numba.prange(totals.shape[0]):
        begin = part * PART
        totals[part, 0], totals[part, 1], totals[part, 2] = _project_part(
            begin,
            min(count, begin + PART),
            means,
            quats,
            scales,
            opacities,
            sh,
            sh_count,
            camera,
            antialiased,
            splats,
            words,
            slots,
            ids,
        )
