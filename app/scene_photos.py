"""Bring a scene and the photos it was made from together again.

Input: a SCENE, a folder of photos, cameras (of the run, or a file). Output: ``ScenePhotos``.
Does not: find cameras, score or optimise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recon.cameras.camera_files import load_cameras
from recon.cameras.result import FOUND, SfmResult
from recon.capture.choices import CaptureConfig
from recon.config import Holdout
from recon.errors import UserError
from recon.lens import posed_views
from recon.photos import open_photos
from recon.posed import PosedViews
from recon.records import Rasterizer, Scene, Views

from .scene_files import CAMERAS_NAME, load_scene, read_json

LEAST_COVERAGE = 0.02
"""Scenes that cover less of every photo than this do not belong to the photos."""


@dataclass(frozen=True, kw_only=True)
class ScenePhotos:
    """A scene with its photos."""

    scene: Scene
    views: Views
    solved: SfmResult
    """Cameras at the original size."""
    inputs: tuple[int, ...]
    """Placed photos that may be used."""
    held_out: tuple[int, ...]
    """Placed photos kept for scoring."""
    lost: tuple[str, ...]
    """Held-out photos without a camera."""
    cameras_given: bool
    """True when a person gave the cameras, which then stay as they are."""

    def posed(self, indices: tuple[int, ...], long_side: int) -> PosedViews:
        """Undistorted photos at a size."""
        return posed_views(self.views, self.solved, indices, long_side=long_side)


def open_scene_photos(
    scene_path: Path, photos: Path | None, cameras: Path | None, holdout: Holdout | None, long_side: int
) -> ScenePhotos:
    """Load a scene, its photos and its cameras.

    Args:
        photos: folder of the photos; None takes the one the run's report names.
        cameras: COLMAP model, transforms.json or cameras.json; None takes the cameras.json beside the scene.
        holdout: which photos are scored; None takes those that the run held out.

    Raises:
        UserError: something is missing or does not belong together; says what.
    """
    scene = load_scene(scene_path, photos=photos)
    if len(scene.gaussians) == 0:
        raise UserError(f"{scene_path} holds no Gaussians.", "Run the reconstruction again.")
    folder = scene.provenance.get("photos")
    if folder is None:
        raise UserError(f"It is not known where the photos of {scene_path} are.", "Name their folder with --photos.")
    beside = Path(str(scene.provenance["folder"])) / CAMERAS_NAME
    source = cameras or beside
    if cameras is None and not beside.is_file():
        raise UserError(
            f"{scene_path} has no cameras beside it.", "Name a COLMAP model, transforms.json or cameras.json with --cameras."
        )
    if not source.exists():
        raise UserError(f"{source} does not exist.", "Name a COLMAP model, transforms.json or cameras.json.")
    report = scene.provenance.get("report")
    report = report if isinstance(report, dict) else {}
    views = open_photos(Path(folder), long_side=long_side, holdout=holdout, capture=recorded_capture(report)).views
    solved = load_cameras(source, views)
    registered = solved.cameras.registered_mask.tolist()
    if not any(registered):
        raise UserError(
            f"None of the {len(views)} photos in {folder} has a camera in {source}.",
            "Give the photos that the scene was made from; names must be the same.",
        )
    named = None if holdout is not None or cameras is not None else _held_out_names(beside)
    held = [view.holdout if named is None else view.name in named for view in views]
    choices = report.get("choices", {})
    given = cameras is not None or (choices.get("cameras") or {}).get("source", "file") not in FOUND
    return ScenePhotos(
        scene=scene,
        views=views,
        solved=solved,
        inputs=tuple(i for i, ok in enumerate(registered) if ok and not held[i]),
        held_out=tuple(i for i, ok in enumerate(registered) if ok and held[i]),
        lost=tuple(view.name for i, view in enumerate(views) if held[i] and not registered[i]),
        cameras_given=given,
    )


def recorded_capture(report: Mapping[str, Any]) -> CaptureConfig | None:
    """What a run was told about its photos' pixels: masks, and that one camera took them; None when nothing."""
    said = (report.get("config") or {}).get("capture") or {}
    if not said.get("masks") and not said.get("shared_camera"):
        return None
    return CaptureConfig(masks=said.get("masks"), shared_camera=bool(said.get("shared_camera")))


def _held_out_names(path: Path) -> set[str]:
    content = read_json(path)
    return {frame["name"] for frame in content.get("frames", []) if frame.get("holdout")}


def check_belongs(found: ScenePhotos, indices: tuple[int, ...], rasterizer: Rasterizer) -> None:
    """Refuse a scene that no photo's camera sees.

    Raises:
        UserError: the cameras look past the scene.
    """
    posed = found.posed(indices, 96)
    most = 0.0
    with torch.no_grad():
        for i in range(len(posed)):
            alpha = rasterizer(found.scene.gaussians, posed.cameras.select([i])).alpha
            most = max(most, float((alpha > 0.5).float().mean()))
    if most < LEAST_COVERAGE:
        raise UserError(
            "The cameras see nothing of the scene.",
            "Scene and cameras must share one world: give the cameras the scene was made with.",
        )
