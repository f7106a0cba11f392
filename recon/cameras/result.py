"""What finding cameras gives: cameras of all photos, the points that support them, and how they were found.

Input: ``Views`` and the arrays of a model. Output: ``SfmResult`` at the original size.
Does not: find cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..records import Cameras, Views

FOUND = ("sfm", "network")
"""Sources of cameras, as reports name them, that may be wrong and can be refined; all others were given by the user."""
FOCAL_GUESS = 1.2
"""Focal length over longest side that a photo without a camera is given."""


@dataclass(frozen=True, kw_only=True)
class SfmResult:
    """Cameras of all photos of a capture and the sparse points that support them. float64 throughout."""

    cameras: Cameras
    """At the original size, distortion OpenCV k1 k2 p1 p2. Photos without a camera: identity and a guessed ``K``."""
    points_world: Float[Tensor, "M 3"]
    """Sparse points; none when the cameras came from a file without points."""
    points_rgb: UInt8[Tensor, "M 3"]
    """Mean colour over the photos that are not held out; grey where only held-out photos saw the point."""
    visibility: Bool[Tensor, "V M"]
    """Which photo observed which point."""
    reprojection_error_px: float
    """Mean over observations, in pixels of the size the features were found at; 0 without points."""
    per_view_points: Int[Tensor, " V"]
    """Points observed per photo."""
    attempts: tuple[dict[str, Any], ...] | list[dict[str, Any]] = ()
    """What was tried, in order, and which attempt was chosen."""
    observations_px: Float[Tensor, "O 2"] | None = None
    """Where, in pixels of the original size, one row per True of ``visibility`` in row-major order; None when unknown."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the photos, in sentences for the person who took them, each with a remedy."""

    def __post_init__(self) -> None:
        count = int(self.visibility.sum())
        if self.observations_px is not None and len(self.observations_px) != count:
            raise ValueError(f"SfmResult.observations_px: wanted {count} rows, got {len(self.observations_px)}")

    def observed_by(self, used: Sequence[int]) -> SfmResult:
        """Keep the observations of the views ``used``, and the points that at least two of them observed.

        Args:
            used: indices of views. The cameras of all views are kept.
        """
        rows = torch.zeros(len(self.cameras), dtype=torch.bool)
        rows[torch.as_tensor(list(used), dtype=torch.long)] = True
        visibility = self.visibility & rows[:, None]
        kept = visibility.sum(0) >= 2
        visibility = visibility & kept
        return replace(
            self,
            points_world=self.points_world[kept],
            points_rgb=self.points_rgb[kept],
            visibility=visibility[:, kept],
            per_view_points=visibility.sum(1),
            observations_px=None if self.observations_px is None else self.observations_px[visibility[self.visibility]],
        )


def guessed_K(width: int, height: int, focal_px: float | None = None) -> Float[Tensor, "3 3"]:
    """Intrinsics for a photo nothing else is known about."""
    focal = focal_px or FOCAL_GUESS * max(width, height)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)


def blank_cameras(views: Views) -> Cameras:
    """Cameras at the original size of photos that have none yet: identity, guessed ``K``, not registered."""
    return Cameras(
        T_world_cam=torch.eye(4, dtype=torch.float64).repeat(len(views), 1, 1),
        K=torch.stack([guessed_K(v.original_width, v.original_height, v.focal_px) for v in views]),
        width=tuple(v.original_width for v in views),
        height=tuple(v.original_height for v in views),
        distortion=torch.zeros(len(views), 4, dtype=torch.float64),
        registered=torch.zeros(len(views), dtype=torch.bool),
        names=tuple(views.names),
    )


def place(views: Views, result: dict[str, np.ndarray], rows: Sequence[int]) -> SfmResult:
    """Put a model's arrays into the order and the original size of ``views``.

    Args:
        views: all photos.
        result: arrays of ``recon.cameras.child.describe``.
        rows: index into ``views`` of each photo of the model.
    """
    cameras = blank_cameras(views)
    sizes = torch.tensor([(v.original_width, v.original_height) for v in views], dtype=torch.float64)
    at = torch.as_tensor(list(rows), dtype=torch.long)
    scale = sizes[at] / torch.from_numpy(result["sizes"].astype(np.float64)).reshape(-1, 2)
    params = torch.from_numpy(result["params"])
    cameras.T_world_cam[at, :3] = torch.from_numpy(result["T_world_cam"])
    cameras.K[at, 0, 0], cameras.K[at, 1, 1] = params[:, 0] * scale[:, 0], params[:, 1] * scale[:, 1]
    cameras.K[at, 0, 2], cameras.K[at, 1, 2] = params[:, 2] * scale[:, 0], params[:, 3] * scale[:, 1]
    assert cameras.distortion is not None
    assert cameras.registered is not None
    cameras.distortion[at] = params[:, 4:8]
    cameras.registered[at] = True
    visibility = torch.zeros(len(views), len(result["points_world"]), dtype=torch.bool)
    observed = torch.from_numpy(result["observed"])
    view_of, point_of = at[observed[:, 0]], observed[:, 1]
    visibility[view_of, point_of] = True
    # one place per view and point, in row-major order
    order = torch.argsort(view_of * max(1, visibility.shape[1]) + point_of, stable=True)
    key = (view_of * max(1, visibility.shape[1]) + point_of)[order]
    first = torch.ones(len(key), dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    at_px = (torch.from_numpy(result["at_px"]) * scale[observed[:, 0]])[order][first]
    return SfmResult(
        cameras=cameras,
        points_world=torch.from_numpy(result["points_world"]),
        points_rgb=torch.from_numpy(result["points_rgb"]),
        visibility=visibility,
        reprojection_error_px=float(result["reprojection_error_px"]),
        per_view_points=visibility.sum(1),
        observations_px=at_px,
    )
