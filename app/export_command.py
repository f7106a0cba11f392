"""`recon export`: write a scene as any format, check what was written, and say what it costs.

Input: a SCENE and a file name whose ending chooses the format. Output: the file, `FILE.check.json`, a summary.
Does not: know formats (`recon.formats`), make meshes (`mesh_command`) or pages (`html_scene`).
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from recon.editing import crop_box, outlier_mask, scene_middle, strongest
from recon.errors import UserError
from recon.files import write_json_atomic
from recon.formats.conventions import CONVENTIONS, Similarity, moved_cameras, moved_gaussians, up_rotation
from recon.formats.registry import FORMATS, Format, cut_sh, find_format, sniff_format, write_splats
from recon.formats.self_check import FileCheck, check_file
from recon.ply import extra_columns
from recon.records import Cameras, Rasterizer, Scene

from .console import Quiet, answer, format_bytes, say
from .scene_files import load_scene, placed_cameras

ScenePath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
MESH_ENDINGS = {".obj", ".stl"}
MESH_OR_SPLATS = {".glb", ".ply"}


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a scene as one file. The ending chooses the format: .ply .compressed.ply .spz .sog .splat .glb .gltf .points.ply
    .html, and a mesh for .obj, .stl and files called mesh.glb or mesh.ply. What was written is read back and compared."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File to write; an existing one is replaced."""
    format: str | None = None
    """Format when the ending does not tell: ply, ply-normals, compressed-ply, spz, spz2, spz4, sog, splat, glb, gltf, points-ply,
    html, mesh."""
    convention: Literal["auto", "opencv", "opengl", "blender"] = "auto"
    """World axes of the file. auto follows the format: y down for PLY, SOG and .splat, y up for SPZ and glTF."""
    up: Literal["x", "-x", "y", "-y", "z", "-z"] | None = None
    """Axis of the file that points up; turns the convention by the smallest rotation that does it."""
    scale: float = 1.0
    """Multiply all lengths."""
    recenter: bool = False
    """Move the middle of the scene to the origin."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Keep what lies in the box X0 Y0 Z0 X1 Y1 Z1, units and axes of the scene."""
    prune: bool = False
    """Drop Gaussians that make viewers fail: invisible ones, far outliers, extents larger than the scene."""
    max_sh: Literal[0, 1, 2, 3] = 3
    """Cut view-dependent colour to this SH degree."""
    max_gaussians: int | None = None
    """Keep at most this many: those that cover most pixels of the scene's cameras."""
    cameras: Path | None = None
    """Also write the scene's cameras to this JSON file, in the axes and units of the export."""
    check: bool = True
    """Read the file back and compare its renderings with the scene."""
    faces: int = 60_000
    """Mesh: at most this many triangles."""
    voxel: float | None = None
    """Mesh: grid size in scene units; chosen from the data when not given."""
    texture: int = 2048
    """Mesh: side of the baked texture in pixels; 0 colours the vertices instead."""
    metres_per_unit: float | None = None
    """Mesh: length of one scene unit; then the file is in metres, an STL in millimetres. Known by itself after a run with
    --scale-from."""
    photos: Path | None = None
    """Mesh: folder of the photos, when they have moved since the run."""
    json: Quiet = False
    """Print one JSON object on stdout."""


def export(arguments: ExportArguments) -> int:
    """Run `recon export`."""
    from render.rasterizer import load_rasterizer

    check_arguments(arguments)
    kind = arguments.format or kind_of(arguments.file)
    if kind == "html" and (arguments.cameras is not None or arguments.convention != "auto" or arguments.up is not None):
        raise UserError("A page has no axes to choose.", "Leave out --cameras, --convention and --up, or write another format.")
    scene = load_scene(arguments.scene, photos=arguments.photos)
    rasterizer = load_rasterizer("cpu")
    if kind == "mesh":
        from .mesh_command import export_mesh, without_shell

        facts = export_mesh(edit_scene(without_shell(scene), arguments, rasterizer), arguments, rasterizer)
    elif kind == "html":
        from .html_scene import export_html

        facts = export_html(edit_scene(scene, arguments, rasterizer), arguments.file)
    else:
        edited = edit_scene(scene, arguments, rasterizer)
        facts = export_splats(edited, find_format(arguments.file, arguments.format), arguments, rasterizer)
    write_json_atomic(arguments.file.with_name(arguments.file.name + ".check.json"), facts)
    if arguments.json:
        answer(json.dumps(facts, indent=2))
    return 0


def check_arguments(arguments: ExportArguments) -> None:
    """Refuse what cannot be, before anything is loaded.

    Raises:
        UserError: says which option, and what it takes.
    """
    if not math.isfinite(arguments.scale) or arguments.scale <= 0:
        raise UserError(f"--scale {arguments.scale:g} is no size.", "Give a number above 0.")
    if arguments.max_gaussians is not None and arguments.max_gaussians < 1:
        raise UserError("--max-gaussians must be at least 1.", "Leave it out to keep all.")
    box = arguments.crop
    if box is not None and not (all(map(math.isfinite, box)) and all(box[i] < box[i + 3] for i in range(3))):
        raise UserError("--crop is an empty box.", "Give X0 Y0 Z0 X1 Y1 Z1 with every X0 < X1.")
    if arguments.faces < 4 or arguments.texture < 0 or (arguments.voxel is not None and not arguments.voxel > 0):
        raise UserError("--faces, --texture or --voxel is too small.", "Give at least 4 faces and sizes above 0.")
    if arguments.metres_per_unit is not None and not 0 < arguments.metres_per_unit < math.inf:
        raise UserError("--metres-per-unit is no length.", "Give a number above 0.")
    known = {*FORMATS, "mesh", "html"}
    if arguments.format is not None and arguments.format not in known:
        raise UserError(f"There is no format {arguments.format!r}.", f"Choose one of {', '.join(sorted(known))}.")


def kind_of(path: Path) -> str:
    """Tell meshes and pages from splat files by name: `.obj`, `.stl`, `mesh.glb`, `house.mesh.ply`, `.html`."""
    name = path.name.lower()
    suffix = Path(name).suffix
    called_mesh = name.removesuffix(suffix).split(".")[-1] == "mesh"
    if suffix in MESH_ENDINGS or (suffix in MESH_OR_SPLATS and called_mesh):
        return "mesh"
    return "html" if suffix in (".html", ".htm") else find_format(path).name


def edit_scene(scene: Scene, arguments: ExportArguments, rasterizer: Rasterizer) -> Scene:
    """Crop, prune, thin and move a scene as the options say; its cameras move along.

    Raises:
        UserError: nothing is left.
    """
    gaussians, cameras = scene.gaussians, placed_cameras(scene)
    if arguments.crop is not None:
        gaussians = crop_box(gaussians, torch.tensor(arguments.crop[:3]), torch.tensor(arguments.crop[3:]))
        if len(gaussians) == 0:
            raise UserError("No Gaussian lies in the --crop box.", "Look at the bounds with `recon info`.")
    outliers = outlier_mask(gaussians)
    if arguments.prune:
        gaussians = gaussians.select(~outliers)
    elif int(outliers.sum()):
        say(f"Note: {int(outliers.sum()):,} Gaussians are outliers that some viewers fail on; --prune drops them.")
    if arguments.max_gaussians is not None:
        seen_by = None if cameras is None else modest_cameras(cameras)
        gaussians = strongest(gaussians, arguments.max_gaussians, cameras=seen_by, rasterizer=rasterizer)
    gaussians = cut_sh(gaussians, arguments.max_sh)
    move = Similarity(scale=arguments.scale)
    if arguments.recenter:
        move = replace(move, shift=-arguments.scale * scene_middle(gaussians)[0])
    moved = None if scene.cameras is None else moved_cameras(scene.cameras, move)
    provenance = {**scene.provenance, "units_per_scene_unit": arguments.scale}
    return Scene(gaussians=moved_gaussians(gaussians, move), cameras=moved, provenance=provenance)


def modest_cameras(cameras: Cameras, long_side: int = 480, most: int = 24) -> Cameras:
    """At most ``most`` cameras, none longer than ``long_side`` pixels."""
    from .scene_files import fit_cameras

    picked = torch.linspace(0, len(cameras) - 1, min(most, len(cameras))).round().long().tolist()
    return fit_cameras(cameras.select(picked), long_side)


def file_axes(arguments: ExportArguments, R_default: torch.Tensor) -> torch.Tensor:
    """Rotation from our world to the file's axes."""
    R = R_default if arguments.convention == "auto" else CONVENTIONS[arguments.convention]
    return R if arguments.up is None else up_rotation(arguments.up, R)


def export_splats(scene: Scene, entry: Format, arguments: ExportArguments, rasterizer: Rasterizer) -> dict[str, Any]:
    """Write one splat file and check it; returns what can be said about it."""
    R_file_world = file_axes(arguments, entry.R_file_world)
    started = time.perf_counter()
    losses = write_splats(arguments.file, scene.gaussians, entry, R_file_world=R_file_world) + left_out(scene)
    write_s = time.perf_counter() - started
    facts: dict[str, Any] = {
        "file": str(arguments.file),
        "format": entry.name,
        "count": len(scene.gaussians),
        "bytes": arguments.file.stat().st_size,
        "write_s": round(write_s, 3),
        "losses": list(losses),
        "R_file_world": R_file_world.tolist(),
    }
    if arguments.cameras is not None:
        write_cameras(arguments.cameras, scene, R_file_world)
    if arguments.check and entry.read is not None:
        cameras = placed_cameras(scene)
        check = check_file(
            arguments.file, entry, scene.gaussians, rasterizer, cameras=cameras, R_file_world=R_file_world, losses=losses
        )
        facts |= asdict(check)
        say(summary(arguments.file, check))
    else:
        say(f"{arguments.file}: {len(scene.gaussians):,} Gaussians, {format_bytes(facts['bytes'])}, not checked")
    for loss in losses:
        say(f"Note: {loss}.")
    if entry.name.startswith("spz") and arguments.convention == "auto" and arguments.up is None:
        say("Note: SPZ is y-up by its specification; SuperSplat takes it for y-down: add --convention opencv for it.")
    return facts


def left_out(scene: Scene) -> tuple[str, ...]:
    """Say which columns of the scene's own file Gaussians do not have."""
    source = Path(scene.provenance["file"])
    extra = extra_columns(source) if sniff_format(source).name == "ply" else []
    return (f"columns of {source.name} that are not of Gaussians left out: {', '.join(extra)}",) if extra else ()


def summary(path: Path, check: FileCheck) -> str:
    """One line about a checked file."""
    other = f", {check.second_psnr_db:.1f} dB through {check.second_reader}" if check.second_psnr_db is not None else ""
    size = f"{format_bytes(check.bytes)}, {check.bytes_per_gaussian:.1f} bytes each"
    return f"{path}: {check.count:,} Gaussians, {size}; renders at {check.psnr_db:.1f} dB against the scene{other}"


def write_cameras(path: Path, scene: Scene, R_file_world: torch.Tensor, scale: float = 1.0) -> None:
    """Write cameras in the axes of an exported file, in the layout of cameras.json.

    Args:
        scale: units of the file per unit of the scene.

    Raises:
        UserError: the scene has none.
    """
    if scene.cameras is None:
        raise UserError("This scene has no cameras to export.", "Leave --cameras out, or give the output folder of `recon run`.")
    cameras = moved_cameras(scene.cameras, Similarity(R_new_old=R_file_world, scale=scale))
    names = cameras.names or tuple(f"view_{index:04d}" for index in range(len(cameras)))
    frames = [
        {
            "name": names[index],
            "registered": bool(cameras.registered_mask[index]),
            "width": cameras.width[index],
            "height": cameras.height[index],
            "K": cameras.K[index],
            "distortion": None if cameras.distortion is None else cameras.distortion[index],
            "T_world_cam": cameras.T_world_cam[index],
        }
        for index in range(len(cameras))
    ]
    write_json_atomic(path, {"camera_axes": "x right, y down, z forward", "R_file_world": R_file_world, "frames": frames})
