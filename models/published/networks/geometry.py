"""What every network of the family returns, in our conventions.

Input: images, possibly cameras. Output: one record. Does not: compute; each network's ``geometry`` does:

    geometry(images in [0, 1], known cameras or None, valid=pixels that are photo, head_chunk=views at a time) -> Geometry

``known`` is used by networks that can be told cameras, ``valid`` by those that make Gaussians or fit intrinsics.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from recon.records import Gaussians

KnownCameras = tuple[Float[Tensor, "V 4 4"], Float[Tensor, "V 3 3"]]
"""T_cam_world and K in pixels of the network's input."""


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
