"""Pack what a training wants on a bare machine: textures to train on, and a few real scenes to judge by, at most 20 MB together.

Input: a folder of texture images, folders of photos with reference cameras. Output: ``textures.npz`` and ``scenes.npz``.
Does not: find cameras, or make anything of the photos but scenes to judge by; they are never trained on.
Usage: python -m data.pack_training TEXTURES OUT --scenes DIR [DIR ...]

A scene's folder holds photos, or has them in ``images``, and with them ``poses.json``, a COLMAP model, ``transforms.json`` or
``cameras.json``. Where that brings no sparse points, photos are matched and points lie where the rays of the given cameras meet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from recon.cameras.camera_files import load_cameras
from recon.cameras.evidence import epipolar_distance_px, straight_rays
from recon.cameras.recipes import QUICK
from recon.cameras.result import SfmResult, place
from recon.cameras.sfm import Workbench
from recon.errors import UserError
from recon.files import read_json
from recon.lens import posed_views
from recon.photos import open_photos
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Views

from .pack_textures import differences, pack_textures

__all__ = ["LARGEST_BYTES", "pack_scenes", "pack_training"]

Array = np.ndarray
LARGEST_BYTES = 20_000_000
"""Both files together: so much travels to a training machine."""
PLAIN_FILES = ("poses.json", "transforms.json", "cameras.json")
FEWEST_PHOTOS = 3
LEAST_ANGLE_DEG = 3.0
"""Rays that meet at less say too little about depth."""
CLOSE_PX = 1.0
"""How far a match may lie from its epipolar line, in pixels of the original photo."""
POINTS_OF_A_PAIR = 100


def pack_training(textures: Path, out: Path, scenes: Sequence[Path], *, long_side: int = 320, photos: int = 12) -> dict[str, int]:
    """Write both packs; returns the bytes of each file by its name.

    Args:
        textures: folder of texture images.
        out: folder for the packs.
        scenes: folders of photos with reference cameras.
        long_side: longest side of the photos in pixels.
        photos: most photos of a scene.

    Raises:
        UserError: a folder does not hold what it should, or both files are above 20 MB together; then neither is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        made = [Path(folder) / "textures.npz", Path(folder) / "scenes.npz"]
        try:
            pack_textures(textures, made[0])
        except (OSError, ValueError) as error:
            raise UserError(
                f"{textures} cannot be packed as textures: {error}.", "Give a folder of JPEG or PNG pictures."
            ) from error
        pack_scenes(scenes, made[1], long_side=long_side, photos=photos)
        sizes = {path.name: path.stat().st_size for path in made}
        if sum(sizes.values()) > LARGEST_BYTES:
            told = " and ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
            raise UserError(
                f"The packs would be too large: {told}, more than {LARGEST_BYTES / 1e6:g} MB together.",
                "Give fewer scenes or textures, or less for --photos or --long-side.",
            )
        for path in made:
            path.replace(out / path.name)
    return sizes


def pack_scenes(folders: Sequence[Path], out: Path, *, long_side: int, photos: int) -> None:
    """Write shrunken, undistorted photos with their cameras and sparse points; ``models.training.real_scenes`` reads them."""
    arrays: dict[str, Any] = {"scenes": np.array([folder.resolve().name for folder in folders])}
    for number, folder in enumerate(folders):
        arrays |= {f"{number}_{name}": value for name, value in packed_scene(folder, long_side, photos).items()}
    np.savez_compressed(out, **arrays)


def packed_scene(folder: Path, long_side: int, photos: int) -> dict[str, Array]:
    """One scene's arrays.

    Raises:
        UserError: it has too few photos of one shape with cameras, or their cameras see too few points.
    """
    within = folder / "images" if (folder / "images").is_dir() else folder
    views = open_photos(within, long_side=long_side).views
    solved = reference_cameras(folder, views)
    chosen = choose_photos(views, solved, photos)
    if len(chosen) < FEWEST_PHOTOS:
        raise UserError(f"{folder} has {len(chosen)} photos of one shape with cameras.", f"{FEWEST_PHOTOS} is the least.")
    solved = solved.observed_by(chosen) if len(solved.points_world) else with_points(solved, views, chosen)
    if not len(solved.points_world):
        raise UserError(f"{folder}: its cameras and photos agree on no points.", "Are the cameras those of these photos?")
    posed = posed_views(views, solved, chosen, long_side=long_side)
    return scene_arrays(posed)


def scene_arrays(posed: PosedViews) -> dict[str, Array]:
    """Photos, cameras and points as they are stored."""
    assert posed.points_world is not None
    assert posed.visibility is not None
    photos = torch.stack([posed.image(i) for i in range(len(posed))])
    return {
        "differences": differences((photos * 255).round().byte().numpy()),
        "K": posed.cameras.K.float().numpy(),
        "T_world_cam": posed.cameras.T_world_cam.float().numpy(),
        "points_world": posed.points_world.float().numpy(),
        "visibility": posed.visibility.numpy(),
    }


def reference_cameras(folder: Path, views: Views) -> SfmResult:
    """The cameras that came with the photos.

    Raises:
        UserError: there are none, or they do not fit the photos.
    """
    found = next((folder / name for name in PLAIN_FILES if (folder / name).is_file()), folder)
    if found.name != "poses.json":
        return load_cameras(found, views)
    try:
        frames = {Path(frame["file"]).name: frame for frame in read_json(found)["frames"]}
        rows = [i for i, view in enumerate(views) if Path(view.name).name in frames]
        named = [frames[Path(views.items[i].name).name] for i in rows]
        keys = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")
        result = {
            "T_world_cam": np.array([frame["c2w"] for frame in named], np.float64).reshape(-1, 4, 4)[:, :3],
            "params": np.array([[frame.get(key, 0.0) for key in keys] for frame in named], np.float64).reshape(-1, 8),
            "sizes": np.array([(frame["width"], frame["height"]) for frame in named], np.int64).reshape(-1, 2),
            "points_world": np.zeros((0, 3)),
            "points_rgb": np.zeros((0, 3), np.uint8),
            "observed": np.zeros((0, 2), np.int64),
            "at_px": np.zeros((0, 2)),
            "reprojection_error_px": np.array(0.0),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{found} cannot be understood: {error!r}.", "See reference_cameras in data/pack_training.py.") from error
    return place(views, result, rows)


def choose_photos(views: Views, solved: SfmResult, most: int) -> list[int]:
    """Photos with cameras, of the shape that most of them have; every second one where there are twice as many as wanted."""
    placed = [i for i in range(len(views)) if bool(solved.cameras.registered_mask[i])]
    shapes = Counter((views.items[i].original_width, views.items[i].original_height) for i in placed)
    common = max(shapes, key=lambda shape: shapes[shape], default=None)
    alike = [i for i in placed if (views.items[i].original_width, views.items[i].original_height) == common]
    return alike[:: 2 if len(alike) >= 2 * most else 1][:most]


def with_points(solved: SfmResult, views: Views, chosen: Sequence[int]) -> SfmResult:
    """Match the chosen photos and add the points in which the rays of their cameras, which stay as they are, meet."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(views=views.select(chosen), folder=Path(folder), progress=Progress(), seed=0)
        bench.gather(QUICK[0].matching, lambda done, words: None)
        matches = bench.all_matches()
    T_world_cam, T_cam_world = solved.cameras.T_world_cam.double().numpy(), solved.cameras.T_cam_world.double().numpy()
    rng, points, seen_by = np.random.default_rng(0), [], []
    for i, j, px in matches:
        first, second = chosen[i], chosen[j]
        rays = straight_rays(solved.cameras, first, px[:, :2]), straight_rays(solved.cameras, second, px[:, 2:])
        T_second_first = (T_cam_world[second] @ T_world_cam[first])[:3]
        found = meeting_points(T_second_first, *rays, focal_px=float(solved.cameras.K[first, 0, 0]))
        found = found[rng.permutation(len(found))[:POINTS_OF_A_PAIR]]
        points.append(found @ T_world_cam[first, :3, :3].T + T_world_cam[first, :3, 3])
        seen_by += [(first, second)] * len(found)
    visibility = torch.zeros(len(views), len(seen_by), dtype=torch.bool)
    if seen_by:
        at = torch.tensor(seen_by)
        visibility[at[:, 0], torch.arange(len(at))] = True
        visibility[at[:, 1], torch.arange(len(at))] = True
    return replace(
        solved,
        points_world=torch.from_numpy(np.concatenate([*points, np.zeros((0, 3))])),
        points_rgb=torch.full((len(seen_by), 3), 128, dtype=torch.uint8),
        visibility=visibility,
        per_view_points=visibility.sum(1),
        observations_px=None,
    )


def meeting_points(
    T_second_first: Float[Array, "3 4"], first: Float[Array, "N 3"], second: Float[Array, "N 3"], *, focal_px: float
) -> Float[Array, "M 3"]:
    """Points on the rays of the first camera, in its frame, that come closest to those of the second, where they meet well.

    Args:
        first, second: rays of matches at z = 1.
        focal_px: of the first camera.
    """
    close = epipolar_distance_px(T_second_first, first, second, focal_px) < CLOSE_PX
    first, second, t = first[close], second[close], T_second_first[:, 3]
    turned = first @ T_second_first[:, :3].T
    aa, ab, bb = (turned**2).sum(1), (turned * second).sum(1), (second**2).sum(1)
    area = aa * bb - ab**2
    safe = np.maximum(area, 1e-18)
    z_first, z_second = (ab * (second @ t) - bb * (turned @ t)) / safe, (aa * (second @ t) - ab * (turned @ t)) / safe
    wide = area > aa * bb * np.sin(np.deg2rad(LEAST_ANGLE_DEG)) ** 2
    kept = wide & (z_first > 0) & (z_second > 0)
    return first[kept] * z_first[kept, None]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("textures", type=Path, help="folder of texture images")
    parser.add_argument("out", type=Path, help="folder for textures.npz and scenes.npz")
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, help="folders of photos with reference cameras")
    parser.add_argument("--long-side", type=int, default=320, help="longest side of the photos in pixels")
    parser.add_argument("--photos", type=int, default=12, help="most photos of a scene")
    given = parser.parse_args(argv)
    try:
        sizes = pack_training(given.textures, given.out, given.scenes, long_side=given.long_side, photos=given.photos)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
