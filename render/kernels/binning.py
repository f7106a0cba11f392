"""Which splats touch which tiles, in depth order.

Input: splats and their depth order. Output: per tile, a run of splat rows, nearest first.
Splats are walked in depth order and appended to the tiles they touch, so no tile is ever sorted. The order is cut into parts;
a first walk counts per (part, tile), a prefix sum turns counts into places, a second walk writes. The touched tiles are exact
up to the hull of the pixel centres: in each tile row the ellipse alpha = 1/255 is solved for its x interval.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from ..constants import TILE
from .jit import inlined, kernel, parallel
from .layout import EXTENT_Y, MEAN_X, MEAN_Y, NARROW, SKEW, TIP_Y, WIDTH2

_SLACK = 0.01
"""Pixels added to every extent, so that float32 rounding never loses a pixel."""


@inlined
def pixel_rows(mean_y, extent_y, first, last):
    """First and last pixel row whose centre lies within the extent, cut to [first, last]; empty when first > last."""
    low = max(float(first), math.ceil(mean_y - extent_y - 0.5 - _SLACK))
    high = min(float(last), math.floor(mean_y + extent_y - 0.5 + _SLACK))
    return int(low), int(high)


@inlined
def tile_columns(splats, row, tile_row, width):
    """First and last tile column that the ellipse reaches in a tile row; empty when first > last."""
    top = tile_row * TILE + 0.5 - splats[row, MEAN_Y]
    bottom = top + (TILE - 1)
    tip = splats[row, TIP_Y]
    right_y = min(max(tip, top), bottom)
    left_y = min(max(-tip, top), bottom)
    right = splats[row, SKEW] * right_y + math.sqrt(max(0.0, splats[row, WIDTH2] - splats[row, NARROW] * right_y * right_y))
    left = splats[row, SKEW] * left_y - math.sqrt(max(0.0, splats[row, WIDTH2] - splats[row, NARROW] * left_y * left_y))
    first = max(0.0, math.ceil(splats[row, MEAN_X] + left - 0.5 - _SLACK))
    last = min(width - 1.0, math.floor(splats[row, MEAN_X] + right - 0.5 + _SLACK))
    if first > last:
        return 1, 0
    return int(first) // TILE, int(last) // TILE


@kernel
def _count(begin, end, order, splats, width, height, wanted, counts):
    columns = wanted.shape[1]
    for i in range(begin, end):
        row = order[i]
        low, high = pixel_rows(splats[row, MEAN_Y], splats[row, EXTENT_Y], 0, height - 1)
        if low > high:
            continue
        for tile_row in range(low // TILE, high // TILE + 1):
            first, last = tile_columns(splats, row, tile_row, width)
            for column in range(first, last + 1):
                if wanted[tile_row, column]:
                    counts[tile_row * columns + column] += 1


@kernel
def _emit(begin, end, order, splats, width, height, wanted, places, slot, hit_rows, hit_slots, first_slots):
    columns = wanted.shape[1]
    linked = hit_slots.size > 0
    for i in range(begin, end):
        row = order[i]
        if linked:
            first_slots[i] = slot
        low, high = pixel_rows(splats[row, MEAN_Y], splats[row, EXTENT_Y], 0, height - 1)
        if low > high:
            continue
        for tile_row in range(low // TILE, high // TILE + 1):
            first, last = tile_columns(splats, row, tile_row, width)
            for column in range(first, last + 1):
                if wanted[tile_row, column]:
                    tile = tile_row * columns + column
                    at = places[tile]
                    places[tile] = at + 1
                    hit_rows[at] = row
                    if linked:
                        hit_slots[at] = slot
                        slot += 1


@parallel
def _count_all(order, splats, width, height, wanted, places):
    parts, count = places.shape[0], order.size
    for part in numba.prange(parts):
        _count(count * part // parts, count * (part + 1) // parts, order, splats, width, height, wanted, places[part])


@kernel
def _prefix(places, starts, slots):
    at = 0
    for tile in range(places.shape[1]):
        starts[tile] = at
        for part in range(places.shape[0]):
            here = places[part, tile]
            slots[part] += here
            places[part, tile] = at
            at += here
    starts[places.shape[1]] = at
    before = 0
    for part in range(places.shape[0]):
        here = slots[part]
        slots[part] = before
        before += here


@parallel
def _emit_all(order, splats, width, height, wanted, places, slots, hit_rows, hit_slots, first_slots):
    parts, count = places.shape[0], order.size
    for part in numba.prange(parts):
        _emit(
            count * part // parts,
            count * (part + 1) // parts,
            order,
            splats,
            width,
            height,
            wanted,
            places[part],
            slots[part],
            hit_rows,
            hit_slots,
            first_slots,
        )


def bin_splats(order: np.ndarray, splats: np.ndarray, width: int, height: int, wanted: np.ndarray, linked: bool):
    """Sort splats into tiles.

    Args:
        order: splat rows, nearest first.
        splats: ``M 16`` float32.
        width: of the picture, pixels.
        height: of the picture, pixels.
        wanted: ``tile_rows tile_cols`` bool; hits of other tiles are not made.
        linked: also number the hits splat by splat, for the gradient's reduction.

    Returns:
        starts (tiles + 1), hit_rows, hit_slots, first_slots: tile t holds hit_rows[starts[t]:starts[t + 1]]; hit h of splat
        order[i] has a slot in first_slots[i] .. first_slots[i + 1].
    """
    tiles = wanted.size
    parts = max(1, min(numba.get_num_threads(), order.size // 4096))
    places = np.zeros((parts, tiles), np.int64)
    slots = np.zeros(parts, np.int64)
    starts = np.empty(tiles + 1, np.int64)
    _count_all(order, splats, width, height, wanted, places)
    _prefix(places, starts, slots)
    hits = int(starts[-1])
    hit_rows = np.empty(hits, np.int32)
    hit_slots = np.empty(hits if linked else 0, np.int32)
    first_slots = np.empty(order.size + 1 if linked else 0, np.int32)
    if linked:
        first_slots[-1] = hits
    _emit_all(order, splats, width, height, wanted, places, slots, hit_rows, hit_slots, first_slots)
    return starts, hit_rows, hit_slots, first_slots
