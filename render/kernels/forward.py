"""Draw tiles: composite the splats of a tile, front to back, sixteen pixels at a time.

Input: splats and the runs of ``binning``. Output: color, alpha, depth; and, for gradients, the final transmittance and the
number of hits each pixel lived through.

A tile's state lies in planes of 16 rows x 16 lanes: transmittance T, red, green, blue, depth, the sum of weights W, stop. W is
1 - T, but 1 - T has no digits left where a pixel is barely covered, and depth divides by it. One hit updates the rows its ellipse
reaches. There is no branch in the row loop. A finished pixel carries its transmittance negated: the test "next transmittance >
1e-4" then keeps failing by itself, and lanes outside the picture simply start finished.
"""

from __future__ import annotations

import numba
import numpy as np

from ..constants import ALPHA_CAP, ALPHA_MIN, TILE, TRANSMITTANCE_STOP
from .jit import inlined, kernel, parallel
from .lanes import (
    any_positive,
    divide,
    exp2,
    fma,
    fnma,
    lane_centers,
    load,
    magnitude,
    maximum,
    minimum,
    negative_magnitude,
    prefetch,
    select_ge,
    select_gt,
    splat,
    store,
)
from .layout import BLUE, CURVE_Y, DEPTH, EXTENT_Y, GREEN, LOG2_OPACITY, MEAN_X, MEAN_Y, RED, SLOPE_X, SLOPE_Y
from .tiles import pixel_interval

PIXELS = TILE * TILE
LOG2_ALPHA_MIN = np.float32(np.log2(ALPHA_MIN))
_CAP = np.float32(ALPHA_CAP)
_STOP = np.float32(TRANSMITTANCE_STOP)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_TINY = np.float32(1e-10)
_CHECK = 16
"""Hits between two looks at whether the tile is finished."""
_AHEAD = 12
"""Hits by which splats are prefetched."""

T, R, G, B, D, W, STOP = 0, PIXELS, 2 * PIXELS, 3 * PIXELS, 4 * PIXELS, 5 * PIXELS, 6 * PIXELS
PLANES = 7


@inlined
def start_tile(state, rows, columns):
    """Reset the planes; pixels outside ``rows`` x ``columns`` start finished."""
    state[:] = _ZERO
    for row in range(TILE):
        for column in range(TILE):
            state[T + row * TILE + column] = _ONE if row < rows and column < columns else -_ONE


@inlined
def live_rows(state, first, last):
    """Shrink [first, last] to the rows that still have a living pixel; empty when first > last."""
    while first <= last and not any_positive(load(state, T + first * TILE)):
        first += 1
    while last > first and not any_positive(load(state, T + last * TILE)):
        last -= 1
    return first, last


@kernel
def composite(begin, end, hit_rows, splats, left, top, state):
    """Composite hits [begin, end) into a tile whose first pixel is (left, top); return the end of the hits looked at."""
    flat = splats.reshape(-1)
    first, last = live_rows(state, 0, TILE - 1)
    threshold, cap, stop, zero = splat(LOG2_ALPHA_MIN), splat(_CAP), splat(_STOP), splat(_ZERO)
    hit = begin
    while hit < end:
        if (hit - begin) % _CHECK == 0:
            first, last = live_rows(state, first, last)
            if first > last:
                break
        prefetch(flat, 16 * hit_rows[min(hit + _AHEAD, end - 1)])
        base = 16 * hit_rows[hit]
        offset_y = np.float32(top) + np.float32(0.5) - flat[base + MEAN_Y]
        low, high = pixel_interval(flat[base + MEAN_Y] - np.float32(top), flat[base + EXTENT_Y], first, last)
        slope_x, slope_y, curve_y, log2_opacity = (
            flat[base + SLOPE_X],
            flat[base + SLOPE_Y],
            flat[base + CURVE_Y],
            flat[base + LOG2_OPACITY],
        )
        red, green, blue, depth = (
            splat(flat[base + RED]),
            splat(flat[base + GREEN]),
            splat(flat[base + BLUE]),
            splat(flat[base + DEPTH]),
        )
        count = splat(np.float32(hit - begin + 1))
        across = (lane_centers() + splat(np.float32(left) - flat[base + MEAN_X])) * splat(slope_x)
        for row in range(low, high + 1):
            at = row * TILE
            dy = offset_y + np.float32(row)
            u = across + splat(slope_y * dy)
            power = fnma(u, u, splat(log2_opacity - curve_y * dy * dy))
            alpha = select_ge(power, threshold, minimum(exp2(power), cap), zero)
            before = load(state, T + at)
            weight = before * alpha
            after = before - weight
            weight = select_gt(after, stop, weight, zero)
            store(state, T + at, select_gt(after, stop, after, negative_magnitude(before)))
            store(state, STOP + at, select_gt(after, stop, count, load(state, STOP + at)))
            store(state, R + at, fma(weight, red, load(state, R + at)))
            store(state, G + at, fma(weight, green, load(state, G + at)))
            store(state, B + at, fma(weight, blue, load(state, B + at)))
            store(state, D + at, fma(weight, depth, load(state, D + at)))
            store(state, W + at, weight + load(state, W + at))
        hit += 1
    return hit


@inlined
def finish_tile(state, background, rows, columns, left, top, color, alpha, depth):
    """Blend the background and copy a tile into the pictures."""
    back_red, back_green, back_blue = splat(background[0]), splat(background[1]), splat(background[2])
    for row in range(rows):
        at = row * TILE
        through = magnitude(load(state, T + at))
        store(state, R + at, fma(through, back_red, load(state, R + at)))
        store(state, G + at, fma(through, back_green, load(state, G + at)))
        store(state, B + at, fma(through, back_blue, load(state, B + at)))
        store(state, D + at, divide(load(state, D + at), maximum(load(state, W + at), splat(_TINY))))
        for column in range(columns):
            color[top + row, left + column, 0] = state[R + at + column]
            color[top + row, left + column, 1] = state[G + at + column]
            color[top + row, left + column, 2] = state[B + at + column]
            alpha[top + row, left + column] = state[W + at + column]
            depth[top + row, left + column] = state[D + at + column]


@kernel
def _draw_tile(tile, starts, hit_rows, splats, background, columns_of_tiles, color, alpha, depth, saved, seen):
    height, width = alpha.shape
    top, left = tile // columns_of_tiles * TILE, tile % columns_of_tiles * TILE
    rows, columns = min(TILE, height - top), min(TILE, width - left)
    state = np.empty(PLANES * PIXELS, np.float32)
    start_tile(state, rows, columns)
    end = composite(starts[tile], starts[tile + 1], hit_rows, splats, left, top, state)
    if saved.size:
        saved[tile, 0] = state[T : T + PIXELS]
        saved[tile, 1] = state[STOP : STOP + PIXELS]
        seen[tile] = end - starts[tile]
    finish_tile(state, background, rows, columns, left, top, color, alpha, depth)


@parallel
def draw(tile_order, starts, hit_rows, splats, background, columns_of_tiles, color, alpha, depth, saved, seen):
    """Draw every tile, the busiest first.

    Args:
        tile_order: permutation of the tiles.
        starts: tiles + 1; the run of each tile in hit_rows.
        hit_rows: splat rows, nearest first in each run.
        splats: ``M 16`` float32.
        background: 3 float32.
        columns_of_tiles: tiles in a tile row.
        color: ``H W 3`` out; alpha, depth: ``H W`` out.
        saved: ``tiles 2 256`` out: signed transmittance and stop; empty when no gradient is wanted.
        seen: hits looked at per tile, out; empty when no gradient is wanted.
    """
    for i in numba.prange(tile_order.size):
        _draw_tile(tile_order[i], starts, hit_rows, splats, background, columns_of_tiles, color, alpha, depth, saved, seen)
