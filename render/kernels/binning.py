"""Which splats touch which tiles, in depth order.

Input: splats, their packed tiles and their depth order. Output: per tile, a run of splat rows, nearest first.
Splats are walked in depth order and appended to the tiles they touch, so no tile is ever sorted. The order is cut into parts;
a first walk counts per (part, tile), a prefix sum turns counts into places, a second walk writes. Both walks read one 8-byte
word per splat; splats themselves are only read for the few that are too large for a word.
"""

from __future__ import annotations

import numba
import numpy as np

from ..constants import TILE
from .jit import inlined, kernel, parallel
from .lanes import prefetch
from .layout import EXTENT_Y, MEAN_X, MEAN_Y, NARROW, SKEW, TIP_Y, WIDTH2
from .projection import PART
from .tiles import LARGE, pixel_interval, tile_columns, unpack_head, unpack_row

_AHEAD = 24
"""Splats by which words are prefetched."""


@inlined
def _rows_of(word, splats, row, height):
    """First tile row, number of tile rows and first column of a splat."""
    if word != LARGE:
        return unpack_head(word)
    low, high = pixel_interval(float(splats[row, MEAN_Y]), float(splats[row, EXTENT_Y]), 0, height - 1)
    return low // TILE, high // TILE - low // TILE + 1, 0


@inlined
def _columns_of(word, splats, row, index, first_row, first_column, width):
    """First column and one past the last in the splat's tile row ``index``."""
    if word != LARGE:
        return unpack_row(word, index, first_column)
    first, last = tile_columns(
        first_row + index,
        width,
        float(splats[row, MEAN_X]),
        float(splats[row, MEAN_Y]),
        float(splats[row, SKEW]),
        float(splats[row, TIP_Y]),
        float(splats[row, WIDTH2]),
        float(splats[row, NARROW]),
    )
    return first, last + 1


@kernel
def _count(begin, end, order, splats, words, width, height, wanted, counts):
    columns = wanted.shape[1]
    for i in range(begin, end):
        prefetch(words, order[min(i + _AHEAD, end - 1)])
        row = order[i]
        word = words[row]
        first_row, rows, first_column = _rows_of(word, splats, row, height)
        for index in range(rows):
            first, stop = _columns_of(word, splats, row, index, first_row, first_column, width)
            for column in range(first, stop):
                tile = (first_row + index) * columns + column
                counts[tile] += wanted[first_row + index, column]


@kernel
def _emit(begin, end, order, splats, words, width, height, wanted, places, slots, bases, hit_rows, hit_slots):
    columns = wanted.shape[1]
    linked = hit_slots.size > 0
    for i in range(begin, end):
        prefetch(words, order[min(i + _AHEAD, end - 1)])
        row = order[i]
        word = words[row]
        slot = bases[row // PART] + slots[row] if linked else 0
        first_row, rows, first_column = _rows_of(word, splats, row, height)
        for index in range(rows):
            first, stop = _columns_of(word, splats, row, index, first_row, first_column, width)
            for column in range(first, stop):
                if wanted[first_row + index, column]:
                    tile = (first_row + index) * columns + column
                    at = places[tile]
                    places[tile] = at + 1
                    hit_rows[at] = row
                    if linked:
                        hit_slots[at] = slot
                slot += 1


@parallel
def _count_all(order, splats, words, width, height, wanted, places):
    parts, count = places.shape[0], order.size
    for part in numba.prange(parts):
        begin, end = count * part // parts, count * (part + 1) // parts
        _count(begin, end, order, splats, words, width, height, wanted, places[part])


@kernel
def _prefix(places, starts):
    at = 0
    for tile in range(places.shape[1]):
        starts[tile] = at
        for part in range(places.shape[0]):
            here = places[part, tile]
            places[part, tile] = at
            at += here
    starts[places.shape[1]] = at


@parallel
def _emit_all(order, splats, words, width, height, wanted, places, slots, bases, hit_rows, hit_slots):
    parts, count = places.shape[0], order.size
    for part in numba.prange(parts):
        begin, end = count * part // parts, count * (part + 1) // parts
        _emit(begin, end, order, splats, words, width, height, wanted, places[part], slots, bases, hit_rows, hit_slots)


def bin_splats(order, splats, words, slots, bases, width: int, height: int, wanted: np.ndarray, linked: bool):
    """Sort splats into tiles.

    Args:
        order: splat rows, nearest first.
        splats: ``M 16`` float32.
        words: packed tiles per splat row.
        slots: hits before each splat row in its part.
        bases: hits before each part.
        width: of the picture, pixels.
        height: of the picture, pixels.
        wanted: ``tile_rows tile_cols`` bool; hits of other tiles are not made.
        linked: also return the slot of every hit: splat rows number their hits one after the other, wanted or not.

    Returns:
        starts (tiles + 1), hit_rows, hit_slots: tile t holds hit_rows[starts[t]:starts[t + 1]].
    """
    tiles = wanted.size
    parts = max(1, min(numba.get_num_threads(), order.size // 4096))
    places = np.zeros((parts, tiles), np.int64)
    starts = np.empty(tiles + 1, np.int64)
    _count_all(order, splats, words, width, height, wanted, places)
    _prefix(places, starts)
    hits = int(starts[-1])
    hit_rows = np.empty(hits, np.int32)
    hit_slots = np.empty(hits if linked else 0, np.int32)
    _emit_all(order, splats, words, width, height, wanted, places, slots, bases, hit_rows, hit_slots)
    return starts, hit_rows, hit_slots
