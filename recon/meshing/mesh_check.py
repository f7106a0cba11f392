"""Is the mesh file that was written the surface of the scene? Read it back, look at both from some cameras, compare depths.

Input: the file, the mesh it was written from, the Gaussians, cameras, a rasteriser. Output: ``MeshCheck``.
Does not: judge how good the surface is; only that the file holds it, the right way round and at the right size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..formats.self_check import ExportCheckFailed, small_cameras
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions
from .depths import OPAQUE
from .mesh_files import read_mesh
from .tsdf import Mesh, Rays

LEAST_COVERED = 0.1
"""Share of the scene's opaque pixels that the mesh must cover: below it the file shows something else."""
MOST_DEPTH_DIFFERENCE = 0.1
"""Median relative difference of depth above which the file shows something else."""


@dataclass(frozen=True, kw_only=True)
class MeshCheck:
    """What came of reading a mesh file back."""

    faces_read: int
    """Triangles in the file; the same as were written."""
    covered: float
    """Share of the scene's opaque pixels where the mesh stands too."""
    depth_difference: float
    """Median relative difference of depth between mesh and scene there."""


def check_mesh(
    path: Path,
    mesh: Mesh,
    gaussians: Gaussians,
    rasterizer: Rasterizer,
    *,
    cameras: Cameras | None,
    R_file_world: np.ndarray,
    scale: float,
) -> MeshCheck:
    """Read a mesh file back with trimesh and compare the depth it shows with that of the scene.

    Args:
        mesh: what was written.
        cameras: where to look from, world frame; None looks from four sides.
        R_file_world, scale: axes and units of the file.

    Raises:
        ExportCheckFailed: the file holds another number of triangles, or does not show the scene.
    """
    read = read_mesh(path, R_file_world=R_file_world, scale=scale)
    if len(read.faces) != len(mesh.faces):
        reason = f"{path.name} was written from {len(mesh.faces):,} triangles, but {len(read.faces):,} were read back."
        raise ExportCheckFailed(reason, "Please report this; the file is not usable.")
    rays, few = Rays(read), small_cameras(gaussians, cameras)
    covered, differences, opaque = 0, [], 0
    for index in range(len(few)):
        camera = few.select([index])
        with torch.no_grad():
            drawn = rasterizer(gaussians, camera, RasterOptions(median_depth=True))
        assert drawn.median_depth is not None
        wanted = drawn.median_depth[0].numpy()
        K, T_world_cam = camera.K[0].double().numpy(), camera.T_world_cam[0].double().numpy()
        seen = rays.depths(K, T_world_cam, camera.width[0], camera.height[0])
        solid = (drawn.alpha[0].numpy() > OPAQUE) & (wanted > 0)
        both = solid & np.isfinite(seen)
        opaque, covered = opaque + int(solid.sum()), covered + int(both.sum())
        differences.append(np.abs(seen[both] / wanted[both] - 1))
    share = covered / max(opaque, 1)
    difference = float(np.median(np.concatenate(differences))) if covered else float("inf")
    if share < LEAST_COVERED or difference > MOST_DEPTH_DIFFERENCE:
        reason = f"{path.name} does not show the scene: it covers {100 * share:.0f}%, its depth differs by {100 * difference:.0f}%."
        raise ExportCheckFailed(reason, "Try a larger --voxel or --faces, or --no-check to keep the file.")
    return MeshCheck(faces_read=len(read.faces), covered=share, depth_difference=difference)
