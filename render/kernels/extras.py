"""Pictures drawn on request: median depth, normals and each Gaussian's contribution.

Input: what ``forward`` drew from. Output: arrays; no gradients.
A second walk over the tiles with the same alphas, so that the usual picture does not pay for what is rarely asked.
"""

from __future__ import annotations

import numba
import numpy as np

from ..constants import ALPHA_CAP, TILE, TRANSMITTANCE_STOP
from .forward import LOG2_ALPHA_MIN, PIXELS, live_rows, start_tile
from .jit import kernel, parallel
from .lanes import (
    exp2,
    fma,
    fnma,
    lane_centers,
    load,
    minimum,
    negative_magnitude,
    select_ge,
    select_gt,
    splat,
    store,
    store_sums,
)
from .layout import CURVE_Y, DEPTH, EXTENT_Y, LOG2_OPACITY, MEAN_X, MEAN_Y, SLOPE_X, SLOPE_Y, TRANSLATION
from .projection import PART, quaternion_axes
from .tiles import pixel_interval

_CAP, _STOP = np.float32(ALPHA_CAP), np.float32(TRANSMITTANCE_STOP)
_HALF = np.float32(0.5)
_CHECK = 16
T, MEDIAN, NX, NY, NZ = 0, PIXELS, 2 * PIXELS, 3 * PIXELS, 4 * PIXELS
PLANES = 5


@kernel
def _normals_part(begin, end, ids, means, quats, scales, camera, normals):
    for row in range(begin, end):
        g = ids[row]
        axes = quaternion_axes(float(quats[g, 0]), float(quats[g, 1]), float(quats[g, 2]), float(quats[g, 3]))
        nx, ny, nz = axes[0], axes[3], axes[6]
        shortest = scales[g, 0]
        if scales[g, 1] < shortest:
            shortest = scales[g, 1]
            nx, ny, nz = axes[1], axes[4], axes[7]
        if scales[g, 2] < shortest:
            nx, ny, nz = axes[2], axes[5], axes[8]
        facing = 0.0
        for k in range(3):
            at_cam = camera[3 * k] * means[g, 0] + camera[3 * k + 1] * means[g, 1] + camera[3 * k + 2] * means[g, 2]
            turned = camera[3 * k] * nx + camera[3 * k + 1] * ny + camera[3 * k + 2] * nz
            facing += (at_cam + camera[TRANSLATION + k]) * turned
            normals[row, k] = turned
        if facing > 0.0:
            for k in range(3):
                normals[row, k] = -normals[row, k]


@parallel
def splat_normals(totals, ids, means, quats, scales, camera, normals):
    """Write the shortest axis of every splat, in the camera frame and facing the camera, to ``M 3``."""
    for part in numba.prange(totals.shape[0]):
        _normals_part(part * PART, part * PART + totals[part, 0], ids, means, quats, scales, camera, normals)


@kernel
def _draw_tile(tile, starts, hit_rows, hit_slots, splats, normals, columns_of_tiles, median_out, normals_out, hit_weights):
    height, width = median_out.shape
    top, left = tile // columns_of_tiles * TILE, tile % columns_of_tiles * TILE
    rows, columns = min(TILE, height - top), min(TILE, width - left)
    state = np.empty(PLANES * PIXELS, np.float32)
    start_tile(state, rows, columns)
    sums = np.empty(TILE, np.float32)
    flat = splats.reshape(-1)
    with_normals, with_weights = normals_out.size > 0, hit_weights.size > 0
    threshold, cap, stop, zero = splat(LOG2_ALPHA_MIN), splat(_CAP), splat(_STOP), splat(np.float32(0.0))
    half = splat(_HALF)
    first, last = 0, TILE - 1
    begin = starts[tile]
    for hit in range(begin, starts[tile + 1]):
        if (hit - begin) % _CHECK == 0:
            first, last = live_rows(state, first, last)
            if first > last:
                break
        base = 16 * hit_rows[hit]
        offset_y = np.float32(top) + np.float32(0.5) - flat[base + MEAN_Y]
        low, high = pixel_interval(flat[base + MEAN_Y] - np.float32(top), flat[base + EXTENT_Y], first, last)
        depth, total = splat(flat[base + DEPTH]), zero
        across = (lane_centers() + splat(np.float32(left) - flat[base + MEAN_X])) * splat(flat[base + SLOPE_X])
        for row in range(low, high + 1):
            at = row * TILE
            dy = offset_y + np.float32(row)
            u = across + splat(flat[base + SLOPE_Y] * dy)
            power = fnma(u, u, splat(flat[base + LOG2_OPACITY] - flat[base + CURVE_Y] * dy * dy))
            alpha = select_ge(power, threshold, minimum(exp2(power), cap), zero)
            before = load(state, T + at)
            weight = before * alpha
            after = before - weight
            weight = select_gt(after, stop, weight, zero)
            store(state, T + at, select_gt(after, stop, after, negative_magnitude(before)))
            total = total + weight
            # Passing a half happens once: before > 0.5 and before - weight <= 0.5.
            passed = select_gt(
                before, half, select_ge(half, before - weight, depth, load(state, MEDIAN + at)), load(state, MEDIAN + at)
            )
            store(state, MEDIAN + at, passed)
            if with_normals:
                normal = hit_rows[hit]
                store(state, NX + at, fma(weight, splat(normals[normal, 0]), load(state, NX + at)))
                store(state, NY + at, fma(weight, splat(normals[normal, 1]), load(state, NY + at)))
                store(state, NZ + at, fma(weight, splat(normals[normal, 2]), load(state, NZ + at)))
        if with_weights:
            store_sums(sums, 0, (total, zero))
            hit_weights[hit_slots[hit]] = sums[0]
    for row in range(rows):
        for column in range(columns):
            at = row * TILE + column
            median_out[top + row, left + column] = state[MEDIAN + at]
            if with_normals:
                for k in range(3):
                    normals_out[top + row, left + column, k] = state[NX + k * PIXELS + at]


@parallel
def draw_extras(tile_order, starts, hit_rows, hit_slots, splats, normals, columns_of_tiles, median_out, normals_out, hit_weights):
    """Draw median depth ``H W`` and, where the arrays are not empty, normals ``H W 3`` and weights per hit slot (zero on entry)."""
    for i in numba.prange(tile_order.size):
        _draw_tile(
            tile_order[i], starts, hit_rows, hit_slots, splats, normals, columns_of_tiles, median_out, normals_out, hit_weights
        )


@kernel
def sum_contributions(totals, bases, ids, slots, hit_weights, contribution):
    """Sum each splat's hit weights into its Gaussian's entry of ``contribution`` (N, zero on entry)."""
    for part in range(totals.shape[0]):
        kept = totals[part, 0]
        for i in range(kept):
            row = part * PART + i
            last_slot = slots[row + 1] if i + 1 < kept else totals[part, 2]
            total = 0.0
            for slot in range(bases[part] + slots[row], bases[part] + last_slot):
                total += hit_weights[slot]
            contribution[ids[row]] = total
