"""Meshes as files: GLB, OBJ (with its material and texture), PLY, STL.

Input: a ``Mesh`` in our world frame, and the axes and units of the file. Output: files, and the shape in them read back.
Does not: make or colour meshes. trimesh writes and reads; this is its wall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import atomic_path
from .tsdf import Mesh

ENDINGS = (".glb", ".obj", ".ply", ".stl")


def write_mesh(path: Path, mesh: Mesh, *, R_file_world: np.ndarray, scale: float = 1.0) -> list[Path]:
    """Write a mesh by its file ending.

    Args:
        R_file_world: axes of the file.
        scale: file units per world unit.

    Returns:
        All files written; OBJ has a material and a texture beside it.

    Raises:
        UserError: the ending names no mesh format.
    """
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise UserError(f"{path.name}: not a mesh format.", f"Use one of {', '.join(ENDINGS)}.")
    made = _to_trimesh(mesh, R_file_world, scale, textured=kind in (".glb", ".obj"))
    if kind == ".obj":
        return _write_obj(path, made)
    data = made.export(file_type=kind[1:])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data if isinstance(data, bytes) else str(data).encode())
    return [path]


def read_mesh(path: Path, *, R_file_world: np.ndarray, scale: float = 1.0) -> Mesh:
    """Read the shape in a mesh file, into our world frame; colours are left out.

    Args:
        R_file_world: axes of the file.
        scale: file units per world unit.
    """
    import trimesh

    loaded = trimesh.load(path, force="mesh", process=False)
    vertices = (np.asarray(loaded.vertices) @ R_file_world / scale).astype(np.float32)
    return Mesh(
        vertices=np.ascontiguousarray(vertices),
        faces=np.ascontiguousarray(loaded.faces, dtype=np.int32),
        colors=np.zeros((len(vertices), 3), dtype=np.float32),
    )


class _Texture(Image.Image):
    """A picture that is packed quickly: trimesh names no level, and the usual one takes four times as long for a tenth."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        super().save(fp, format, **({"compress_level": 3} | params))


def _to_trimesh(mesh: Mesh, R_file_world: np.ndarray, scale: float, *, textured: bool):
    import trimesh

    vertices = (mesh.vertices.astype(np.float64) @ R_file_world.T) * scale
    if textured and mesh.uvs is not None and mesh.texture is not None:
        picture = Image.fromarray(mesh.texture)
        picture.__class__ = _Texture
        material = trimesh.visual.material.PBRMaterial(
            name="baked", baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
        )
        look = trimesh.visual.TextureVisuals(uv=mesh.uvs.astype(np.float64), material=material)
        return trimesh.Trimesh(vertices=vertices, faces=mesh.faces, visual=look, process=False)
    colors = np.rint(np.clip(mesh.colors, 0, 1) * 255).astype(np.uint8)
    return trimesh.Trimesh(vertices=vertices, faces=mesh.faces, vertex_colors=colors, process=False)


def _write_obj(path: Path, made) -> list[Path]:
    """Write the OBJ and what it refers to, named after it so that two meshes can share a folder."""
    import trimesh

    if isinstance(made.visual, trimesh.visual.TextureVisuals):
        made.visual.material = made.visual.material.to_simple()
        made.visual.material.name = path.stem
    text, parts = trimesh.exchange.obj.export_obj(made, return_texture=True, mtl_name=f"{path.stem}.mtl")
    written = []
    for name, data in parts.items():
        with atomic_path(path.with_name(name)) as temporary:
            temporary.write_bytes(data)
        written.append(path.with_name(name))
    with atomic_path(path) as temporary:
        temporary.write_text(text)
    return [path, *written]
