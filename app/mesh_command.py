"""The mesh side of `recon export`: depth from the Gaussians, one surface, colour from the photos, a file.

Input: a scene with cameras. Output: a mesh file and what can be said about it.
Does not: know how meshes are made (`recon.meshing`) or photos undistorted (`recon.lens`).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recon.editing import scene_middle
from recon.errors import UserError
from recon.formats.conventions import Y_UP, Z_UP
from recon.formats.self_check import cameras_around
from recon.meshing.depths import draw_depths, voxel_for
from recon.meshing.holes import Sight, close_holes
from recon.meshing.mesh_check import check_mesh
from recon.meshing.mesh_files import ENDINGS, write_mesh
from recon.meshing.texture import TexturePhoto, bake, color_vertices, unwrap
from recon.meshing.tsdf import Mesh, clean_mesh, fuse_depths, simplify
from recon.records import Cameras, Rasterizer, RasterOptions, Scene

from .console import format_bytes, say
from .scene_files import fit_cameras, placed_cameras

if TYPE_CHECKING:
    from .export_command import ExportArguments

DEPTH_SIDE = 640
"""Longest side of the depth pictures, pixels, of as many views as ``DEPTH_PIXELS`` allow; more views are drawn smaller."""
DEPTH_PIXELS = 12_000_000
PHOTO_SIDE = 1024
"""Longest side of the photos that colour the mesh, pixels."""
MOST_DEPTH_VIEWS, LEAST_DEPTH_VIEWS, MOST_TEXTURE_VIEWS = 100, 16, 40
DRAWN_GAUSSIANS = 8_000_000
"""Of all depth views together: a scene of very many Gaussians is looked at from fewer places."""
FAR_RADII = 4.0
"""Surface farther from a camera than this many scene radii plus the way to its middle is background."""
MM_PER_M = 1000.0


def export_mesh(scene: Scene, arguments: ExportArguments, rasterizer: Rasterizer) -> dict[str, Any]:
    """Make and write a mesh; returns what can be said about it."""
    kind = arguments.file.suffix.lower()
    if kind not in ENDINGS:
        raise UserError(f"{arguments.file.name}: not a mesh format.", f"Use one of {', '.join(ENDINGS)}.")
    started = time.perf_counter()
    placed = placed_cameras(scene)
    if placed is None:
        say("Note: this scene has no cameras; it is looked at from a ring around it, which misses what lies inside.")
    cameras = (
        cameras_around(scene.gaussians, views=16, side_px=DEPTH_SIDE)
        if placed is None
        else depth_cameras(placed, len(scene.gaussians))
    )
    with ThreadPoolExecutor(max_workers=1) as aside:  # reading photos takes one core, and so does most of making a mesh
        reading = aside.submit(read_photos, scene, placed)
        mesh, voxel = make_mesh(scene, cameras, arguments, rasterizer)
        photos = reading.result() or draw_photos(scene, placed, rasterizer)
    textured = arguments.texture > 0 and kind in (".glb", ".obj")
    mesh = bake(unwrap(mesh), photos, arguments.texture) if textured else color_vertices(mesh, photos)
    R_file_world, scale, unit = file_frame(scene, arguments, kind)
    written = write_mesh(arguments.file, mesh, R_file_world=R_file_world, scale=scale)
    if arguments.cameras is not None:
        from .export_command import write_cameras

        write_cameras(arguments.cameras, scene, torch.from_numpy(R_file_world).float(), scale)
    size = sum(path.stat().st_size for path in written)
    say(f"{arguments.file}: {len(mesh.faces):,} triangles, {len(mesh.vertices):,} vertices, {format_bytes(size)}, unit {unit}")
    seen: dict[str, Any] = {}
    if arguments.check:
        check = check_mesh(
            arguments.file, mesh, scene.gaussians, rasterizer, cameras=placed, R_file_world=R_file_world, scale=scale
        )
        seen = asdict(check)
        where = f"covers {100 * check.covered:.0f}% of what the scene shows, depth differs by {100 * check.depth_difference:.2f}%"
        say(f"{arguments.file}: read back, {where}")
    return seen | {
        "file": str(arguments.file),
        "files": [str(path) for path in written],
        "format": "mesh",
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "textured": textured,
        "voxel": voxel,
        "unit": unit,
        "bytes": size,
        "seconds": round(time.perf_counter() - started, 2),
    }


def without_shell(scene: Scene) -> Scene:
    """Drop the far shell that a run adds for the sky: it is no surface. The report says how many Gaussians at the end it is."""
    report = scene.provenance.get("report")
    counts = report.get("counts") if isinstance(report, dict) else None
    shell = counts.get("shell_gaussians", 0) if isinstance(counts, dict) else 0
    if not isinstance(counts, dict) or not shell or counts.get("gaussians") != len(scene.gaussians):
        return scene
    kept = torch.arange(len(scene.gaussians) - shell)
    return replace(scene, gaussians=scene.gaussians.select(kept))


def depth_cameras(placed: Cameras, gaussians: int) -> Cameras:
    """The cameras that depth is drawn from, evenly picked; number and size keep all of them together affordable."""
    affordable = max(LEAST_DEPTH_VIEWS, min(MOST_DEPTH_VIEWS, DRAWN_GAUSSIANS // max(gaussians, 1)))
    picked = torch.linspace(0, len(placed) - 1, min(affordable, len(placed))).round().long().tolist()
    cameras = fit_cameras(placed.select(picked), DEPTH_SIDE)
    pixels = sum(width * height for width, height in zip(cameras.width, cameras.height, strict=True))
    return fit_cameras(cameras, max(16, round(DEPTH_SIDE * min(1.0, (DEPTH_PIXELS / pixels) ** 0.5))))


def make_mesh(scene: Scene, cameras: Cameras, arguments: ExportArguments, rasterizer: Rasterizer) -> tuple[Mesh, float]:
    """Fuse, clean, close what was seen to be closed, simplify; returns the mesh and the grid size."""
    centre, radius = scene_middle(scene.gaussians)
    far = float((cameras.centers_world.float() - centre).norm(dim=1).median()) + FAR_RADII * radius
    pictures = list(draw_depths(scene.gaussians, cameras, rasterizer, far))
    voxel = arguments.voxel or voxel_for(arguments.faces, scene.gaussians, cameras, pictures)
    sights = [
        Sight(seen=one.seen.numpy(), K=one.K.double().numpy(), T_world_cam=one.T_world_cam.double().numpy()) for one in pictures
    ]
    mesh = close_holes(clean_mesh(fuse_depths(pictures, voxel, far)), sights, voxel)
    return simplify(mesh, arguments.faces), voxel


def read_photos(scene: Scene, placed: Cameras | None) -> list[TexturePhoto]:
    """The photos, undistorted; none when they cannot be found or the scene has no cameras.

    Raises:
        UserError: a folder is named, but holds none of them.
    """
    folder = scene.provenance.get("photos")
    if placed is None or folder is None or scene.cameras is None or scene.cameras.names is None:
        return []
    return _undistorted(scene, Path(folder), [(placed.names or ())[i] for i in _spread(len(placed))])


def draw_photos(scene: Scene, placed: Cameras | None, rasterizer: Rasterizer) -> list[TexturePhoto]:
    """The scene's own pictures, where there are no photos."""
    if placed is None:
        cameras = cameras_around(scene.gaussians, views=16, side_px=DEPTH_SIDE)
    else:
        say("Note: the photos were not found; the mesh is coloured from the scene itself. --photos names their folder.")
        cameras = fit_cameras(placed.select(_spread(len(placed))), PHOTO_SIDE)
    photos = []
    for index in range(len(cameras)):
        with torch.no_grad():
            picture = rasterizer(scene.gaussians, cameras.select([index]), RasterOptions()).color[0]
        photos.append(_photo(picture, cameras, index))
    return photos


def _spread(count: int) -> list[int]:
    """Which of ``count`` cameras give colour."""
    return torch.linspace(0, count - 1, min(MOST_TEXTURE_VIEWS, count)).round().long().tolist()


def _photo(image: torch.Tensor, cameras: Cameras, index: int) -> TexturePhoto:
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return TexturePhoto(image=pixels, K=cameras.K[index].double().numpy(), T_world_cam=cameras.T_world_cam[index].double().numpy())


def _undistorted(scene: Scene, folder: Path, names: list[str]) -> list[TexturePhoto]:
    from recon.lens import undistort
    from recon.photos import open_photos

    assert scene.cameras is not None
    views = {view.name: view for view in open_photos(folder, long_side=PHOTO_SIDE).views}
    order = list(scene.cameras.names or ())
    photos = []
    for name in names:
        if name not in views:
            continue
        view, index = views[name], order.index(name)
        camera = scene.cameras.select([index]).resized(view.width, view.height)
        image = view.load()
        if camera.distortion is not None and bool(camera.distortion.any()):
            K = camera.K[0]
            image, _ = undistort(image, K, camera.distortion[0], K_out=K, width_out=view.width, height_out=view.height)
        photos.append(_photo(image, camera, 0))
    if not photos:
        raise UserError(f"None of the scene's photos is in {folder}.", "Name their folder with --photos.")
    return photos


def file_frame(scene: Scene, arguments: ExportArguments, kind: str) -> tuple[np.ndarray, float, str]:
    """Axes, scale and unit of a mesh file: y up; STL z up (print beds), in millimetres when the scale is known."""
    from .export_command import file_axes

    R = file_axes(arguments, Z_UP if kind == ".stl" else Y_UP).double().numpy()
    length = arguments.metres_per_unit or known_length(scene)
    if length is None:
        return R, 1.0, "scene units"
    metres = length / arguments.scale
    return (R, metres * MM_PER_M, "mm") if kind == ".stl" else (R, metres, "m")


def known_length(scene: Scene) -> float | None:
    """Metres per unit of a scene: 1 when its run was told a distance (--scale-from), None when nobody knows."""
    report = scene.provenance.get("report")
    choices = report.get("choices") if isinstance(report, dict) else None
    return 1.0 if isinstance(choices, dict) and isinstance(choices.get("scale"), dict) else None
