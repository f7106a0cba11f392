"""`recon eval`: how close a scene comes to photos.

Input: a SCENE of ours or a foreign splat file with cameras, photos. Output: a table or JSON.
Does not: change the scene. With --align, held-out cameras are fitted to the frozen scene; both scores are reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from recon.config import Holdout
from recon.errors import UserError
from recon.files import write_json_atomic
from recon.posed import PosedViews
from recon.progress import Progress
from recon.quality.align import AlignConfig, align_cameras
from recon.quality.metrics import Lpips, gradient_similarity, ms_ssim
from recon.quality.score import COVERED_ALPHA, UNREGISTERED_PSNR, as_8bit, psnr, ssim
from recon.records import Gaussians, Rasterizer

from .console import Quiet, answer, say, shown_progress
from .scene_commands import Device, ScenePath
from .scene_photos import check_belongs, open_scene_photos

MEASURES = ("psnr", "ssim", "ms_ssim", "gradient_similarity", "lpips", "coverage")


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Score a scene against photos: PSNR, SSIM, MS-SSIM, gradient similarity and coverage, 8 bit, black where the scene is empty,
    no alignment. Photos that the run held out are scored; where there are none, all photos."""

    scene: ScenePath
    """Output folder of `recon run`, or a splat file."""
    photos: Path | None = None
    """Folder of the photos; None takes the one the run used."""
    cameras: Path | None = None
    """COLMAP model, transforms.json or cameras.json; None takes the cameras beside the scene."""
    holdout: Holdout | None = None
    """Score photo i with i % K == OFFSET only."""
    align: Quiet = False
    """Also fit the scored cameras to the frozen scene and score again."""
    lpips: Path | None = None
    """State dictionary of LPIPS(net='alex'), .safetensors or .pth; adds LPIPS to the scores."""
    long_side: int = 640
    """Longest side in pixels at which pictures are compared; photos are never enlarged."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the scores."""
    device: Device = "auto"
    """Where the rasteriser runs."""
    quiet: Quiet = False
    """Show no progress."""
    json: Quiet = False
    """Print the scores as one JSON object on stdout."""


def evaluate(arguments: EvalArguments) -> int:
    """Run `recon eval`."""
    from render.rasterizer import load_rasterizer

    if arguments.long_side < 32:
        raise UserError(f"--long-side {arguments.long_side} is too small to compare pictures.", "Give 32 or more; 640 is usual.")
    lpips = Lpips(arguments.lpips) if arguments.lpips is not None else None
    found = open_scene_photos(arguments.scene, arguments.photos, arguments.cameras, arguments.holdout, arguments.long_side)
    rasterizer = load_rasterizer(arguments.device)
    scored, seen = (found.held_out, False) if found.held_out else (found.inputs, True)
    if not found.held_out and arguments.holdout is not None:
        raise UserError("None of the photos to be scored has a camera.", "Choose another --holdout, or leave it out.")
    check_belongs(found, scored, rasterizer)
    posed = found.posed(scored, arguments.long_side)
    gaussians = found.scene.gaussians
    with shown_progress(quiet=arguments.quiet or arguments.json) as progress:
        rows = score_all(gaussians, posed, rasterizer, lpips, progress)
        aligned = None
        if arguments.align:
            cameras = align_cameras(gaussians, posed, rasterizer, AlignConfig(), progress)
            aligned = score_all(gaussians, replace(posed, cameras=cameras), rasterizer, lpips, progress)
    result = {
        "scene": str(arguments.scene),
        "photos_may_be_seen": seen,
        "scores": summarize_rows(rows, found.lost),
        "aligned": summarize_rows(aligned, found.lost) if aligned is not None else None,
    }
    if arguments.out is not None:
        write_json_atomic(arguments.out, result)
    if arguments.json:
        answer(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


def score_all(
    gaussians: Gaussians, posed: PosedViews, rasterizer: Rasterizer, lpips: Callable[..., float] | None, progress: Progress
) -> list[dict[str, Any]]:
    """Measure every photo; pixels that undistortion left empty do not count."""
    rows = []
    for i, name in enumerate(posed.names):
        progress.update("score", i / len(posed), name)
        image, valid = posed.pixels(i)
        with torch.no_grad():
            drawn = rasterizer(gaussians, posed.cameras.select([i]).to(gaussians.means.device))
        color, photo = as_8bit(drawn.color[0].cpu()), as_8bit(image)
        row = {
            "name": name,
            "psnr": min(psnr(color, photo, valid), 99.0),
            "ssim": ssim(color, photo, valid),
            "ms_ssim": ms_ssim(color, photo, valid),
            "gradient_similarity": gradient_similarity(color, photo, valid),
            "coverage": float((drawn.alpha[0].cpu() >= COVERED_ALPHA)[valid].float().mean()),
        }
        if lpips is not None:
            row["lpips"] = lpips(color, photo, valid)
        rows.append(row)
    progress.update("score", 1.0)
    return rows


def summarize_rows(rows: list[dict[str, Any]], lost: tuple[str, ...]) -> dict[str, Any]:
    """Means over the photos. Photos without a camera count UNREGISTERED_PSNR, as in the run's own score."""
    mean = {m: sum(r[m] for r in rows) / len(rows) for m in MEASURES if m in rows[0]}
    psnr_mean = (sum(r["psnr"] for r in rows) + UNREGISTERED_PSNR * len(lost)) / (len(rows) + len(lost))
    return {"mean": mean, "psnr_mean_with_lost": psnr_mean, "n_scored": len(rows), "lost": list(lost), "per_view": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    kinds = [("as given", result["scores"])] + ([("aligned", result["aligned"])] if result["aligned"] else [])
    columns = [m for m in MEASURES if m in result["scores"]["mean"]]
    table = Table("photo", "cameras", *columns)
    for kind, scores in kinds:
        for row in [*scores["per_view"], {"name": "mean", **scores["mean"]}]:
            table.add_row(row["name"], kind, *(f"{row[c]:.2f}" if c == "psnr" else f"{row[c]:.3f}" for c in columns))
    Console().print(table)
    if result["photos_may_be_seen"]:
        say("No photo was held out: the scene may have been made from these very photos.")
    if result["scores"]["lost"]:
        say(f"No camera for: {', '.join(result['scores']['lost'])}.")
