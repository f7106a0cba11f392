"""`recon crop`, `clean`, `merge`, `transform` and `compare`: scenes in, scenes or numbers out.

Input: SCENE arguments (output folders of `recon run`, or splat files of any format). Output: a splat file, or a folder with
scene.ply and cameras.json when OUT has no ending; or a table.
Does not: change what it was given.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from recon.editing import CleanConfig, clean, compare, crop_box, crop_sphere, scene_middle
from recon.errors import UserError
from recon.formats.conventions import Y_DOWN, Similarity, moved_cameras, moved_gaussians, up_rotation
from recon.formats.registry import FORMATS, find_format, write_splats
from recon.formats.self_check import cameras_around
from recon.geometry import quats_to_rotations
from recon.records import Gaussians, Scene

from .console import Quiet, answer, format_bytes, say
from .export_command import ScenePath, modest_cameras, write_cameras
from .scene_files import CAMERAS_NAME, SPLAT_NAME, joined_cameras, load_scene, placed_cameras

OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True, kw_only=True)
class CropArguments:
    """Cut a part out of a scene."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    out: OutPath
    """Splat file to write, or a folder."""
    box: tuple[float, float, float, float, float, float] | None = None
    """X0 Y0 Z0 X1 Y1 Z1, units and axes of the scene (y down)."""
    sphere: tuple[float, float, float, float] | None = None
    """X Y Z RADIUS, units of the scene."""
    outside: bool = False
    """Keep what lies outside instead."""


def crop(arguments: CropArguments) -> int:
    """Run `recon crop`."""
    box, sphere = arguments.box, arguments.sphere
    if (box is None) == (sphere is None):
        raise UserError("Give either --box or --sphere.", "For example --box -1 -1 -1 1 1 1; `recon info` shows the bounds.")
    scene = load_scene(arguments.scene)
    if box is not None:
        kept = crop_box(scene.gaussians, torch.tensor(box[:3]), torch.tensor(box[3:]), outside=arguments.outside)
    else:
        assert sphere is not None
        kept = crop_sphere(scene.gaussians, torch.tensor(sphere[:3]), float(sphere[3]), outside=arguments.outside)
    say(f"{len(kept):,} of {len(scene.gaussians):,} Gaussians kept")
    return write_scene(arguments.out, Scene(gaussians=kept, cameras=scene.cameras))


@dataclass(frozen=True, kw_only=True)
class CleanArguments:
    """Remove what is not the scene: broken values, outliers, floaters, Gaussians without evidence, sky when asked."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    out: OutPath
    """Splat file to write, or a folder."""
    what: CleanConfig = field(default_factory=CleanConfig)
    json: Quiet = False
    """Print one JSON object on stdout."""


def clean_scene(arguments: CleanArguments) -> int:
    """Run `recon clean`."""
    from render.rasterizer import load_rasterizer

    scene = load_scene(arguments.scene, keep_broken=True)
    cameras = placed_cameras(scene)
    if cameras is None and arguments.what.sky_distances > 0:
        raise UserError("Sky is found from the cameras, and this scene has none.", "Give the output folder of `recon run`.")
    seen_by = None if cameras is None else modest_cameras(cameras)
    done = clean(scene.gaussians, arguments.what, cameras=seen_by, rasterizer=load_rasterizer("cpu"))
    for reason, count in done.removed.items():
        say(f"{reason:<14} {count:>10,} removed")
    facts = {"before": len(scene.gaussians), "after": len(done.gaussians), "removed": done.removed}
    if arguments.json:
        answer(json.dumps(facts, indent=2))
    return write_scene(arguments.out, Scene(gaussians=done.gaussians, cameras=scene.cameras))


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Join scenes that share one world into one, with their cameras when OUT is a folder."""

    scenes: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCENE SCENE ...")]
    """Two or more output folders or splat files."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Splat file to write, or a folder."""


def merge(arguments: MergeArguments) -> int:
    """Run `recon merge`."""
    if len(arguments.scenes) < 2:
        raise UserError("There is nothing to merge.", "Give two or more scenes.")
    parts = [load_scene(path) for path in arguments.scenes]
    joined = Gaussians.concatenate([part.gaussians for part in parts])
    return write_scene(arguments.out, Scene(gaussians=joined, cameras=joined_cameras(parts)))


@dataclass(frozen=True, kw_only=True)
class TransformArguments:
    """Move, turn and scale a scene with its cameras. Order: recenter, scale, turn, shift."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    out: OutPath
    """Splat file to write, or a folder."""
    recenter: bool = False
    """First move the middle of the scene to the origin."""
    scale: float = 1.0
    """Multiply all lengths."""
    rotate: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Turn about x, then y, then z, degrees."""
    up: Literal["x", "-x", "y", "-y", "z", "-z"] | None = None
    """The axis of the given scene that points up; it is turned to where recon keeps up (-y)."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added at the end, new units."""


def transform(arguments: TransformArguments) -> int:
    """Run `recon transform`."""
    if not arguments.scale > 0:
        raise UserError(f"--scale {arguments.scale:g} is no size.", "Give a number above 0.")
    scene = load_scene(arguments.scene)
    move = Similarity(shift=-scene_middle(scene.gaussians)[0] if arguments.recenter else torch.zeros(3))
    turn = turn_about_axes(arguments.rotate)
    if arguments.up is not None:
        turn = turn @ up_rotation(arguments.up, Y_DOWN).T
    move = Similarity(R_new_old=turn, scale=arguments.scale, shift=torch.tensor(arguments.shift)).after(move)
    cameras = None if scene.cameras is None else moved_cameras(scene.cameras, move)
    return write_scene(arguments.out, Scene(gaussians=moved_gaussians(scene.gaussians, move), cameras=cameras))


def turn_about_axes(degrees: tuple[float, float, float]) -> torch.Tensor:
    """Rotation matrix: about x, then y, then z."""
    half = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)) / 2
    quats = torch.zeros(3, 4, dtype=torch.float64)
    quats[:, 0] = half.cos()
    quats[range(3), range(1, 4)] = half.sin()
    x, y, z = quats_to_rotations(quats)
    return (z @ y @ x).float()


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Draw two scenes from the same cameras and say how they differ."""

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """Output folder or splat file; its cameras are used when it has any."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Output folder or splat file."""
    long_side: int = 480
    """Longest side of the pictures in pixels."""
    json: Quiet = False
    """Print one JSON object on stdout."""


def compare_scenes(arguments: CompareArguments) -> int:
    """Run `recon compare`."""
    from render.rasterizer import load_rasterizer

    if arguments.long_side < 16:
        raise UserError("--long-side is too small.", "Give at least 16 pixels.")
    scenes = [load_scene(path) for path in (arguments.first, arguments.second)]
    placed = placed_cameras(scenes[0]) or placed_cameras(scenes[1])
    cameras = cameras_around(scenes[0].gaussians) if placed is None else modest_cameras(placed, arguments.long_side)
    seen = compare(scenes[0].gaussians, scenes[1].gaussians, cameras, load_rasterizer("cpu"))
    sizes = [Path(scene.provenance["file"]).stat().st_size for scene in scenes]
    facts = {
        "gaussians": [len(scene.gaussians) for scene in scenes],
        "sh_degree": [scene.gaussians.sh_degree for scene in scenes],
        "bytes": sizes,
        **asdict(seen),
        "psnr_mean_db": sum(seen.psnr_db) / len(seen.psnr_db),
        "psnr_lowest_db": min(seen.psnr_db),
    }
    if arguments.json:
        answer(json.dumps(facts, indent=2))
        return 0
    names = [arguments.first.name, arguments.second.name]
    for name, scene, size in zip(names, scenes, sizes, strict=True):
        answer(f"{name}: {len(scene.gaussians):,} Gaussians, SH {scene.gaussians.sh_degree}, {format_bytes(size)}")
    answer(f"PSNR between their pictures: {facts['psnr_mean_db']:.2f} dB mean, {facts['psnr_lowest_db']:.2f} dB lowest")
    answer(f"opacity differs by {seen.alpha_difference:.4f}, depth by {100 * seen.depth_difference:.2f}% (median)")
    return 0


def write_scene(out: Path, scene: Scene) -> int:
    """Write a scene as a splat file, or as a folder with its cameras when OUT has no ending."""
    if out.suffix == "" and not out.is_file():
        write_splats(out / SPLAT_NAME, scene.gaussians, FORMATS["ply"])
        if scene.cameras is not None:
            write_cameras(out / CAMERAS_NAME, scene, Y_DOWN)
        written = out / SPLAT_NAME
    else:
        for loss in write_splats(out, scene.gaussians, find_format(out)):
            say(f"Note: {loss}.")
        written = out
    say(f"{written}: {len(scene.gaussians):,} Gaussians, {format_bytes(written.stat().st_size)}")
    return 0
