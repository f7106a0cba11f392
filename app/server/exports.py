"""What can be taken home, and what opens it.

Input: nothing. Output: ``EXPORTS``. Does not: make files; ``app.server.take_home`` does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportKind:
    """One thing to take home."""

    file: str
    """Name of the file."""
    title: str
    opens: str
    """What opens it, in words."""
    from_run: bool = False
    """True when the run itself has written it, so that nothing has to be made."""


EXPORTS: dict[str, ExportKind] = {
    "ply": ExportKind(
        file="scene.ply", title="Gaussians (PLY)", opens="SuperSplat, Blender add-ons, every splat tool", from_run=True
    ),
    "compressed-ply": ExportKind(file="scene.compressed.ply", title="Gaussians, compressed PLY", opens="SuperSplat, PlayCanvas"),
    "spz": ExportKind(file="scene.spz", title="Gaussians (SPZ)", opens="Niantic Scaniverse, three.js (Spark), Babylon.js"),
    "sog": ExportKind(file="scene.sog", title="Gaussians (SOG)", opens="SuperSplat, PlayCanvas"),
    "splat": ExportKind(file="scene.splat", title="Gaussians (.splat)", opens="antimatter15/splat and many web viewers"),
    "glb": ExportKind(file="splats.glb", title="Gaussians in glTF", opens="viewers that know KHR_gaussian_splatting"),
    "html": ExportKind(file="scene.html", title="Page with viewer", opens="any browser, without a network"),
    "points-ply": ExportKind(file="scene.points.ply", title="Point cloud", opens="MeshLab, CloudCompare, Blender"),
    "mesh-glb": ExportKind(file="mesh.glb", title="Textured mesh (glTF)", opens="Blender, Windows 3D viewer, game engines"),
    "mesh-obj": ExportKind(file="mesh.obj.zip", title="Textured mesh (OBJ, zipped)", opens="Blender, MeshLab, CAD"),
    "mesh-stl": ExportKind(file="mesh.stl", title="Mesh for printing (STL)", opens="slicers, CAD"),
    "cameras": ExportKind(file="cameras.json", title="Cameras", opens="a text editor; the layout is in the README", from_run=True),
    "transforms": ExportKind(
        file="transforms.json", title="Cameras (nerfstudio)", opens="nerfstudio, gsplat, Brush", from_run=True
    ),
    "colmap": ExportKind(file="colmap.zip", title="Cameras (COLMAP)", opens="COLMAP, and what reads its models"),
    "video": ExportKind(file="orbit.mp4", title="Video", opens="any player", from_run=True),
    "preview": ExportKind(file="preview.png", title="Photo, rendering, depth", opens="any picture viewer", from_run=True),
    "report": ExportKind(file="report.html", title="Report", opens="any browser", from_run=True),
    "all": ExportKind(file="everything.zip", title="Everything made so far, zipped", opens="any archive tool"),
}
"""Format -> what it is. A format of a run that made no such file (a video, say) is refused by ``Jobs.export``."""
