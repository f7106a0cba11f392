"""`recon view`, `render` and `info`: what can be done with a scene that exists.

Input: a SCENE (an output folder of `recon run`, or a splat file). Output: a page, pictures, a video, a file, a table.
Does not: change the scene.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from recon.errors import UserError
from recon.files import atomic_path
from recon.records import Cameras, Gaussians, Rasterizer, RasterOptions, Scene

from .console import Quiet, answer, format_bytes, say, shown_progress
from .scene_facts import file_facts
from .scene_files import cameras_around, fit_cameras, load_scene, placed_cameras

ScenePath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class ViewArguments:
    """Walk round a scene in the browser. Serves on 127.0.0.1 until Ctrl-C."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    port: int = 8080
    """Port to listen on; the next free one is taken when it is busy."""
    photos: Path | None = None
    """Folder of the photos, when they have moved since the run; shown in the camera frusta."""


def view(arguments: ViewArguments) -> int:
    """Run `recon view`."""
    from render.rasterizer import load_rasterizer

    from .viewer import view_forever

    scene = load_scene(arguments.scene, photos=arguments.photos)
    if len(scene.gaussians) == 0:
        raise UserError(f"{arguments.scene} holds no Gaussians.", "Run the reconstruction again.")
    view_forever(scene, port=arguments.port, rasterizer=load_rasterizer("cpu"), say=say)
    return 0


@dataclass(frozen=True, kw_only=True)
class RenderArguments:
    """Draw a scene: one PNG for each of its cameras into the folder OUT, or, when OUT ends in .mp4, a video. A splat file without
    cameras is drawn from eight places around it."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the pictures, or a .mp4 file."""
    long_side: int = 640
    """Longest side in pixels; cameras are never enlarged."""
    path: Literal["orbit", "fly"] = "orbit"
    """Way of the video: 'orbit' circles about what the cameras look at, 'fly' goes through the cameras in their order."""
    frames: int = 120
    """Frames of the video."""
    fps: int = 30
    """Frames per second of the video."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """sRGB in [0, 1] behind everything."""
    device: Device = "auto"
    """Where the rasteriser runs."""
    quiet: Quiet = False
    """Show no progress."""


def render(arguments: RenderArguments) -> int:
    """Run `recon render`."""
    from recon.pipeline import resolve_device
    from render.rasterizer import load_rasterizer

    if arguments.long_side < 16 or arguments.frames < 2 or arguments.fps < 1:
        raise UserError("--long-side, --frames or --fps is too small.", "Give at least 16 pixels, 2 frames and 1 frame per second.")
    device = resolve_device(arguments.device)
    scene = load_scene(arguments.scene)
    placed = placed_cameras(scene)
    cameras = fit_cameras(cameras_around(scene.gaussians) if placed is None else placed, arguments.long_side).to(device)
    scene = replace(scene, gaussians=scene.gaussians.to(device))
    rasterizer = load_rasterizer(device)
    if arguments.out.suffix.lower() == ".mp4":
        draw_video(scene, cameras, rasterizer, arguments)
    elif arguments.out.suffix and not arguments.out.is_dir():
        raise UserError(f"{arguments.out.name}: not a format this command writes.", "Name a folder for PNG files, or a .mp4 file.")
    else:
        draw_pictures(scene, cameras, rasterizer, arguments)
    return 0


def draw_pictures(scene: Scene, cameras: Cameras, rasterizer: Rasterizer, arguments: RenderArguments) -> None:
    """Write one PNG per camera, named after its photo."""
    names = picture_names(cameras)
    make_folder(arguments.out)
    options = RasterOptions(background=arguments.background)
    with shown_progress(quiet=arguments.quiet) as progress:
        for index, name in enumerate(names):
            progress.update("write", index / len(names), name)
            picture = draw(scene.gaussians, cameras.select([index]), rasterizer, options)
            with atomic_path(arguments.out / name) as partial:
                Image.fromarray(picture).save(partial, format="PNG")
        progress.update("write", 1.0)
    say(f"{len(names)} pictures in {arguments.out}")


def draw_video(scene: Scene, cameras: Cameras, rasterizer: Rasterizer, arguments: RenderArguments) -> None:
    """Write a video along a path derived from the cameras."""
    from render.trajectories import fly_through, orbit
    from render.video import write_video

    make_folder(arguments.out.parent)
    path = (orbit if arguments.path == "orbit" else fly_through)(cameras, frames=arguments.frames)
    options = RasterOptions(background=arguments.background)
    with shown_progress(quiet=arguments.quiet) as progress:

        def frames():
            for index in range(len(path)):
                progress.update("write", index / len(path), f"frame {index + 1} of {len(path)}")
                yield draw(scene.gaussians, path.select([index]), rasterizer, options)

        with atomic_path(arguments.out) as partial:
            write_video(partial, frames(), fps=arguments.fps)
        progress.update("write", 1.0)
    say(f"{arguments.out}: {len(path)} frames, {format_bytes(arguments.out.stat().st_size)}")


def draw(gaussians: Gaussians, camera: Cameras, rasterizer: Rasterizer, options: RasterOptions) -> np.ndarray:
    """Draw one camera as uint8 ``H W 3``."""
    with torch.no_grad():
        color = rasterizer(gaussians, camera, options).color[0]
    return (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def picture_names(cameras: Cameras) -> list[str]:
    """Turn photo names into distinct flat PNG names."""
    names = cameras.names or tuple(f"view_{index:04d}" for index in range(len(cameras)))
    flat = [re.sub(r"[^\w.-]+", "_", re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)) for name in names]
    return [f"{name}.png" if flat.count(name) == 1 else f"{name}_{index:04d}.png" for index, name in enumerate(flat)]


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}.", "Name a folder you may write to.") from error


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Say what a scene is made of."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    json: Quiet = False
    """Print one JSON object on stdout."""


def info(arguments: InfoArguments) -> int:
    """Run `recon info`."""
    scene = load_scene(arguments.scene, keep_broken=True)
    facts = scene_facts(scene) | file_facts(Path(scene.provenance["file"]), scene.gaussians)
    if arguments.json:
        answer(json.dumps(facts, indent=2))
        return 0
    drawn = Table(show_header=False, box=None)
    for key, value in facts.items():
        drawn.add_row(key.replace("_", " "), _shown(value))
    Console(soft_wrap=True).print(drawn)
    return 0


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Collect what can be said about a scene as plain values."""
    gaussians = scene.gaussians
    facts: dict[str, Any] = {
        "file": scene.provenance.get("file"),
        "file_bytes": Path(scene.provenance["file"]).stat().st_size if "file" in scene.provenance else None,
        "gaussians": len(gaussians),
        "sh_degree": gaussians.sh_degree,
    }
    if len(gaussians):
        facts["middle_90_percent_world"] = [
            [round(float(v), 4) for v in np.quantile(gaussians.means[:, axis].numpy(), [0.05, 0.95])] for axis in range(3)
        ]
        facts["median_opacity"] = round(float(gaussians.opacities.median()), 4)
        facts["median_scale_world"] = round(float(gaussians.scales.median()), 6)
    if scene.cameras is not None:
        facts["cameras"] = len(scene.cameras)
        facts["registered"] = int(scene.cameras.registered_mask.sum())
    report = scene.provenance.get("report")
    if isinstance(report, dict):
        facts |= {key: report.get(key) for key in ("config", "device", "seed", "seconds", "versions", "warnings")}
        facts["quality"] = {key: value for key, value in (report.get("quality") or {}).items() if key != "per_view"}
    return facts


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)
