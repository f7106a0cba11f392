"""The vector intrinsics against NumPy."""

from __future__ import annotations

import numba
import numpy as np

from render.kernels import jit
from render.kernels.lanes import divide, exp2, load, select_ge, splat, store, store_sums

jit.prepare()


@numba.njit
def _exp2_all(values, out):
    for i in range(0, values.size, 16):
        store(out, i, exp2(load(values, i)))


@numba.njit
def _quotients(a, b, out):
    for i in range(0, a.size, 16):
        store(out, i, divide(load(a, i), load(b, i)))


@numba.njit
def _sums(values, out):
    v = load(values, 0)
    store_sums(out, 0, (v, load(values, 16), load(values, 32), v * v, splat(np.float32(1.0))))


@numba.njit
def _clamped(values, out):
    low = splat(np.float32(0.25))
    store(out, 0, select_ge(load(values, 0), low, load(values, 0), low))


def test_exp2_is_right_to_three_units_in_the_last_place() -> None:
    values = np.linspace(-20.0, 5.0, 160_000, dtype=np.float32)
    out = np.empty_like(values)
    _exp2_all(values, out)
    exact = np.exp2(values.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 3 * 2.0**-23


def test_exp2_of_whole_numbers_is_exact() -> None:
    values = np.arange(-8, 8, dtype=np.float32)
    out = np.empty_like(values)
    _exp2_all(values, out)
    assert np.array_equal(out, np.exp2(values))


def test_divide() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=1600).astype(np.float32), rng.uniform(1e-3, 2, 1600).astype(np.float32)
    out = np.empty_like(a)
    _quotients(a, b, out)
    assert np.abs(out - a / b).max() <= 4 * 2.0**-23 * np.abs(a / b).max()


def test_sums_land_in_their_places_and_the_rest_is_zero() -> None:
    values = np.arange(48, dtype=np.float32)
    out = np.full(16, 7.0, np.float32)
    _sums(values, out)
    expected = [values[:16].sum(), values[16:32].sum(), values[32:].sum(), (values[:16] ** 2).sum(), 16.0]
    assert np.array_equal(out, np.array(expected + [0.0] * 11, np.float32))


def test_select_takes_the_other_side_for_nan() -> None:
    values = np.full(16, np.nan, np.float32)
    values[0] = 1.0
    out = np.empty(16, np.float32)
    _clamped(values, out)
    assert out[0] == 1.0
    assert (out[1:] == 0.25).all()
