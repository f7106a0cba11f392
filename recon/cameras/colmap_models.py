"""COLMAP models in and out.

Input: a model folder, or ``SfmResult``. Output: plain arrays, or a model folder.
Does not: import pycolmap. ``recon.cameras.child`` does, in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..files import atomic_folder
from ..records import Views
from .child_process import job_folder_in, run_child
from .result import SfmResult


def read_colmap_model(folder: Path) -> dict[str, np.ndarray]:
    """Read a COLMAP model, text or binary, as plain arrays.

    Returns:
        The arrays of ``recon.cameras.child.describe``.

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
