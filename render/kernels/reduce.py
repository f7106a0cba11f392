"""From per-hit sums to gradients of Gaussians and cameras: the vector-Jacobian product of ``projection``.

Input: sums of ``backward``, Gaussian arrays, one camera. Output: gradients added to dense arrays and per-part camera gradients.
Every visible Gaussian is visited once and alone owns its rows. Camera gradients are summed per part of fixed size and then in
order, so that nothing depends on the number of threads.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from ..constants import BLUR_PX2, JACOBIAN_MARGIN, LOG2_E
from .jit import inlined, kernel, parallel
from .layout import (
    CENTER,
    FOCAL_X,
    FOCAL_Y,
    HEIGHT,
    PRINCIPAL_X,
    PRINCIPAL_Y,
    SUM_BLUE,
    SUM_DEPTH,
    SUM_GREEN,
    SUM_RED,
    SUM_U,
    SUM_UU,
    SUM_UY,
    SUM_V,
    SUM_Y,
    SUM_YY,
    TRANSLATION,
    WIDTH,
)
from .projection import PART, blurred_determinant, quaternion_axes
from .sh import sh_basis, sh_direction_gradient


@inlined
def ray_with_gradient(ratio, focal, principal, size):
    """Clamped ray and its derivatives with respect to ratio, focal and principal."""
    margin = JACOBIAN_MARGIN * 0.5 * size / focal
    high, low = (size - principal) / focal + margin, -(principal / focal + margin)
    if ratio > high:
        return high, 0.0, -high / focal, -1.0 / focal
    if ratio < low:
        return low, 0.0, -low / focal, -1.0 / focal
    return ratio, 1.0, 0.0, 0.0


@inlined
def quaternion_gradient(w, x, y, z, g):
    """Gradient of a quaternion of any length, given the gradient ``g`` (nine numbers) of its rotation matrix."""
    n = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * n, x * n, y * n, z * n
    gw = 2.0 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
    gx = 2.0 * (-2.0 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]))
    gy = 2.0 * (x * (g[1] + g[3]) - 2.0 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]))
    gz = 2.0 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2.0 * z * (g[0] + g[4]) + w * (g[3] - g[1]))
    along = gw * w + gx * x + gy * y + gz * z
    return n * (gw - along * w), n * (gx - along * x), n * (gy - along * y), n * (gz - along * z)


@kernel
def _reduce_part(
    begin, end, ids, slots, base, hits, sums, touched, gaussians, sh_count, camera, antialiased, gradients, camera_gradient
):
    means, quats, scales, opacities, sh = gaussians
    g_means, g_quats, g_scales, g_opacities, g_sh = gradients
    hit = np.empty(10)
    basis, weights, g_axes = np.empty(16), np.empty(16), np.empty(9)
    axes = np.empty(9)
    for row in range(begin, end):
        hit[:] = 0.0
        any_hit = False
        last_slot = slots[row + 1] if row + 1 < end else hits
        for slot in range(base + slots[row], base + last_slot):
            if touched[slot]:
                any_hit = True
                for k in range(10):
                    hit[k] += sums[slot, k]
        if not any_hit:
            continue
        g = ids[row]
        wx, wy, wz = float(means[g, 0]), float(means[g, 1]), float(means[g, 2])
        x = camera[0] * wx + camera[1] * wy + camera[2] * wz + camera[TRANSLATION]
        y = camera[3] * wx + camera[4] * wy + camera[5] * wz + camera[TRANSLATION + 1]
        z = camera[6] * wx + camera[7] * wy + camera[8] * wz + camera[TRANSLATION + 2]
        fx, fy = camera[FOCAL_X], camera[FOCAL_Y]
        opacity = float(opacities[g])

        # Projected axes: rows p, q of P = J W R diag(s).
        qw, qx, qy, qz = float(quats[g, 0]), float(quats[g, 1]), float(quats[g, 2]), float(quats[g, 3])
        axes[0], axes[1], axes[2], axes[3], axes[4], axes[5], axes[6], axes[7], axes[8] = quaternion_axes(qw, qx, qy, qz)
        ray_x, dray_x, dray_x_f, dray_x_c = ray_with_gradient(x / z, fx, camera[PRINCIPAL_X], camera[WIDTH])
        ray_y, dray_y, dray_y_f, dray_y_c = ray_with_gradient(y / z, fy, camera[PRINCIPAL_Y], camera[HEIGHT])
        jx, jy = fx / z, fy / z
        a0, a1, a2 = (
            jx * (camera[0] - ray_x * camera[6]),
            jx * (camera[1] - ray_x * camera[7]),
            jx * (camera[2] - ray_x * camera[8]),
        )
        b0, b1, b2 = (
            jy * (camera[3] - ray_y * camera[6]),
            jy * (camera[4] - ray_y * camera[7]),
            jy * (camera[5] - ray_y * camera[8]),
        )
        s0, s1, s2 = float(scales[g, 0]), float(scales[g, 1]), float(scales[g, 2])
        u0, u1, u2 = (
            a0 * axes[0] + a1 * axes[3] + a2 * axes[6],
            a0 * axes[1] + a1 * axes[4] + a2 * axes[7],
            a0 * axes[2] + a1 * axes[5] + a2 * axes[8],
        )
        v0, v1, v2 = (
            b0 * axes[0] + b1 * axes[3] + b2 * axes[6],
            b0 * axes[1] + b1 * axes[4] + b2 * axes[7],
            b0 * axes[2] + b1 * axes[5] + b2 * axes[8],
        )
        p0, p1, p2, q0, q1, q2 = s0 * u0, s1 * u1, s2 * u2, s0 * v0, s1 * v1, s2 * v2
        pp, pq, qq = p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2
        c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
        det0 = c0 * c0 + c1 * c1 + c2 * c2
        xx, yy = pp + BLUR_PX2, qq + BLUR_PX2
        det = blurred_determinant(xx, yy, det0)

        # Sums in u = slope (dx + s dy) to sums in t = dx + s dy; ln alpha = ln opacity - (t^2 / w + dy^2 / yy) / 2.
        w = det / yy
        unit = math.sqrt(2.0 * w / LOG2_E)
        sum_t, sum_tt, sum_ty = hit[SUM_U] * unit, hit[SUM_UU] * unit * unit, hit[SUM_UY] * unit
        s = -pq / yy
        g_mean_x = sum_t / w
        g_mean_y = s * sum_t / w + hit[SUM_Y] / yy
        g_w = 0.5 * sum_tt / (w * w)
        g_s = -sum_ty / w
        g_opacity = hit[SUM_V] / opacity
        # w = xx - pq^2 / yy
        g_xx = g_w
        g_xy = -2.0 * g_w * pq / yy - g_s / yy
        g_yy = 0.5 * hit[SUM_YY] / (yy * yy) + g_w * pq * pq / (yy * yy) + g_s * pq / (yy * yy)
        if antialiased:
            # ln of the compensation: (ln det0 - ln det) / 2.
            half = 0.5 * hit[SUM_V]
            g_xx += half * (qq / det0 - yy / det)
            g_yy += half * (pp / det0 - xx / det)
            g_xy += -2.0 * half * pq * (1.0 / det0 - 1.0 / det)

        # S = P P^T.
        gp0, gp1, gp2 = 2.0 * g_xx * p0 + g_xy * q0, 2.0 * g_xx * p1 + g_xy * q1, 2.0 * g_xx * p2 + g_xy * q2
        gq0, gq1, gq2 = 2.0 * g_yy * q0 + g_xy * p0, 2.0 * g_yy * q1 + g_xy * p1, 2.0 * g_yy * q2 + g_xy * p2
        g_scales[g, 0] += gp0 * u0 + gq0 * v0
        g_scales[g, 1] += gp1 * u1 + gq1 * v1
        g_scales[g, 2] += gp2 * u2 + gq2 * v2
        gp0, gp1, gp2, gq0, gq1, gq2 = gp0 * s0, gp1 * s1, gp2 * s2, gq0 * s0, gq1 * s1, gq2 * s2
        g_axes[0], g_axes[1], g_axes[2] = a0 * gp0 + b0 * gq0, a0 * gp1 + b0 * gq1, a0 * gp2 + b0 * gq2
        g_axes[3], g_axes[4], g_axes[5] = a1 * gp0 + b1 * gq0, a1 * gp1 + b1 * gq1, a1 * gp2 + b1 * gq2
        g_axes[6], g_axes[7], g_axes[8] = a2 * gp0 + b2 * gq0, a2 * gp1 + b2 * gq1, a2 * gp2 + b2 * gq2
        gw, gx, gy, gz = quaternion_gradient(qw, qx, qy, qz, g_axes)
        g_quats[g, 0] += gw
        g_quats[g, 1] += gx
        g_quats[g, 2] += gy
        g_quats[g, 3] += gz

        # Rows a = jx (W0 - ray_x W2), b = jy (W1 - ray_y W2) with W = R_cam_world.
        ga0 = gp0 * axes[0] + gp1 * axes[1] + gp2 * axes[2]
        ga1 = gp0 * axes[3] + gp1 * axes[4] + gp2 * axes[5]
        ga2 = gp0 * axes[6] + gp1 * axes[7] + gp2 * axes[8]
        gb0 = gq0 * axes[0] + gq1 * axes[1] + gq2 * axes[2]
        gb1 = gq0 * axes[3] + gq1 * axes[4] + gq2 * axes[5]
        gb2 = gq0 * axes[6] + gq1 * axes[7] + gq2 * axes[8]
        g_ray_x = -jx * (ga0 * camera[6] + ga1 * camera[7] + ga2 * camera[8])
        g_ray_y = -jy * (gb0 * camera[6] + gb1 * camera[7] + gb2 * camera[8])
        g_jx = (ga0 * a0 + ga1 * a1 + ga2 * a2) / jx
        g_jy = (gb0 * b0 + gb1 * b1 + gb2 * b2) / jy
        g_x = g_mean_x * jx + g_ray_x * dray_x / z
        g_y = g_mean_y * jy + g_ray_y * dray_y / z
        g_z = hit[SUM_DEPTH] - (g_x * x + g_y * y) / z - (g_jx * jx + g_jy * jy) / z

        # Colour and the direction it is seen from.
        dx, dy, dz = wx - camera[CENTER], wy - camera[CENTER + 1], wz - camera[CENTER + 2]
        n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
        dx, dy, dz = dx * n, dy * n, dz * n
        sh_basis(sh_count, dx, dy, dz, basis)
        red, green, blue = 0.5, 0.5, 0.5
        for k in range(sh_count):
            red += basis[k] * sh[g, k, 0]
            green += basis[k] * sh[g, k, 1]
            blue += basis[k] * sh[g, k, 2]
        g_red = hit[SUM_RED] if red > 0.0 else 0.0
        g_green = hit[SUM_GREEN] if green > 0.0 else 0.0
        g_blue = hit[SUM_BLUE] if blue > 0.0 else 0.0
        for k in range(sh_count):
            weights[k] = g_red * sh[g, k, 0] + g_green * sh[g, k, 1] + g_blue * sh[g, k, 2]
            g_sh[g, k, 0] += g_red * basis[k]
            g_sh[g, k, 1] += g_green * basis[k]
            g_sh[g, k, 2] += g_blue * basis[k]
        gdx, gdy, gdz = sh_direction_gradient(sh_count, dx, dy, dz, weights)
        along = gdx * dx + gdy * dy + gdz * dz
        gdx, gdy, gdz = n * (gdx - along * dx), n * (gdy - along * dy), n * (gdz - along * dz)

        g_means[g, 0] += camera[0] * g_x + camera[3] * g_y + camera[6] * g_z + gdx
        g_means[g, 1] += camera[1] * g_x + camera[4] * g_y + camera[7] * g_z + gdy
        g_means[g, 2] += camera[2] * g_x + camera[5] * g_y + camera[8] * g_z + gdz
        g_opacities[g] += g_opacity

        # Camera: R_cam_world acts on the mean and, through rows a and b, on the axes.
        camera_gradient[0] += g_x * wx + jx * ga0
        camera_gradient[1] += g_x * wy + jx * ga1
        camera_gradient[2] += g_x * wz + jx * ga2
        camera_gradient[3] += g_y * wx + jy * gb0
        camera_gradient[4] += g_y * wy + jy * gb1
        camera_gradient[5] += g_y * wz + jy * gb2
        camera_gradient[6] += g_z * wx - jx * ray_x * ga0 - jy * ray_y * gb0
        camera_gradient[7] += g_z * wy - jx * ray_x * ga1 - jy * ray_y * gb1
        camera_gradient[8] += g_z * wz - jx * ray_x * ga2 - jy * ray_y * gb2
        camera_gradient[TRANSLATION] += g_x
        camera_gradient[TRANSLATION + 1] += g_y
        camera_gradient[TRANSLATION + 2] += g_z
        camera_gradient[CENTER] -= gdx
        camera_gradient[CENTER + 1] -= gdy
        camera_gradient[CENTER + 2] -= gdz
        camera_gradient[FOCAL_X] += g_mean_x * x / z + g_jx / z + g_ray_x * dray_x_f
        camera_gradient[FOCAL_Y] += g_mean_y * y / z + g_jy / z + g_ray_y * dray_y_f
        camera_gradient[PRINCIPAL_X] += g_mean_x + g_ray_x * dray_x_c
        camera_gradient[PRINCIPAL_Y] += g_mean_y + g_ray_y * dray_y_c


@parallel
def reduce(totals, bases, ids, slots, sums, touched, gaussians, sh_count, camera, antialiased, gradients, camera_gradients):
    """Add this view's gradients.

    Args:
        totals: ``parts 3`` as ``project`` left them.
        bases: hits before each part.
        ids: Gaussian behind each splat row.
        slots: hits before each splat row in its part.
        sums: ``hits 16`` of ``backward.gather``; rows with ``touched`` False are not read.
        gaussians: (means, quats, scales, opacities, sh) as given to ``project``.
        gradients: float32 arrays of the same shapes; this view is added.
        camera_gradients: ``parts 19`` float64, zero on entry.
    """
    for part in numba.prange(totals.shape[0]):
        begin = part * PART
        _reduce_part(
            begin,
            begin + totals[part, 0],
            ids,
            slots,
            bases[part],
            totals[part, 2],
            sums,
            touched,
            gaussians,
            sh_count,
            camera,
            antialiased,
            gradients,
            camera_gradients[part],
        )
