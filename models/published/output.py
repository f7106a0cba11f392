"""What every network of the family returns, in our conventions.

Input and output: one record. Does not: compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from recon.records import Gaussians


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Cameras, depth and possibly Gaussians of a set of views, in the network's own world and unit."""

    T_world_cam: Float[Tensor, "V 4 4"]
    """OpenCV camera to world."""
    K: Float[Tensor, "V 3 3"]
    """In pixels of the network's input; pixel centres at +0.5."""
    depth: Float[Tensor, "V H W"]
    """z-depth."""
    confidence: Float[Tensor, "V H W"]
    """In [0, 1]; the networks' own confidences mapped monotonically."""
    gaussians: Gaussians | None = None
    """World frame, SH degree at most 3."""
