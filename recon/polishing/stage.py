"""Polishing as a stage of the pipeline.

Input: the photos, depth and a way to make a scene of some of them. Output: the scene to go on with, corrected cameras, and
entries for the report. Does not: score held-out photos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fuse import Fused
from ..posed import PosedViews
from ..progress import Progress
from ..records import Cameras, Prediction, Rasterizer
from .choices import PolishConfig
from .guard import Guarded, polish_guarded

Make = Callable[[PosedViews, Prediction], Fused]
"""(photos, their depth) -> scene."""


@dataclass(frozen=True, kw_only=True)
class PolishStage:
    """What the stage gives back."""

    fused: Fused
    start: Fused
    """What polishing began with, for the score before."""
    posed: PosedViews
    """The photos with corrected cameras."""
    zoom: Tensor | None
    """Factor on the focal length per photo; None when cameras were left alone."""
    report: dict
    """Entry of report.json."""
    warnings: tuple[str, ...]
    partial: bool
    """True when it was stopped on request."""


def run_polish(
    posed: PosedViews,
    prediction: Prediction,
    make: Make,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    progress: Progress,
    *,
    cameras_known: bool,
    seed: int,
) -> PolishStage:
    """Polish the photos' scene under guard.

    Args:
        make: fuses some photos into a scene; called with subsets, so that guard photos have no part in what they judge.
        cameras_known: the user gave the cameras; they stay.
    """

    def start(indices: Sequence[int]) -> Fused:
        return make(posed.select(indices), select_prediction(prediction, indices))

    guarded = polish_guarded(
        start, posed, seconds, config, rasterizer, progress, prediction=prediction, cameras_known=cameras_known, seed=seed
    )
    polished = guarded.polished
    moved = polished is not None and bool(polished.camera_changes)
    return PolishStage(
        fused=guarded.fused,
        start=guarded.start,
        posed=replace(posed, cameras=polished.cameras) if polished is not None and moved else posed,
        zoom=polished.zoom if polished is not None and moved else None,
        report=report_entry(guarded, seconds),
        warnings=tuple(f"Polish: {v.note}." for v in guarded.verdicts if not v.kept),
        partial=guarded.partial,
    )


def report_entry(guarded: Guarded, seconds: float) -> dict:
    """What happened, for report.json."""
    entry: dict = {
        "seconds_given": seconds,
        "partial": guarded.partial,
        "guard": [verdict.entry() for verdict in guarded.verdicts],
        "gaussians_before": len(guarded.start.gaussians),
        "gaussians_after": len(guarded.fused.gaussians),
    }
    if guarded.polished is not None:
        gain, offset = guarded.polished.exposure.gain, guarded.polished.exposure.offset
        entry["history"] = list(guarded.polished.history)
        entry["camera_changes"] = guarded.polished.camera_changes
        entry["exposure"] = {"gain_spread": float(gain.std(0).mean()), "offset_spread": float(offset.std(0).mean())}
    return entry


def select_prediction(prediction: Prediction, indices: Sequence[int]) -> Prediction:
    """Keep the depth of some photos."""
    return Prediction(
        cameras=prediction.cameras.select(indices),
        depth=tuple(prediction.depth[int(i)] for i in indices),
        confidence=tuple(prediction.confidence[int(i)] for i in indices),
    )


def zoomed(cameras: Cameras, indices: Sequence[int], zoom: Tensor, T_world_cam: Tensor) -> Cameras:
    """Carry corrected poses and focal lengths over to cameras at another size, lens distortion included.

    With a focal length z times as long, normalised image coordinates shrink by z, so that k1, k2 and p1, p2 grow by z^2, z^4
    and z to describe the same bending.

    Args:
        cameras: all cameras, original size.
        indices: which of them were corrected, in the order of ``zoom`` and ``T_world_cam``.
    """
    at = torch.as_tensor(list(indices), dtype=torch.long)
    T, K = cameras.T_world_cam.clone(), cameras.K.clone()
    T[at] = T_world_cam.to(T)
    z = zoom.to(K)
    K[at, 0, 0] *= z
    K[at, 1, 1] *= z
    distortion = cameras.distortion
    if distortion is not None:
        distortion = distortion.clone()
        distortion[at] *= torch.stack([z**2, z**4, z, z], dim=1).to(distortion)
    return replace(cameras, T_world_cam=T, K=K, distortion=distortion)


def zoom_others(cameras: Cameras, zoom: Tensor) -> Cameras:
    """Give photos that took no part (held-out ones) the corrected focal length when all others share one; else leave them."""
    if len(cameras) == 0 or float(zoom.max() - zoom.min()) > 1e-6:
        return cameras
    K = cameras.K.clone()
    K[:, 0, 0] *= float(zoom[0])
    K[:, 1, 1] *= float(zoom[0])
    return replace(cameras, K=K)
