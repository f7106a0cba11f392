"""Numbers in few bits: what several splat formats share.

Input and output: numpy arrays, one row per Gaussian. Quaternions are wxyz.
Does not: read or write files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..geometry import SH_C0
from ..records import Gaussians

SMALLEST_OPACITY = 1e-6
"""What a stored opacity of 0 becomes (the record wants the open interval); 1 becomes 1 - this."""
SMALLEST_SCALE = 1e-30
ROOT_HALF = np.float32(np.sqrt(0.5))


def as_numpy(values: torch.Tensor) -> np.ndarray:
    """Return contiguous float32 numpy values of a tensor."""
    return np.ascontiguousarray(values.detach().to("cpu", torch.float32).numpy())


def unit_quats(quats: np.ndarray) -> np.ndarray:
    """Normalise wxyz rows; a zero row becomes no rotation."""
    norm = np.linalg.norm(quats, axis=1, keepdims=True)
    identity = np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)
    return np.where(norm > 1e-12, quats / np.maximum(norm, 1e-12), identity).astype(np.float32)


def make_gaussians(means: np.ndarray, quats: np.ndarray, scales: np.ndarray, opacities: np.ndarray, sh: np.ndarray) -> Gaussians:
    """Build the record: unit quaternions, opacities in the open interval, scales above 0. NaN and infinity stay."""
    return Gaussians(
        means=_tensor(means),
        quats=_tensor(unit_quats(np.asarray(quats, dtype=np.float32))),
        scales=_tensor(np.maximum(scales, SMALLEST_SCALE)),
        opacities=_tensor(np.clip(opacities, SMALLEST_OPACITY, 1.0 - SMALLEST_OPACITY)),
        sh=_tensor(sh),
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))


def to_unorm(values: np.ndarray, bits: int) -> np.ndarray:
    """Round [0, 1] to unsigned integers of ``bits`` bits, clamping."""
    most = (1 << bits) - 1
    return np.rint(np.clip(np.nan_to_num(values), 0.0, 1.0) * most).astype(np.uint32)


def from_unorm(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned integers of ``bits`` bits back to [0, 1]."""
    return (values & ((1 << bits) - 1)).astype(np.float32) / np.float32((1 << bits) - 1)


def smallest_three(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the largest component of every quaternion, made positive first.

    Args:
        quats: N 4 in any component order.

    Returns:
        Index of the dropped one, and the N 3 others in order, each in [-sqrt(1/2), sqrt(1/2)].
    """
    quats = unit_quats(quats)
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0, -1.0, 1.0).astype(np.float32)
    rest = _others(largest)
    return largest, np.take_along_axis(quats * sign, rest, axis=1)


def from_smallest_three(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Put the dropped component back; N 4 in the order it came in."""
    quats = np.empty((len(largest), 4), dtype=np.float32)
    np.put_along_axis(quats, _others(largest), others.astype(np.float32), axis=1)
    dropped = np.sqrt(np.clip(1.0 - (others.astype(np.float32) ** 2).sum(axis=1), 0.0, 1.0))
    np.put_along_axis(quats, largest[:, None].astype(np.int64), dropped[:, None], axis=1)
    return quats


def _others(largest: np.ndarray) -> np.ndarray:
    table = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]], dtype=np.int64)
    return table[largest]


def colour_of(sh: np.ndarray) -> np.ndarray:
    """Colour of the degree 0 coefficient, N 3, unclamped."""
    return sh[:, 0] * np.float32(SH_C0) + np.float32(0.5)


def sh0_of(colour: np.ndarray) -> np.ndarray:
    """Degree 0 coefficient of a colour in [0, 1]."""
    return (colour - np.float32(0.5)) / np.float32(SH_C0)


def morton_order(points: np.ndarray) -> np.ndarray:
    """Sort points along a Z-shaped curve of 21 bits per axis, so that neighbours in the file are neighbours in space.

    Source: Morton, "A computer oriented geodetic data base", IBM 1966.
    """
    lower, upper = points.min(axis=0), points.max(axis=0)
    cells = ((points - lower) / np.maximum(upper - lower, 1e-30) * ((1 << 21) - 1)).astype(np.uint64)
    code = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        code |= _spread(cells[:, axis]) << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _spread(values: np.ndarray) -> np.ndarray:
    """Put two empty bits between the 21 bits of every value."""
    steps: Sequence[tuple[int, int]] = (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )
    for shift, mask in steps:
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values


def clamped(values: np.ndarray, lower: float, upper: float, what: str) -> tuple[str, ...]:
    """Say how many Gaussians have a value outside what the format can hold; empty when none."""
    outside = ((values < lower) | (values > upper)).reshape(len(values), -1).any(axis=1)
    count = int(outside.sum())
    return (f"{what} of {count:,} Gaussians clamped to [{lower:g}, {upper:g}]",) if count else ()
