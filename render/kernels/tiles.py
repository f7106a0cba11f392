"""Which tiles an ellipse touches, and how that is packed into one word.

Input: the ellipse where a splat's alpha falls to 1/255. Output: tile rows and, per tile row, an interval of tile columns.
The test is exact up to the hull of the pixel centres of a tile row: the x interval of the ellipse within the row is solved.

A word holds up to three tile rows: first row (12 bits), number of rows (2), first column (12), and per row the offset of its
first column (6) and its number of columns (6). Larger splats carry -1 and are solved again where they are walked. Every walk must
find the same tiles, since places are handed out by the count of the first: what is given here are double precision numbers that
hold what splats store, single precision, and the arithmetic is exact.
"""

from __future__ import annotations

import math

from ..constants import TILE
from .jit import exact, inlined

SLACK_PX = 0.01
"""Added to every extent, so that float32 rounding never loses a pixel."""
LARGE = -1
"""The word of a splat that does not fit in one."""
MAX_ROWS = 3
_FIELD = 64


@exact
def pixel_interval(mean, extent, first, last):
    """First and last pixel whose centre lies within the extent, cut to [first, last]; empty when first > last."""
    low = max(float(first), math.ceil(mean - extent - 0.5 - SLACK_PX))
    high = min(float(last), math.floor(mean + extent - 0.5 + SLACK_PX))
    return int(low), int(high)


@exact
def tile_columns(tile_row, width, mean_x, mean_y, skew, tip_y, width2, narrow):
    """First and last tile column that the ellipse reaches in a tile row; empty when first > last.

    At a given dy the ellipse spans skew dy +- sqrt(width2 - narrow dy^2); it is widest to the right at dy = tip_y and to the
    left at -tip_y, so the extremes over a band of dy lie at those clamped to the band.
    """
    top = tile_row * TILE + 0.5 - mean_y
    bottom = top + (TILE - 1)
    right_y = min(max(tip_y, top), bottom)
    left_y = min(max(-tip_y, top), bottom)
    right = skew * right_y + math.sqrt(max(0.0, width2 - narrow * right_y * right_y))
    left = skew * left_y - math.sqrt(max(0.0, width2 - narrow * left_y * left_y))
    first = max(0.0, math.ceil(mean_x + left - 0.5 - SLACK_PX))
    last = min(width - 1.0, math.floor(mean_x + right - 0.5 + SLACK_PX))
    if first > last:
        return 0, -1
    return int(first) >> 4, int(last) >> 4


@inlined
def pack_head(first_row, rows, first_column):
    """Start a word."""
    return first_row | (rows << 12) | (first_column << 14)


@inlined
def pack_row(word, index, offset, columns):
    """Add tile row ``index`` of a word: ``columns`` tiles from ``offset`` past the first column."""
    return word | (offset << (26 + 12 * index)) | (columns << (32 + 12 * index))


@inlined
def unpack_head(word):
    """First row, number of rows, first column."""
    return word & 4095, (word >> 12) & 3, (word >> 14) & 4095


@inlined
def unpack_row(word, index, first_column):
    """First column and one past the last of tile row ``index``."""
    first = first_column + ((word >> (26 + 12 * index)) & 63)
    return first, first + ((word >> (32 + 12 * index)) & 63)


@inlined
def fits(rows, columns):
    """True when a splat of so many tile rows and columns fits in a word."""
    return rows <= MAX_ROWS and columns < _FIELD
