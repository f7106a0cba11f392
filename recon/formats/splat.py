"""The .splat format of antimatter15: 32 bytes per Gaussian, no header, no SH beyond degree 0.

Input: ``Gaussians`` or bytes. Output: bytes or ``Gaussians``; positions, scales (linear), colour and quaternion as uint8.
Does not: keep order; the most visible ones are written first, so that a viewer that streams shows them first.
"""

from __future__ import annotations

import numpy as np

from ..records import Gaussians
from .packing import as_numpy, clamped, colour_of, make_gaussians, sh0_of, unit_quats
from .reading import BadFile, check_count

RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("quat", "u1", 4)])


def encode(gaussians: Gaussians) -> tuple[bytes, tuple[str, ...]]:
    """Pack to bytes; the notes say what was clamped."""
    scales, opacities = as_numpy(gaussians.scales), as_numpy(gaussians.opacities)
    colour = colour_of(as_numpy(gaussians.sh))
    order = np.argsort(-(scales.prod(axis=1) * opacities), kind="stable")
    records = np.empty(len(gaussians), dtype=RECORD)
    records["mean"], records["scale"] = as_numpy(gaussians.means), scales
    records["colour"] = np.rint(np.clip(np.column_stack([colour, opacities]), 0.0, 1.0) * 255.0)
    records["quat"] = np.clip(np.rint(unit_quats(as_numpy(gaussians.quats)) * 128.0 + 128.0), 0, 255)
    return records[order].tobytes(), clamped(colour, -1 / 510, 1 + 1 / 510, "colours")


def decode(data: bytes) -> Gaussians:
    """Unpack bytes.

    Raises:
        BadFile: the length is not a multiple of 32, or 0.
    """
    if len(data) % RECORD.itemsize:
        raise BadFile(f"its {len(data):,} bytes are not a multiple of {RECORD.itemsize}.")
    check_count(len(data) // RECORD.itemsize, len(data), RECORD.itemsize, "it")
    records = np.frombuffer(data, dtype=RECORD)
    colour = records["colour"].astype(np.float32) / 255.0
    return make_gaussians(
        means=records["mean"],
        quats=(records["quat"].astype(np.float32) - 128.0) / 128.0,
        scales=records["scale"],
        opacities=colour[:, 3],
        sh=sh0_of(colour[:, None, :3]),
    )
