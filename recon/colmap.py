"""Cameras from photos by structure from motion, and COLMAP models in and out.

Input: ``Views``, or a model folder. Output: ``SfmResult``, or a model folder.
Does not: import pycolmap. ``recon.colmap_process`` does, in a child process that is ended at once on cancellation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from .colmap_child import job_folder_in, run_child
from .errors import CannotReconstruct, UserError
from .features import Features, choose_pairs, find_all_features
from .files import atomic_folder
from .progress import Progress
from .records import Cameras, Views

FEATURE_SHARE, MATCH_SHARE = 0.25, 0.45
"""Parts of the stage "cameras" that features and matching take; placing the photos takes the rest."""
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


def run_sfm(views: Views, *, progress: Progress, seed: int, workdir: Path | None = None) -> SfmResult:
    """Find the cameras of photos by structure from motion, in a child process.

    Photos of one body, lens and size share intrinsics. The model with most photos wins; where the first attempt places few,
    more lenient ones follow, and all are reported.

    Args:
        views: photos; held-out ones take part.
        progress: told about the stage "cameras"; cancelling ends the child within a fraction of a second.
        seed: of every random choice.
        workdir: keeps the job, database and log there; None uses a temporary folder.

    Raises:
        CannotReconstruct: no two photos could be placed.
        Cancelled: the job was asked to stop.
    """
    progress.update("cameras", 0.0, "features")
    features = find_all_features(views, progress, share=FEATURE_SHARE)
    pairs = choose_pairs(features)
    ids = sorted({view.camera_id or f"{view.original_width}x{view.original_height}" for view in views})
    camera_of = [ids.index(v.camera_id or f"{v.original_width}x{v.original_height}") for v in views]
    job: dict[str, Any] = {
        "seed": seed,
        "pairs": np.array(pairs, np.int64).reshape(-1, 2),
        "sizes": np.array([(f.width, f.height) for f in features], np.int64),
        "focal_px": np.array([(v.focal_px or 0.0) * f.width / v.original_width for v, f in zip(views, features, strict=True)]),
        "camera_of": np.array(camera_of, np.int64),
    }
    for i, one in enumerate(features):
        job |= {f"keypoints_{i}": one.keypoints_px, f"descriptors_{i}": one.descriptors}
    matched = FEATURE_SHARE + MATCH_SHARE
    most = [0.0]

    def show(item: dict[str, Any]) -> None:
        if item["step"] == "matching":
            most[0] = max(most[0], FEATURE_SHARE + MATCH_SHARE * item["fraction"])
            progress.update("cameras", most[0], "matching photos")
        else:
            most[0] = max(most[0], matched + (0.98 - matched) * item["fraction"])
            progress.update("cameras", most[0], f"placing photos, {item['placed']} so far")

    with job_folder_in(workdir) as folder:
        result = run_child("solve", folder, job, progress=progress, on_news=show)
        told = json.loads((folder / "attempts.json").read_text())
    if "names" not in result or len(result["names"]) < 2:
        raise _no_cameras(views, told["verified_pairs"], len(pairs))
    solved = _assemble(views, features, result, told["attempts"])
    progress.update("cameras", 1.0, f"{int(solved.cameras.registered_mask.sum())} of {len(views)} photos placed")
    return solved


def _no_cameras(views: Views, verified: int, pairs: int) -> CannotReconstruct:
    remedy = "Take photos that overlap by two thirds or more, and move sideways between them; avoid plain, shiny or moving things."
    if verified == 0:
        reason = f"No two of the {len(views)} photos show the same place, or they show too little detail to tell"
        return CannotReconstruct(f"{reason} ({pairs} pairs compared, none agreed).", remedy)
    reason = (
        f"No cameras could be found: {verified} of {pairs} pairs of photos agree, but no two of them from places far enough apart"
    )
    return CannotReconstruct(f"{reason} to see depth.", remedy)


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
        result: arrays of ``recon.colmap_process.describe``.
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


def _assemble(views: Views, features: Sequence[Features], result: dict[str, np.ndarray], attempts: list) -> SfmResult:
    """Add the points' colours, from photos that are not held out."""
    rows = [int(i) - 1 for i in result["image_ids"]]
    solved = place(views, result, rows)
    total = np.zeros((len(result["points_world"]), 3))
    count = np.zeros(len(result["points_world"]))
    for row, view_index in enumerate(rows):
        if views[view_index].holdout or not len(features[view_index].rgb):
            continue
        mine = result["observed"][:, 0] == row
        points = result["observed"][mine, 1]
        np.add.at(total, points, features[view_index].rgb[result["keypoint"][mine]])
        np.add.at(count, points, 1)
    mean = np.where(count[:, None] > 0, total / np.maximum(count[:, None], 1), 128.0)
    return replace(solved, points_rgb=torch.from_numpy(mean.round().astype(np.uint8)), attempts=tuple(attempts))


def read_colmap_model(folder: Path) -> dict[str, np.ndarray]:
    """Read a COLMAP model, text or binary, as plain arrays.

    Returns:
        The arrays of ``recon.colmap_process.describe``.

    Raises:
        UserError: the model is damaged or uses cameras that OpenCV's k1 k2 p1 p2 cannot express.
    """
    with job_folder_in(None) as job_folder:
        try:
            result = run_child("read", job_folder, {"path": np.array(str(Path(folder).resolve()))})
        except UserError as error:
            raise UserError(f"The COLMAP model in {folder} cannot be read: {error.reason}", "Export the model again.") from error
    if len(result["unsupported"]):
        raise UserError(
            f"The COLMAP model in {folder} uses the camera model {', '.join(result['unsupported'])}.",
            "Supported: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV (undistort fisheye photos first).",
        )
    return result


def write_colmap_model(folder: Path, solved: SfmResult, views: Views) -> None:
    """Write the placed photos as a COLMAP model at the original size, with distortion, points and tracks.

    Args:
        folder: takes the files cameras.bin, images.bin, points3D.bin; written as a whole.
        solved: cameras and points; tracks are written when the places of the observations are known.
        views: the photos of ``solved``, for their names.
    """
    cameras = solved.cameras
    placed = torch.nonzero(cameras.registered_mask)[:, 0]
    distortion = cameras.distortion if cameras.distortion is not None else torch.zeros(len(cameras), 4, dtype=torch.float64)
    K = cameras.K[placed]
    params = torch.cat([K[:, 0, :1], K[:, 1, 1:2], K[:, 0, 2:], K[:, 1, 2:], distortion[placed]], dim=1)
    row_of = torch.full((len(cameras),), -1)
    row_of[placed] = torch.arange(len(placed))
    observed, at_px = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2, dtype=torch.float64)
    if solved.observations_px is not None:
        observed, at_px = solved.visibility.nonzero(), solved.observations_px
        kept = row_of[observed[:, 0]] >= 0
        observed, at_px = torch.stack([row_of[observed[kept, 0]], observed[kept, 1]], dim=1), at_px[kept]
    job = {
        "names": np.array([views[int(i)].name for i in placed], dtype=np.str_),
        "T_world_cam": cameras.T_world_cam[placed, :3].double().numpy(),
        "params": params.double().numpy(),
        "sizes": np.array([(cameras.width[int(i)], cameras.height[int(i)]) for i in placed], np.float64).reshape(-1, 2),
        "points_world": solved.points_world.double().numpy(),
        "points_rgb": solved.points_rgb.numpy(),
        "observed": observed.numpy(),
        "at_px": at_px.double().numpy(),
    }
    with job_folder_in(None) as job_folder, atomic_folder(Path(folder)) as target:
        run_child("write", job_folder, job)
        for file in (job_folder / "model").iterdir():
            (target / file.name).write_bytes(file.read_bytes())
