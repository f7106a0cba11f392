"""Compiled L1, L2 and SSIM with their gradient; the twin of ``losses.photo_loss_twin``.

Input: ``H W 3`` float32 arrays. Output: gradient, loss, squared error.
Pictures are walked as rows of 3 W numbers: a horizontal neighbour in the same channel is 3 numbers away, so every loop runs
over contiguous memory and vectorises. Three sweeps: blur rows; blur columns, take the partial derivatives, blur their rows;
blur their columns and join. Does not: allocate large arrays anew (they are kept per picture size and thread).
"""

from __future__ import annotations

import threading

import numpy as np

from .workers import kernel, over_rows

WINDOW = tuple(float(w) for w in np.exp(-(np.arange(-5, 6) ** 2) / 4.5) / np.exp(-(np.arange(-5, 6) ** 2) / 4.5).sum())
"""Gaussian window of sigma 1.5 over 11 pixels."""
_W = np.array(WINDOW[5:], np.float32)
PAD = 15
"""Numbers of padding at both ends of a row: five pixels of three channels."""

_held = threading.local()


class _Workspace:
    """Arrays for one picture size."""

    def __init__(self, height: int, width: int) -> None:
        long = 3 * width
        self.rows = np.zeros((3, height + 10, long), np.float32)
        self.partials = np.zeros((3, height + 10, long), np.float32)
        self.lines = np.zeros((height, 7, long + 2 * PAD), np.float32)
        self.sums = np.zeros((height, 3), np.float64)


def _workspace(height: int, width: int) -> _Workspace:
    held = getattr(_held, "spaces", None)
    if held is None:
        held = _held.spaces = {}
    if (height, width) not in held:
        if len(held) > 8:
            held.clear()
        held[height, width] = _Workspace(height, width)
    return held[height, width]


@kernel
def _blur_line(line, w, out):
    for i in range(out.size):
        out[i] = (
            w[0] * line[i + 15]
            + w[1] * (line[i + 12] + line[i + 18])
            + w[2] * (line[i + 9] + line[i + 21])
            + w[3] * (line[i + 6] + line[i + 24])
            + w[4] * (line[i + 3] + line[i + 27])
            + w[5] * (line[i] + line[i + 30])
        )


@kernel
def _blur_column(rows, y, w, out):
    r0, r1, r2, r3, r4, r5 = rows[y], rows[y + 1], rows[y + 2], rows[y + 3], rows[y + 4], rows[y + 5]
    r6, r7, r8, r9, r10 = rows[y + 6], rows[y + 7], rows[y + 8], rows[y + 9], rows[y + 10]
    for i in range(out.size):
        out[i] = (
            w[0] * r5[i]
            + w[1] * (r4[i] + r6[i])
            + w[2] * (r3[i] + r7[i])
            + w[3] * (r2[i] + r8[i])
            + w[4] * (r1[i] + r9[i])
            + w[5] * (r0[i] + r10[i])
        )


@kernel
def _first(begin, end, color, image, weight, w, lines, rows, sums, shares, gradient):
    """Pixel differences, then rows of p, p^2 and p q blurred along the row."""
    long = image.shape[1]
    absolute, square = np.float32(1.0) - shares[1], shares[1] * shares[2]
    for y in range(begin, end):
        line = lines[y]
        p, pp, pq = line[0], line[1], line[2]
        keep = line[6]
        for x in range(long // 3):
            keep[3 * x] = keep[3 * x + 1] = keep[3 * x + 2] = weight[y, x]
        q, r, g = image[y], color[y], gradient[y]
        loss, error, total = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for i in range(long):
            a = r[i] * keep[i]
            d = a - q[i]
            loss += absolute * abs(d) + square * d * d
            error += d * d
            total += keep[i]
            g[i] = absolute * np.sign(d) + 2 * square * d
            p[PAD + i] = a
            pp[PAD + i] = a * a
            pq[PAD + i] = a * q[i]
        _blur_line(p, w, rows[0, y + 5])
        _blur_line(pp, w, rows[1, y + 5])
        _blur_line(pq, w, rows[2, y + 5])
        sums[y, 0], sums[y, 1], sums[y, 2] = loss, error, total


@kernel
def _second(begin, end, mean, variance, w, lines, rows, partials, sums, ssim_share):
    """Columns blurred, SSIM and its derivatives with respect to the three blurred maps, these blurred along the row."""
    long = mean.shape[1]
    c1, c2 = np.float32(0.01**2), np.float32(0.03**2)
    for y in range(begin, end):
        line = lines[y]
        m, epp, epq = line[3, PAD : PAD + long], line[4, PAD : PAD + long], line[5, PAD : PAD + long]
        _blur_column(rows[0], y, w, m)
        _blur_column(rows[1], y, w, epp)
        _blur_column(rows[2], y, w, epq)
        mq, vq, keep = mean[y], variance[y], line[6]
        similar, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
        for i in range(long):
            mp, mt = m[i], mq[i]
            a1 = two * mp * mt + c1
            a2 = two * (epq[i] - mp * mt) + c2
            b1 = mp * mp + mt * mt + c1
            b2 = epp[i] - mp * mp + vq[i] + c2
            inverse = keep[i] / (b1 * b2)
            s = a1 * a2 * inverse
            similar += keep[i] * one - s
            m[i] = two * mt * (a2 - a1) * inverse + two * mp * s * (b1 - b2) / (b1 * b2)
            epp[i] = -s / b2
            epq[i] = two * a1 * inverse
        _blur_line(line[3], w, partials[0, y + 5])
        _blur_line(line[4], w, partials[1, y + 5])
        _blur_line(line[5], w, partials[2, y + 5])
        sums[y, 0] = (1.0 - ssim_share) * sums[y, 0] + ssim_share * similar


@kernel
def _third(begin, end, image, w, lines, partials, ssim_share, scale, gradient):
    """Join the derivatives."""
    long = image.shape[1]
    for y in range(begin, end):
        line = lines[y]
        a, b, c = line[3, PAD : PAD + long], line[4, PAD : PAD + long], line[5, PAD : PAD + long]
        _blur_column(partials[0], y, w, a)
        _blur_column(partials[1], y, w, b)
        _blur_column(partials[2], y, w, c)
        p, q, g, keep = line[0], image[y], gradient[y], line[6]
        for i in range(long):
            slope = a[i] + np.float32(2.0) * p[PAD + i] * b[i] + q[i] * c[i]
            g[i] = ((np.float32(1.0) - ssim_share) * g[i] - ssim_share * slope) * scale * keep[i]


@kernel
def _blur_rows(begin, end, image, w, lines, rows):
    for y in range(begin, end):
        p, pp = lines[y, 0], lines[y, 1]
        for i in range(image.shape[1]):
            p[PAD + i] = image[y, i]
            pp[PAD + i] = image[y, i] * image[y, i]
        _blur_line(p, w, rows[0, y + 5])
        _blur_line(pp, w, rows[1, y + 5])


@kernel
def _blur_columns(begin, end, w, rows, mean, variance):
    for y in range(begin, end):
        _blur_column(rows[0], y, w, mean[y])
        _blur_column(rows[1], y, w, variance[y])
        for i in range(mean.shape[1]):
            variance[y, i] -= mean[y, i] * mean[y, i]


def blur_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windowed mean and variance of an ``H W 3`` picture."""
    height, width = image.shape[:2]
    space = _workspace(height, width)
    mean, variance = np.empty((height, 3 * width), np.float32), np.empty((height, 3 * width), np.float32)
    over_rows(_blur_rows, height, image.reshape(height, -1), _W, space.lines, space.rows)
    over_rows(_blur_columns, height, _W, space.rows, mean, variance)
    return mean.reshape(image.shape), variance.reshape(image.shape)


def loss_and_gradient(
    color: np.ndarray, image: np.ndarray, weight: np.ndarray, mean: np.ndarray, variance: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Gradient ``H W 3``, loss and mean squared error; ``shares`` are those of ``LossConfig`` in its order."""
    height, width = weight.shape
    space = _workspace(height, width)
    gradient = np.empty((height, 3 * width), np.float32)
    flat = image.reshape(height, -1)
    ssim_share = np.float32(shares[0])
    over_rows(_first, height, color.reshape(height, -1), flat, weight, _W, space.lines, space.rows, space.sums, shares, gradient)
    means, variances = mean.reshape(height, -1), variance.reshape(height, -1)
    over_rows(_second, height, means, variances, _W, space.lines, space.rows, space.partials, space.sums, ssim_share)
    loss, error, total = space.sums.sum(0)
    scale = 1.0 / max(total, 3.0)
    over_rows(_third, height, flat, _W, space.lines, space.partials, ssim_share, np.float32(scale), gradient)
    return gradient.reshape(color.shape), float(loss * scale), float(error * scale)
