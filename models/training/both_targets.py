"""Arithmetic that Numba compiles for processors and for CUDA alike.

Input and output: numbers. Does not: know rays.

Numba 0.68 compiled for CUDA fails at ``min`` and ``max`` of two numbers and at ``np.sign`` of one, and its ``floor`` is no whole
number there.
"""

from __future__ import annotations

import math

import numba as nb

__all__ = ["floor", "greater", "lesser", "sign"]


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def lesser(a, b):
    return a if a < b else b


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def greater(a, b):
    return a if a > b else b


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def sign(a):
    """-1 or 1."""
    return math.copysign(1.0, a)


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def floor(a):
    """Largest whole number that is not above ``a``."""
    return int(math.floor(a))  # noqa: RUF046
