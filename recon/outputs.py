"""The OUT folder, written in one piece.

Input: everything a run made. Output: scene.ply, cameras.json, transforms.json, colmap/, preview.png, orbit.mp4, report.json,
report.html. Does not: leave half a folder; files are written beside OUT and moved into place at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from .cameras.camera_files import write_cameras_json, write_transforms_json
from .cameras.colmap_models import write_colmap_model
from .errors import UserError
from .files import write_json_atomic
from .fuse import Fused
from .planning.estimate import fill_actual
from .ply import write_ply
from .progress import Progress
from .quality.html_report import build_html, error_maps
from .quality.preview import preview_sheet
from .records import Cameras, Gaussians, Rasterizer, Views
from .resume.leftovers import PARTIAL, REPLACED, clear_leftovers, hidden_folder
from .resume.out_format import refuse_newer

if TYPE_CHECKING:
    from .config import PipelineConfig
    from .run_records import Capture, Ledger, Tools

PREVIEW_ROWS = 4
VIDEO_FRAMES, VIDEO_FPS = 60, 24
VIDEO_SIDE = 480
"""Longest side of orbit.mp4 in pixels: coding VP9 takes longer than drawing; `recon render` makes larger ones."""
RESULT_NAMES = {"scene.ply", "cameras.json", "transforms.json", "colmap", "preview.png", "orbit.mp4", "report.json", "report.html"}


def check_writable(out: Path) -> None:
    """Fail early when OUT cannot be written or holds somebody else's files.

    Raises:
        UserError: says which, and what to do.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"Output {out} is a file.", "Name a folder.")
    if out.is_dir():
        foreign = sorted(p.name for p in out.iterdir() if p.name not in RESULT_NAMES)
        if foreign:
            raise UserError(
                f"Output folder {out} holds files that are not a result of recon: {', '.join(foreign[:5])}.",
                "Name an empty or new folder.",
            )
    clear_leftovers(out)
    if out.is_dir():
        refuse_newer(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent):
            pass
    except OSError as error:
        raise UserError(f"Output {out} cannot be written: {error.strerror or error}.", "Name a folder you may write to.") from error


def write_outputs(
    out: Path,
    capture: Capture,
    fused: Fused,
    report: dict,
    ledger: Ledger,
    config: PipelineConfig,
    tools: Tools,
    rasterizer: Rasterizer,
    progress: Progress,
) -> None:
    """Write every file beside OUT, then move the folder into place.

    Raises:
        UserError: the disk refuses.
    """
    started = time.perf_counter()  # the stage ends after the report that names its seconds
    partial = hidden_folder(out, PARTIAL)
    try:
        progress.update("write", 0.0, "scene.ply")
        write_ply(partial / "scene.ply", fused.gaussians)
        write_cameras_json(partial / "cameras.json", capture.solved.cameras, capture.views)
        write_transforms_json(partial / "transforms.json", capture.solved.cameras, capture.views)
        write_colmap_model(partial / "colmap", capture.solved, capture.views)
        progress.update("write", 0.2, "preview.png")
        rows = preview_indices(len(capture.inputs), PREVIEW_ROWS)
        Image.fromarray(preview_sheet(fused.gaussians, capture.inputs, rows, rasterizer)).save(partial / "preview.png")
        if config.video:
            cameras = video_sized(tools.orbit(capture.inputs.cameras, frames=VIDEO_FRAMES))
            tools.write_video(partial / "orbit.mp4", draw_frames(fused.gaussians, cameras, rasterizer, progress), fps=VIDEO_FPS)
        shown = capture.held_out if len(capture.held_out) else capture.inputs
        maps = error_maps(fused.gaussians, shown, rasterizer)
        report["photos"]["folder"] = photo_folder(capture.views, out)
        report["files"] = {p.name: p.stat().st_size for p in sorted(partial.iterdir()) if p.is_file()}
        report["seconds"] = {**ledger.seconds, "write": time.perf_counter() - started}
        fill_actual(report)
        write_json_atomic(partial / "report.json", report)
        page = build_html(report, capture.inputs.cameras, maps, title=f"Reconstruction {out.name}")
        (partial / "report.html").write_text(page, encoding="utf-8")
        progress.update("write", 1.0)
        move_into_place(partial, out)
    except OSError as error:
        raise UserError(
            f"Writing {out} failed: {error.strerror or error}.",
            "Free some space, bring the disk back or name another folder, and run the same command again: it goes on from here.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def photo_folder(views: Views, out: Path) -> str | None:
    """Where the photos are, seen from OUT, so that the viewer finds them again; None when no one folder explains their names."""
    roots = {view.path.parents[view.name.count("/")].resolve() for view in views}
    root = roots.pop() if len(roots) == 1 else None
    if root is None or root.anchor != out.resolve().anchor:
        return None
    return Path(os.path.relpath(root, out.resolve())).as_posix()


def video_sized(cameras: Cameras) -> Cameras:
    """Shrink cameras to the size of the video; codecs want even sides."""
    scale = min(1.0, VIDEO_SIDE / max(*cameras.width, *cameras.height))
    sides = [[max(2, 2 * round(side * scale / 2)) for side in given] for given in (cameras.width, cameras.height)]
    return cameras.resized(*sides)


def draw_frames(gaussians: Gaussians, cameras: Cameras, rasterizer: Rasterizer, progress: Progress) -> Iterator[np.ndarray]:
    """Draw one uint8 frame per camera."""
    for i in range(len(cameras)):
        progress.update("write", 0.3 + 0.7 * i / len(cameras), "orbit.mp4")
        with torch.no_grad():
            color = rasterizer(gaussians, cameras.select([i])).color[0]
        yield (color.clamp(0, 1) * 255).round().byte().cpu().numpy()


def move_into_place(partial: Path, out: Path) -> None:
    """Swap a finished folder for OUT; an earlier result is removed only once the new one stands."""
    os.chmod(partial, 0o755)
    if not out.exists():
        os.replace(partial, out)
        return
    old = hidden_folder(out, REPLACED)
    os.replace(out, old / out.name)
    os.replace(partial, out)
    shutil.rmtree(old)


def preview_indices(count: int, rows: int) -> Sequence[int]:
    """Evenly spread view indices for a sheet."""
    return np.linspace(0, count - 1, min(rows, count)).round().astype(int).tolist()
