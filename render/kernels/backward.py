"""Gradients of drawn tiles: walk each tile's hits back to front and sum what every splat receives.

Input: what ``forward`` saved and the gradients of the pictures. Output: one row of sums per hit (see ``layout``), written to the
hit's slot, so that a splat's rows lie together and no two tiles write the same place: no atomics, the same result on any number
of threads.
Method: transmittance is recovered by dividing by (1 - alpha) from the saved final value; what lies behind a hit is accumulated
in one number per pixel, since the colour gradients of that pixel are known. Source: Kerbl et al. 2023, appendix C. The mean
depth sum(w z) / sum(w) changes by (z - mean) / sum(w) with each weight, so it needs nothing accumulated.
Does not: touch 3-D quantities; that is ``reduce``.
"""

from __future__ import annotations

import numba
import numpy as np

from ..constants import ALPHA_CAP, TILE
from .forward import LOG2_ALPHA_MIN, PIXELS
from .jit import inlined, kernel, parallel
from .lanes import divide, exp2, fma, fnma, lane_centers, load, minimum, prefetch, select_ge, splat, store, store_sums
from .layout import BLUE, CURVE_Y, DEPTH, EXTENT_Y, GREEN, HIT_GRADIENT, LOG2_OPACITY, MEAN_X, MEAN_Y, RED, SLOPE_X, SLOPE_Y
from .tiles import pixel_interval

_CAP = np.float32(ALPHA_CAP)
_ZERO, _ONE, _TINY = np.float32(0.0), np.float32(1.0), np.float32(1e-10)
_AHEAD = 12

T, STOP, BEHIND, GR, GG, GB, GD, MEAN_DEPTH = (plane * PIXELS for plane in range(8))
PLANES = 8


@inlined
def load_gradients(state, background, left, top, alpha, depth, grad_color, grad_alpha, grad_depth):
    """Fill the planes of a tile: colour gradients, and what the background and alpha leave behind the last hit."""
    height, width = alpha.shape
    for row in range(TILE):
        for column in range(TILE):
            at = row * TILE + column
            y, x = top + row, left + column
            state[T + at] = abs(state[T + at])
            if y >= height or x >= width:
                for plane in range(2, PLANES):
                    state[plane * PIXELS + at] = _ZERO
                continue
            red, green, blue = grad_color[y, x, 0], grad_color[y, x, 1], grad_color[y, x, 2]
            state[GR + at], state[GG + at], state[GB + at] = red, green, blue
            state[GD + at] = grad_depth[y, x] / max(alpha[y, x], _TINY)
            state[MEAN_DEPTH + at] = depth[y, x]
            behind = background[0] * red + background[1] * green + background[2] * blue - grad_alpha[y, x]
            state[BEHIND + at] = state[T + at] * behind


@kernel
def gather_hits(begin, end, hit_rows, hit_slots, splats, left, top, state, sums, touched):
    """Walk hits [begin, end) from the back and write their sums."""
    flat, flat_sums = splats.reshape(-1), sums.reshape(-1)
    threshold, cap, zero, one = splat(LOG2_ALPHA_MIN), splat(_CAP), splat(_ZERO), splat(_ONE)
    for hit in range(end - 1, begin - 1, -1):
        prefetch(flat, 16 * hit_rows[max(hit - _AHEAD, begin)])
        base = 16 * hit_rows[hit]
        offset_y = np.float32(top) + np.float32(0.5) - flat[base + MEAN_Y]
        low, high = pixel_interval(flat[base + MEAN_Y] - np.float32(top), flat[base + EXTENT_Y], 0, TILE - 1)
        slope_x, slope_y = flat[base + SLOPE_X], flat[base + SLOPE_Y]
        curve_y, log2_opacity = flat[base + CURVE_Y], flat[base + LOG2_OPACITY]
        red, green, blue = splat(flat[base + RED]), splat(flat[base + GREEN]), splat(flat[base + BLUE])
        depth = splat(flat[base + DEPTH])
        count = splat(np.float32(hit - begin + 1))
        across = (lane_centers() + splat(np.float32(left) - flat[base + MEAN_X])) * splat(slope_x)
        v0, vu, vuu, vuy, vy, vyy = zero, zero, zero, zero, zero, zero
        sum_red, sum_green, sum_blue, sum_depth = zero, zero, zero, zero
        for row in range(low, high + 1):
            at = row * TILE
            scalar_dy = offset_y + np.float32(row)
            dy = splat(scalar_dy)
            u = across + splat(slope_y * scalar_dy)
            power = fnma(u, u, splat(log2_opacity - curve_y * scalar_dy * scalar_dy))
            full = exp2(power)
            alpha = select_ge(power, threshold, minimum(full, cap), zero)
            alpha = select_ge(load(state, STOP + at), count, alpha, zero)
            rest = divide(one, one - alpha)
            after = load(state, T + at)
            before = select_ge(zero, alpha, after, after * rest)
            store(state, T + at, before)
            weight = before * alpha
            g_red, g_green = load(state, GR + at), load(state, GG + at)
            g_blue, g_depth = load(state, GB + at), load(state, GD + at)
            own = fma(red, g_red, fma(green, g_green, fma(blue, g_blue, (depth - load(state, MEAN_DEPTH + at)) * g_depth)))
            behind = load(state, BEHIND + at)
            v = alpha * fnma(behind, rest, before * own)
            v = select_ge(cap, full, v, zero)
            store(state, BEHIND + at, fma(weight, own, behind))
            v_u = v * u
            v_y = v * dy
            v0 = v0 + v
            vu = vu + v_u
            vuu = fma(v_u, u, vuu)
            vuy = fma(v_u, dy, vuy)
            vy = vy + v_y
            vyy = fma(v_y, dy, vyy)
            sum_red = fma(weight, g_red, sum_red)
            sum_green = fma(weight, g_green, sum_green)
            sum_blue = fma(weight, g_blue, sum_blue)
            sum_depth = fma(weight, g_depth, sum_depth)
        slot = hit_slots[hit]
        store_sums(flat_sums, HIT_GRADIENT * slot, (v0, vu, vuu, vuy, vy, vyy, sum_red, sum_green, sum_blue, sum_depth))
        touched[slot] = True


@kernel
def _gather_tile(
    tile, starts, hit_rows, hit_slots, splats, background, columns_of_tiles, saved, seen, pictures, gradients, sums, touched
):
    if seen[tile] == 0:
        return
    top, left = tile // columns_of_tiles * TILE, tile % columns_of_tiles * TILE
    state = np.empty(PLANES * PIXELS, np.float32)
    state[T : T + PIXELS] = saved[tile, 0]
    state[STOP : STOP + PIXELS] = saved[tile, 1]
    alpha, depth = pictures
    grad_color, grad_alpha, grad_depth = gradients
    load_gradients(state, background, left, top, alpha, depth, grad_color, grad_alpha, grad_depth)
    begin = starts[tile]
    gather_hits(begin, begin + seen[tile], hit_rows, hit_slots, splats, left, top, state, sums, touched)


@parallel
def gather(
    tile_order, starts, hit_rows, hit_slots, splats, background, columns_of_tiles, saved, seen, pictures, gradients, sums, touched
):
    """Sum gradients per hit, tile by tile, the busiest first.

    Args:
        pictures: (alpha, depth) that ``forward.draw`` wrote.
        gradients: of (color, alpha, depth).
        sums: ``hits 16`` float32 out, by slot.
        touched: ``hits`` bool out, False on entry; rows of ``sums`` left False are not written.
    """
    for i in numba.prange(tile_order.size):
        _gather_tile(
            tile_order[i],
            starts,
            hit_rows,
            hit_slots,
            splats,
            background,
            columns_of_tiles,
            saved,
            seen,
            pictures,
            gradients,
            sums,
            touched,
        )
