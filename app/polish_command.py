"""`recon polish`: optimise a scene that exists against its photos.

Input: a SCENE of ours or a foreign splat file with cameras, photos, seconds. Output: a new folder with scene.ply, cameras.json,
report.json and report.html. Does not: touch the scene it was given.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from recon.cameras.camera_files import write_cameras_json
from recon.cameras.result import SfmResult
from recon.config import Holdout
from recon.errors import UserError
from recon.files import write_json_atomic
from recon.fuse import Fused
from recon.outputs import check_writable, move_into_place, photo_folder
from recon.ply import write_ply
from recon.polishing.choices import PolishConfig, PolishOptions, for_finished
from recon.polishing.guard import Guarded, polish_guarded
from recon.polishing.stage import report_entry, zoom_others, zoomed
from recon.posed import PosedViews
from recon.quality.html_report import build_html, error_maps
from recon.quality.report import peak_memory_bytes, versions
from recon.quality.score import score_views, summarize
from recon.records import Rasterizer

from .console import Quiet, answer, say, shown_progress
from .scene_commands import Device, ScenePath
from .scene_photos import ScenePhotos, check_belongs, open_scene_photos


@dataclass(frozen=True, kw_only=True)
class PolishArguments:
    """Optimise a scene for some seconds against its photos, judged on photos set apart, and write the result as a new folder. Works
    on any splat file with cameras. Ctrl-C keeps what there is."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the result."""
    photos: Path | None = None
    """Folder of the photos; None takes the one the run used."""
    cameras: Path | None = None
    """COLMAP model, transforms.json or cameras.json, kept exactly; None takes the cameras beside the scene."""
    seconds: float = 60.0
    """Time to spend."""
    holdout: Holdout | None = None
    """Photos i with i % K == OFFSET are scored before and after and used for nothing else."""
    max_gaussians: int | None = None
    """Most Gaussians; None lets the seconds decide. Never fewer than the scene has."""
    long_side: int = 640
    """Working size: longest side of the photos in pixels."""
    options: PolishOptions = field(default_factory=PolishOptions)
    device: Device = "auto"
    """Where the rasteriser runs."""
    seed: int = 0
    """Seed of everything random."""
    quiet: Quiet = False
    """Show no progress."""
    json: Quiet = False
    """Print the report as one JSON object on stdout."""


def check(arguments: PolishArguments, count: int) -> None:
    """Refuse arguments that make no sense, in words.

    Raises:
        UserError: says which.
    """
    if not 0 < arguments.seconds < math.inf:
        raise UserError(f"--seconds {arguments.seconds:g}: there is no time to polish in.", "Give more than 0, for example 60.")
    if not 0 <= arguments.options.polish_sh <= 3:
        raise UserError(f"--polish-sh {arguments.options.polish_sh}: wanted a degree from 0 to 3.", "Give 1.")
    if arguments.max_gaussians is not None and arguments.max_gaussians < count:
        raise UserError(
            f"--max-gaussians {arguments.max_gaussians} is less than the {count} Gaussians of the scene.",
            f"Give {count} or more, or leave it out.",
        )
    if arguments.out.resolve() == (arguments.scene if arguments.scene.is_dir() else arguments.scene.parent).resolve():
        raise UserError("OUT is the folder of the scene itself, which would be lost.", "Name another folder.")
    check_writable(arguments.out)


def polish_scene(arguments: PolishArguments) -> int:
    """Run `recon polish`."""
    from render.rasterizer import load_rasterizer

    found = open_scene_photos(arguments.scene, arguments.photos, arguments.cameras, arguments.holdout, arguments.long_side)
    check(arguments, len(found.scene.gaussians))
    if not found.inputs:
        raise UserError("No photo with a camera is left to polish with.", "Hold out fewer photos.")
    rasterizer = load_rasterizer(arguments.device)
    check_belongs(found, found.inputs, rasterizer)
    posed = found.posed(found.inputs, arguments.long_side)
    start = Fused(gaussians=found.scene.gaussians, shell_count=_shell_count(found))
    config = for_finished(PolishConfig(options=arguments.options, max_gaussians=arguments.max_gaussians))
    began = time.perf_counter()

    def given(indices: Sequence[int]) -> Fused:
        return start

    with shown_progress(quiet=arguments.quiet or arguments.json) as progress:
        guarded = polish_guarded(
            given, posed, arguments.seconds, config, rasterizer, progress, cameras_known=found.cameras_given, finished=True,
            seed=arguments.seed,
        )  # fmt: skip
        if guarded.partial:
            progress.resume()
        report = write_result(arguments, found, posed, guarded, rasterizer, time.perf_counter() - began)
    if arguments.json:
        answer(json.dumps({**report, "out": str(arguments.out)}, indent=2))
    elif not arguments.quiet:
        for verdict in guarded.verdicts:
            say(f"{'Kept' if verdict.kept else 'Undone'}: {verdict.note}.")
        say(f"Written to {arguments.out}; look with: recon view {arguments.out}")
    return 0


def _shell_count(found: ScenePhotos) -> int:
    report = found.scene.provenance.get("report")
    counts = report.get("counts", {}) if isinstance(report, dict) else {}
    count = int(counts.get("shell_gaussians", 0))
    return count if counts.get("gaussians") == len(found.scene.gaussians) else 0


def write_result(
    arguments: PolishArguments, found: ScenePhotos, posed: PosedViews, guarded: Guarded, rasterizer: Rasterizer, seconds: float
) -> dict[str, Any]:
    """Score held-out photos once and write the folder in one piece."""
    solved: SfmResult = found.solved
    held_out = found.posed(found.held_out, arguments.long_side)
    before = score_views(guarded.start, held_out, found.lost, rasterizer) if found.held_out or found.lost else []
    shown = posed
    if guarded.polished is not None and guarded.polished.camera_changes:
        zoom, cameras = guarded.polished.zoom, guarded.polished.cameras
        solved = replace(solved, cameras=zoomed(solved.cameras, found.inputs, zoom, cameras.T_world_cam))
        held_out = replace(held_out, cameras=zoom_others(held_out.cameras, zoom))
        shown = replace(posed, cameras=cameras)
    after = score_views(guarded.fused, held_out, found.lost, rasterizer) if before else []
    old = found.scene.provenance.get("report")
    report = {
        "format": 1,
        "polished_from": str(arguments.scene),
        "seed": arguments.seed,
        "versions": versions(),
        "counts": {
            "photos": len(found.views),
            "used": len(found.inputs),
            "held_out": len(found.held_out) + len(found.lost),
            "gaussians": len(guarded.fused.gaussians),
            "shell_gaussians": guarded.fused.shell_count,
        },
        "photos": {"folder": photo_folder(found.views, arguments.out)},
        "choices": {
            "polish": report_entry(guarded, arguments.seconds),
            "cameras": (old.get("choices", {}).get("cameras") if isinstance(old, dict) else None) or {"source": "file"},
        },
        "seconds": {"polish": seconds},
        "peak_memory_bytes": peak_memory_bytes(),
        "warnings": [f"Polish: {v.note}." for v in guarded.verdicts if not v.kept],
        "quality_before_polish": summarize(before),
        "quality": summarize(after),
    }
    out = arguments.out
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write_ply(partial / "scene.ply", guarded.fused.gaussians)
        write_cameras_json(partial / "cameras.json", solved.cameras, _marked(found))
        write_json_atomic(partial / "report.json", report)
        maps = error_maps(guarded.fused.gaussians, held_out if len(held_out) else shown, rasterizer)
        page = build_html(report, shown.cameras, maps, title=f"Polish of {arguments.scene.name}")
        (partial / "report.html").write_text(page, encoding="utf-8")
        os.chmod(partial, 0o755)
        move_into_place(partial, out)
    except OSError as error:
        raise UserError(f"Writing {out} failed: {error.strerror or error}.", "Free some space or name another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _marked(found: ScenePhotos) -> Any:
    """The views with the held-out marks that were used."""
    held = {found.views.names[i] for i in found.held_out} | set(found.lost)
    return replace(found.views, items=tuple(replace(view, holdout=view.name in held) for view in found.views))
