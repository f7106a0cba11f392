"""Cameras from photos by structure from motion.

Input: ``Views``. Output: ``SfmResult``.
Does not: import pycolmap. ``recon.cameras.child`` does, in a child process that is ended at once on cancellation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CannotReconstruct
from ..progress import Progress
from ..records import Views
from .child_process import job_folder_in, run_child
from .features import Features, choose_pairs, find_all_features
from .result import SfmResult, place

FEATURE_SHARE, MATCH_SHARE = 0.25, 0.45
"""Parts of the stage "cameras" that features and matching take; placing the photos takes the rest."""


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
