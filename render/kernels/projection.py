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
    EXTENT_X,
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

PART = 4096
"""Gaussians per part. Fixed, so that results do not depend on the number of threads."""


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


@kernel
def _project_part(begin, end, means, quats, scales, opacities, sh, sh_count, camera, antialiased, splats, ids):
    basis = np.empty(16, dtype=np.float64)
    width, height, near, far = camera[WIDTH], camera[HEIGHT], camera[NEAR], camera[FAR]
    kept, dropped = 0, 0
    for g in range(begin, end):
        wx, wy, wz = float(means[g, 0]), float(means[g, 1]), float(means[g, 2])
        opacity = float(opacities[g])
        finite = wx + wy + wz + opacity
        finite += float(quats[g, 0]) + float(quats[g, 1]) + float(quats[g, 2]) + float(quats[g, 3])
        finite += float(scales[g, 0]) + float(scales[g, 1]) + float(scales[g, 2])
        if finite - finite != 0.0 or opacity > 1.0 or opacity < 0.0:
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
        at = begin + kept
        narrow = det / (yy * yy)
        slope = math.sqrt(0.5 * LOG2_E * yy / det)
        splats[at, MEAN_X], splats[at, MEAN_Y] = mean_x, mean_y
        splats[at, SLOPE_X], splats[at, SLOPE_Y] = slope, -slope * xy / yy
        splats[at, CURVE_Y], splats[at, LOG2_OPACITY] = 0.5 * LOG2_E / yy, math.log2(opacity)
        splats[at, DEPTH] = z
        splats[at, EXTENT_X], splats[at, EXTENT_Y], splats[at, SKEW] = extent_x, extent_y, xy / yy
        splats[at, TIP_Y], splats[at, WIDTH2], splats[at, NARROW] = xy * math.sqrt(q / xx), q * det / yy, narrow
        dx, dy, dz = wx - camera[CENTER], wy - camera[CENTER + 1], wz - camera[CENTER + 2]
        n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
        sh_basis(sh_count, dx * n, dy * n, dz * n, basis)
        red, green, blue = 0.5, 0.5, 0.5
        for k in range(sh_count):
            red += basis[k] * sh[g, k, 0]
            green += basis[k] * sh[g, k, 1]
            blue += basis[k] * sh[g, k, 2]
        finite = red + green + blue + extent_x + extent_y + mean_x + mean_y + slope + q * det
        if finite - finite != 0.0 or q * det > 1e38:
            dropped += 1
            continue
        splats[at, RED], splats[at, GREEN], splats[at, BLUE] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)
        ids[at] = g
        kept += 1
    return kept, dropped


@parallel
def project(means, quats, scales, opacities, sh, sh_count, camera, antialiased, splats, ids, kept, dropped):
    """Write the visible splats of part p at rows p * PART ...; kept[p] and dropped[p] count them and the non-finite ones."""
    count = means.shape[0]
    for part in numba.prange(kept.size):
        begin = part * PART
        kept[part], dropped[part] = _project_part(
            begin, min(count, begin + PART), means, quats, scales, opacities, sh, sh_count, camera, antialiased, splats, ids
        )
