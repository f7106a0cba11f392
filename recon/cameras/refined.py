"""Cameras that a network predicted, made exact: bundle adjustment on matches of the photos, in the network's own frame.

Input: ``SfmResult`` of a network and ``Matches``. Output: ``SfmResult`` with the cameras that matches reach adjusted.
Does not: judge whether the adjusted cameras are better, or match.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..alignment import Sim3
from ..records import Cameras, Views
from .child_process import run_child
from .given_matches import keypoints_of
from .matches import Matches
from .result import SfmResult
from .sfm import Workbench, assemble, describe_photos

SHARED_SPREAD = 1.15
"""Photos of one camera share a focal length when the network's for them differ by no more than this factor."""


def shared_lenses(views: Views, cameras: Cameras, camera_of: np.ndarray) -> np.ndarray:
    """Number of the camera of each photo: one for photos of one body unless the network says that they were zoomed."""
    focal = focal_lengths(cameras) / np.array([max(v.original_width, v.original_height) for v in views])
    numbers = camera_of.copy()
    for number in np.unique(camera_of):
        members = np.flatnonzero(camera_of == number)
        known = all(views[i].intrinsics is not None or views[i].lens_is_shared for i in members)
        if not known and focal[members].max() > SHARED_SPREAD * focal[members].min():
            numbers[members] = len(views) + members
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def focal_lengths(cameras: Cameras) -> Float[np.ndarray, " V"]:
    """Geometric mean of both focal lengths, pixels."""
    return np.sqrt((cameras.K[:, 0, 0] * cameras.K[:, 1, 1]).double().numpy())


def refine_predicted(bench: Workbench, solved: SfmResult, matches: Matches, tell: Callable[[float, str], None]) -> SfmResult | None:
    """Adjust predicted cameras, focal lengths and distortion to matches. Photos that matches do not reach keep their camera.

    Args:
        bench: the capture; its folder takes the database.
        solved: cameras at the original size.
        matches: verified, at the original size.
        tell: (share done, words).

    Returns:
        Cameras in the frame and at the scale of ``solved``, with the points they were adjusted on; None when matches tie no two
        photos together.
    """
    placed = solved.cameras.registered_mask.numpy()
    usable = [(i, j, px) for i, j, px in matches if placed[i] and placed[j]]
    if not usable:
        return None
    matches = Matches(
        pairs=np.array([(i, j) for i, j, _ in usable], np.int64),
        counts=np.array([len(px) for _, _, px in usable], np.int64),
        px=np.concatenate([px for _, _, px in usable]),
    )
    features, rows = keypoints_of(bench.views, matches)
    camera_of = shared_lenses(bench.views, solved.cameras, bench.camera_numbers(own_lenses=False))
    job = describe_photos(bench.views, [(f.width, f.height) for f in features], camera_of)
    job |= {"seed": np.array(bench.seed), "database": np.array("predicted.db"), "focal_px": focal_lengths(solved.cameras)}
    job |= {"pairs": matches.pairs, "given_matches": rows, "given_counts": matches.counts, "placed": placed}
    job |= {f"keypoints_{i}": one.keypoints_px for i, one in enumerate(features)}
    job |= {"T_cam_world": solved.cameras.T_cam_world[:, :3].double().numpy()}

    def show(item: dict) -> None:
        tell(item["fraction"], "adjusting the predicted cameras")

    found = run_child("refine", bench.folder, job, progress=bench.progress, on_news=show)
    if not json.loads((bench.folder / "models.json").read_text()):
        return None
    return into_frame_of(solved, assemble(bench.views, features, found))


def into_frame_of(predicted: SfmResult, adjusted: SfmResult) -> SfmResult:
    """Move adjusted cameras and points onto the predicted ones, and keep the predicted camera of every photo left out."""
    done = adjusted.cameras.registered_mask
    move = similarity(adjusted.cameras.T_world_cam[done], predicted.cameras.T_world_cam[done])
    T_world_cam = adjusted.cameras.T_world_cam.clone()
    T_world_cam[:, :3, :3] = move.R_b_a @ T_world_cam[:, :3, :3]
    T_world_cam[:, :3, 3] = move.apply(T_world_cam[:, :3, 3])
    T_world_cam[~done] = predicted.cameras.T_world_cam[~done]
    K, distortion = adjusted.cameras.K.clone(), adjusted.cameras.distortion
    assert distortion is not None
    K[~done] = predicted.cameras.K[~done]
    distortion = distortion.clone()
    if predicted.cameras.distortion is not None:
        distortion[~done] = predicted.cameras.distortion[~done]
    cameras = replace(
        adjusted.cameras,
        T_world_cam=T_world_cam,
        K=K,
        distortion=distortion,
        registered=predicted.cameras.registered_mask.clone(),
    )
    return replace(adjusted, cameras=cameras, points_world=move.apply(adjusted.points_world))


def similarity(T_world_cam: Float[Tensor, "V 4 4"], T_target_cam: Float[Tensor, "V 4 4"]) -> Sim3:
    """Similarity that takes poses to other poses of the same cameras; unlike centres alone, two poses are enough for it.

    Source: the mean rotation is that of Hartley et al., "Rotation averaging", IJCV 2013, section 5.3 (chordal distance).
    """
    U, _, Vt = torch.linalg.svd((T_target_cam[:, :3, :3] @ T_world_cam[:, :3, :3].transpose(1, 2)).mean(0))
    R = U @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(U @ Vt))], dtype=U.dtype)) @ Vt
    a, b = T_world_cam[:, :3, 3], T_target_cam[:, :3, 3]
    spread_a, spread_b = (a - a.mean(0)).square().sum().sqrt(), (b - b.mean(0)).square().sum().sqrt()
    scale = float(spread_b / spread_a) if float(spread_a) > 0 and float(spread_b) > 0 else 1.0
    return Sim3(scale=scale, R_b_a=R, t_b_a=b.mean(0) - scale * R @ a.mean(0))
