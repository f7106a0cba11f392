"""Look at a mesh: its shape and its colours from some of its cameras, beside the scene's own picture.

python tests/benchmarks/mesh_pictures.py out/mine mine.png     out/mine holds scene.ply, cameras.json and mesh.glb
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
SIDE = 420
VIEWS = 3


def draw_sheet(out: Path, picture: Path) -> None:
    """Rows: a camera, then the same raised and moved aside. Columns: scene, mesh in its texture, mesh as grey plaster."""
    from PIL import Image

    from app.scene_files import fit_cameras, load_scene, placed_cameras
    from recon.records import RasterOptions
    from render.rasterizer import load_rasterizer

    scene = load_scene(out)
    placed = placed_cameras(scene)
    assert placed is not None
    picked = torch.linspace(0, len(placed) - 1, VIEWS + 2).round().long().tolist()[1:-1]
    cameras, rasterizer = fit_cameras(placed.select(picked), SIDE), load_rasterizer("cpu")
    middle = scene.gaussians.means.median(dim=0).values
    rows = []
    for index in range(VIEWS):
        camera = cameras.select([index])
        for T_world_cam in (camera.T_world_cam[0], stepped_aside(camera.T_world_cam[0], middle)):
            from dataclasses import replace

            moved = replace(camera, T_world_cam=T_world_cam[None])
            ours = rasterizer(scene.gaussians, moved, RasterOptions()).color[0].clamp(0, 1).numpy()
            textured, plaster = draw_mesh(out / "mesh.glb", moved.K[0].double().numpy(), T_world_cam.double().numpy(), ours.shape)
            rows.append(np.concatenate([ours, textured, plaster], axis=1))
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows], axis=0)
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(picture)


def stepped_aside(T_world_cam: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Go round the middle of the scene by 25 degrees and up by 15, looking at it."""
    offset = T_world_cam[:3, 3] - middle
    angle = torch.deg2rad(torch.tensor(25.0))
    turned = torch.stack(
        [angle.cos() * offset[0] + angle.sin() * offset[2], offset[1], -angle.sin() * offset[0] + angle.cos() * offset[2]]
    )
    eye = middle + turned + torch.tensor([0.0, -0.27, 0.0]) * offset.norm()
    forward = torch.nn.functional.normalize(middle - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    T_new = torch.eye(4)
    T_new[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    T_new[:3, 3] = eye
    return T_new


def draw_mesh(file: Path, K: np.ndarray, T_world_cam: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The mesh in its texture, and lit from the camera."""
    import open3d as o3d
    import trimesh

    from recon.formats.conventions import Y_UP

    loaded = trimesh.load(file, force="mesh")
    vertices = (np.asarray(loaded.vertices) @ Y_UP.double().numpy()).astype(np.float32)
    faces = np.asarray(loaded.faces)
    casting = o3d.t.geometry.RaycastingScene(nthreads=1)
    casting.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(faces.astype(np.uint32)))
    x, y = np.meshgrid((np.arange(shape[1]) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(shape[0]) + 0.5 - K[1, 2]) / K[1, 1])
    directions = np.stack([x, y, np.ones_like(x)], axis=-1) @ T_world_cam[:3, :3].T
    rays = np.concatenate([np.broadcast_to(T_world_cam[:3, 3], directions.shape), directions], axis=-1).astype(np.float32)
    hit = casting.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    found = np.isfinite(hit["t_hit"].numpy())
    uv, normals = hit["primitive_uvs"].numpy(), hit["primitive_normals"].numpy()
    face = faces[np.where(found, hit["primitive_ids"].numpy(), 0)]
    weights = np.stack([1 - uv.sum(-1), uv[..., 0], uv[..., 1]], axis=-1)
    texture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB")).astype(np.float32) / 255
    at = np.einsum("hwk,hwkc->hwc", weights, np.asarray(loaded.visual.uv)[face])
    column = (at[..., 0] * texture.shape[1]).astype(int).clip(0, texture.shape[1] - 1)
    row = ((1 - at[..., 1]) * texture.shape[0]).astype(int).clip(0, texture.shape[0] - 1)
    toward = -(normals * directions).sum(-1) / np.maximum(np.linalg.norm(directions, axis=-1), 1e-9)
    plaster = np.where(toward[..., None] > 0, [0.9, 0.9, 0.9], [0.9, 0.4, 0.3]) * (0.15 + 0.85 * np.abs(toward))[..., None]
    return np.where(found[..., None], texture[row, column], 0.0), np.where(found[..., None], plaster, 0.0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    draw_sheet(Path(sys.argv[1]), Path(sys.argv[2]))
