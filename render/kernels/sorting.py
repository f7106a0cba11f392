"""Depth order of the splats: a stable radix sort of float32 depths, done once for the whole picture.

Input: packed parts of splats. Output: splat rows, nearest first; equal depths keep the order of the Gaussians.
Positive floats sort like their bits. Only the bits that differ are sorted: a scene between 2 and 4 m needs two passes.
"""

from __future__ import annotations

import numba
import numpy as np

from .jit import kernel, parallel
from .layout import DEPTH
from .projection import PART

DIGIT_BITS = 12


@kernel
def _collect(part, start, count, bits, keys, rows):
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for i in range(count):
        row = part * PART + i
        key = bits[row, DEPTH]
        keys[start + i] = key
        rows[start + i] = row
        low, high = min(low, key), max(high, key)
    return low, high


@parallel
def _collect_all(starts, kept, bits, keys, rows, lows, highs):
    for part in numba.prange(kept.size):
        lows[part], highs[part] = _collect(part, starts[part], kept[part], bits, keys, rows)


@kernel
def _histogram(begin, end, keys, low, shift, mask, counts):
    for i in range(begin, end):
        counts[((keys[i] - low) >> shift) & mask] += 1


@kernel
def _scatter(begin, end, keys, rows, low, shift, mask, places, keys_out, rows_out):
    for i in range(begin, end):
        digit = ((keys[i] - low) >> shift) & mask
        at = places[digit]
        places[digit] = at + 1
        keys_out[at] = keys[i]
        rows_out[at] = rows[i]


@parallel
def _pass(keys, rows, low, shift, mask, places, keys_out, rows_out):
    parts = places.shape[0]
    count = keys.size
    places[:] = 0
    for part in numba.prange(parts):
        _histogram(count * part // parts, count * (part + 1) // parts, keys, low, shift, mask, places[part])
    at = 0
    for digit in range(places.shape[1]):
        for part in range(parts):
            here = places[part, digit]
            places[part, digit] = at
            at += here
    for part in numba.prange(parts):
        _scatter(count * part // parts, count * (part + 1) // parts, keys, rows, low, shift, mask, places[part], keys_out, rows_out)


def depth_order(splats: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the rows of all kept splats, nearest first.

    Args:
        splats: ``M 16`` float32, part p packed from row p * PART.
        kept: how many splats each part holds.
    """
    total = int(kept.sum())
    starts = np.cumsum(kept) - kept
    keys, rows = np.empty(total, np.uint32), np.empty(total, np.int32)
    lows, highs = np.empty(kept.size, np.uint32), np.empty(kept.size, np.uint32)
    _collect_all(starts, kept, splats.view(np.uint32), keys, rows, lows, highs)
    if total < 2:
        return rows
    low = np.uint32(lows.min())
    span_bits = int(highs.max() - low).bit_length()
    passes = -(-span_bits // DIGIT_BITS)
    if passes == 0:
        return rows
    bits = -(-span_bits // passes)
    parts = min(numba.get_num_threads(), max(1, total // 8192))
    places = np.empty((parts, 1 << bits), np.int64)
    keys_out, rows_out = np.empty_like(keys), np.empty_like(rows)
    for digit in range(passes):
        _pass(keys, rows, low, np.uint32(digit * bits), np.uint32((1 << bits) - 1), places, keys_out, rows_out)
        keys, keys_out, rows, rows_out = keys_out, keys, rows_out, rows
    return rows
