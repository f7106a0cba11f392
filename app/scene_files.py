"""Open what a SCENE argument names: a run's output folder or a splat file.

Input: a path. Output: a ``Scene`` whose provenance says where it came from, with the run's report when there is one.
Does not: parse splat files (``recon.ply``) or draw.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon.errors import UserError
from recon.files import read_json
from recon.formats.registry import is_splat_file, read_splats
from recon.photos import open_photos
from recon.records import Cameras, Gaussians, Scene
from recon.resume.out_format import refuse_newer

logger = logging.getLogger(__name__)

SPLAT_NAME = "scene.ply"
CAMERAS_NAME = "cameras.json"
REPORT_NAME = "report.json"


def load_scene(path: Path | str, *, photos: Path | None = None, keep_broken: bool = False) -> Scene:
    """Load Gaussians, cameras and provenance from an output folder or a splat file.

    Args:
        path: the OUT folder of a run, or a splat file of any format. A run's ``scene.ply`` brings the cameras and report beside it.
        photos: folder of the run's photos; None takes it from the report.
        keep_broken: let NaN and infinite values through, for tools that deal with them.

    Raises:
        UserError: there is nothing there, or it is not a scene.
    """
    path = Path(path).expanduser()
    splats = path / SPLAT_NAME if path.is_dir() else path
    if not splats.is_file():
        what = f"{path} holds no {SPLAT_NAME}." if path.is_dir() else f"{path} does not exist."
        raise UserError(what, "Give the output folder of `recon run`, or a splat file.")
    if not is_splat_file(splats):
        raise UserError(
            f"{splats.name} is not a splat file this version reads.", "Give a .ply, .spz, .sog, .splat, .ksplat or .glb file."
        )
    gaussians = read_splats(splats, keep_broken=keep_broken)
    folder = splats.parent
    ours = splats.name == SPLAT_NAME
    cameras = read_cameras(folder / CAMERAS_NAME) if ours and (folder / CAMERAS_NAME).is_file() else None
    provenance: dict[str, Any] = {"file": str(splats), "folder": str(folder)}
    if ours and (folder / REPORT_NAME).is_file():
        refuse_newer(folder)
        provenance["report"] = read_json(folder / REPORT_NAME)
    if photos is not None and not photos.is_dir():
        raise UserError(f"{photos} is not a folder.", "Give the folder that held the photos of the run.")
    provenance["photos"] = photos or _photos_of(provenance)
    return Scene(gaussians=gaussians, cameras=cameras, provenance=provenance)


def read_cameras(path: Path) -> Cameras:
    """Read ``cameras.json`` as it stands: original sizes, distortion, every frame; no photos needed.

    Raises:
        UserError: the file is not one of ours.
    """
    content = read_json(path)
    try:
        frames = content["frames"]
        return Cameras(
            T_world_cam=torch.tensor([frame["T_world_cam"] for frame in frames], dtype=torch.float32).reshape(-1, 4, 4),
            K=torch.tensor([frame["K"] for frame in frames], dtype=torch.float32).reshape(-1, 3, 3),
            width=tuple(int(frame["width"]) for frame in frames),
            height=tuple(int(frame["height"]) for frame in frames),
            distortion=torch.tensor([frame.get("distortion") or [0.0] * 4 for frame in frames], dtype=torch.float32).reshape(-1, 4),
            registered=torch.tensor([bool(frame.get("registered", True)) for frame in frames]).reshape(-1),
            names=tuple(str(frame["name"]) for frame in frames),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a cameras.json of recon ({error!r}).", "Run the reconstruction again.") from error


def placed_cameras(scene: Scene) -> Cameras | None:
    """Keep the cameras that were registered, as pinholes; None when the scene has none."""
    if scene.cameras is None:
        return None
    placed = torch.nonzero(scene.cameras.registered_mask).flatten().tolist()
    if not placed:
        return None
    kept = scene.cameras.select(placed)
    return Cameras(T_world_cam=kept.T_world_cam, K=kept.K, width=kept.width, height=kept.height, names=kept.names)


def joined_cameras(scenes: Sequence[Scene]) -> Cameras | None:
    """Cameras of scenes that share one world, one after another; None when no scene has any.

    A photo that several scenes placed at one spot is kept once. Other photos of one name get the name of their scene's folder
    before their own, and a number after that when folders share a name, too.
    """
    parts = [scene.cameras for scene in scenes if scene.cameras is not None]
    folders = [Path(str(scene.provenance.get("folder", "scene"))).name for scene in scenes if scene.cameras is not None]
    if not parts:
        return None
    kept: dict[str, tuple[int, int]] = {}
    for number, (cameras, folder) in enumerate(zip(parts, folders, strict=True)):
        for row in range(len(cameras)):
            name = f"{row:04d}" if cameras.names is None else cameras.names[row]
            if name in kept:
                other, at = kept[name]
                if torch.allclose(parts[other].T_world_cam[at], cameras.T_world_cam[row], atol=1e-5, rtol=1e-5):
                    continue
                name = f"{folder}/{name}"
            while name in kept:
                name = f"{name}.{number + 1}"
            kept[name] = (number, row)
    used = [[row for number, row in kept.values() if number == part] for part in range(len(parts))]
    chosen = [cameras.select(rows) for cameras, rows in zip(parts, used, strict=True)]
    straight = [torch.zeros(len(one), 4) if one.distortion is None else one.distortion for one in chosen]
    return Cameras(
        T_world_cam=torch.cat([one.T_world_cam for one in chosen]),
        K=torch.cat([one.K for one in chosen]),
        width=tuple(width for one in chosen for width in one.width),
        height=tuple(height for one in chosen for height in one.height),
        distortion=torch.cat(straight),
        registered=torch.cat([one.registered_mask for one in chosen]),
        names=tuple(kept),
    )


def fit_cameras(cameras: Cameras, long_side: int) -> Cameras:
    """Resize cameras so that none is longer than ``long_side`` pixels; smaller ones stay."""
    factors = [min(1.0, long_side / max(w, h)) for w, h in zip(cameras.width, cameras.height, strict=True)]
    widths = [max(1, round(w * f)) for w, f in zip(cameras.width, factors, strict=True)]
    heights = [max(1, round(h * f)) for h, f in zip(cameras.height, factors, strict=True)]
    return cameras.resized(widths, heights)


def cameras_around(gaussians: Gaussians, *, count: int = 8, width: int = 640, height: int = 480) -> Cameras:
    """Place cameras (world y down) in a level ring that sees the middle nine tenths of a scene without cameras of its own."""
    lower, upper = torch.quantile(_thinned(gaussians.means), torch.tensor([0.05, 0.95]), dim=0)
    centre, radius = (lower + upper) / 2, max(float((upper - lower).norm()) / 2, 1e-6)
    focal_px = 0.9 * max(width, height)
    distance = radius * 2.0 * focal_px / min(width, height)
    angle = torch.arange(count) * (2 * math.pi / count)
    zero, one = torch.zeros(count), torch.ones(count)
    forward = torch.stack([torch.sin(angle), zero, torch.cos(angle)], dim=1)
    right = torch.stack([torch.cos(angle), zero, -torch.sin(angle)], dim=1)
    T_world_cam = torch.eye(4).repeat(count, 1, 1)
    T_world_cam[:, :3, :3] = torch.stack([right, torch.stack([zero, one, zero], dim=1), forward], dim=2)
    T_world_cam[:, :3, 3] = centre - forward * distance
    K = torch.tensor([[focal_px, 0.0, width / 2], [0.0, focal_px, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(T_world_cam=T_world_cam, K=K.repeat(count, 1, 1), width=(width,) * count, height=(height,) * count)


def median_distance(scene: Scene) -> float:
    """Measure how far the Gaussians are from the cameras (from their own middle when there are none), world units."""
    points = _thinned(scene.gaussians.means)
    cameras = placed_cameras(scene)
    eye = points.median(dim=0).values if cameras is None else cameras.centers_world.mean(dim=0)
    return max(float((points - eye).norm(dim=1).median()), 1e-9)


def _thinned(points: torch.Tensor, most: int = 100_000) -> torch.Tensor:
    return points[:: max(1, len(points) // most)]


def _photos_of(provenance: Mapping[str, Any]) -> Path | None:
    """Where the report says the photos were, relative to the output folder; None when unknown or gone."""
    report = provenance.get("report")
    named = report.get("photos") if isinstance(report, dict) else None
    relative = named.get("folder") if isinstance(named, dict) else None
    folder = Path(str(provenance["folder"])) / relative if relative else None
    return folder if folder is not None and folder.is_dir() else None


def photo_thumbnails(folder: Path, long_side: int) -> dict[str, np.ndarray]:
    """Decode the photos of a folder small and upright: name -> uint8 ``H W 3``; nothing when they are gone or unreadable."""
    try:
        views = open_photos(folder, long_side=long_side).views
        return {view.name: view.decode(view.width, view.height) for view in views}
    except (UserError, OSError) as error:
        logger.info("no photos to show from %s: %s", folder, error)
        return {}
