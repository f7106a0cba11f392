"""Gaussians the way the browser draws them.

Input: ``Gaussians``. Output: centres, covariances and colours for viser.
Does not: keep view-dependent colour; viser's client draws SH degree 0.

The page shows the world scaled so that the typical distance is ``SHOWN_DISTANCE``: viser keeps covariances in 16-bit floats,
and a reconstruction's own unit is arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon.geometry import quats_to_rotations, sh0_to_rgb
from recon.records import Gaussians

SHOWN_DISTANCE = 10.0
"""Typical distance from the cameras to the scene on the page."""
MOST_POINTS = 200_000
"""Points that are sent to a browser."""


@dataclass(frozen=True, kw_only=True)
class SplatArrays:
    """Gaussians the way viser takes them."""

    centers: np.ndarray
    """N 3."""
    covariances: np.ndarray
    """N 3 3."""
    rgbs: np.ndarray
    """N 3 in [0, 1]."""
    opacities: np.ndarray
    """N 1 in [0, 1]."""


def splat_arrays(gaussians: Gaussians, scale: float) -> SplatArrays:
    """Convert to centres, covariances R diag(s²) Rᵀ and colours of SH degree 0, in units of 1 / ``scale``."""
    R_world_local = quats_to_rotations(gaussians.quats)
    stretched = R_world_local * (gaussians.scales * scale)[:, None, :]
    return SplatArrays(
        centers=(gaussians.means * scale).numpy().astype(np.float32),
        covariances=(stretched @ stretched.transpose(1, 2)).clamp(-6.0e4, 6.0e4).numpy(),
        rgbs=sh0_to_rgb(gaussians.sh[:, 0]).clamp(0.0, 1.0).numpy(),
        opacities=gaussians.opacities[:, None].numpy(),
    )


def point_arrays(gaussians: Gaussians, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``N 3`` and uint8 colours of at most ``MOST_POINTS`` Gaussians, evenly picked."""
    step = max(1, -(-len(gaussians) // MOST_POINTS))
    centers = (gaussians.means[::step] * scale).numpy().astype(np.float32)
    colors = (sh0_to_rgb(gaussians.sh[::step, 0]).clamp(0.0, 1.0) * 255).round().numpy().astype(np.uint8)
    return centers, colors
