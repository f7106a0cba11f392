"""`recon run` and `reconstruct`: give the pipeline its networks, its rasteriser and somewhere to speak.

Input: photos and choices. Output: a ``Result`` and, when asked, the files of an output folder.
Does not: reconstruct; ``recon.pipeline`` does.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from recon.config import Holdout, PipelineConfig
from recon.errors import UserError
from recon.files import plain
from recon.pipeline import Result, Tools, run_pipeline
from recon.progress import Progress

from .console import Quiet, answer, format_bytes, format_seconds, say, shown_progress

MOST_ROUNDS = 100
"""More rounds of refinement than this are a mistake: it is trained for a handful, and `--polish` goes on from there."""


def reconstruct(
    photos: Path | str | Sequence[Path | str], out: Path | str | None = None, *, progress: Progress | None = None, **options: Any
) -> Result:
    """Turn photos into a scene of 3D Gaussians.

    Args:
        photos: a folder, or photo files.
        out: folder for the results; None writes nothing.
        progress: told about each step; ``progress.cancel()`` from another thread stops the run.
        **options: the fields of ``PipelineConfig`` and of the records in it by their plain names, as on the command line:
            ``long_side=800``, ``max_gaussians=100_000``, ``holdout="4"``.

    Returns:
        ``Result(scene, report, out)``.

    Raises:
        CannotReconstruct: the photos do not make a scene; says why and what would help.
        UserError: an input or the machine is not usable.
        TypeError: an option does not exist.
    """
    given = [photos] if isinstance(photos, Path | str) else list(photos)
    config = configure(PipelineConfig(), options)
    return start(given, None if out is None else Path(out), config, progress or Progress())


def start(photos: Sequence[Path | str], out: Path | None, config: PipelineConfig, progress: Progress) -> Result:
    """Run the pipeline with the real tools."""
    if not photos:
        raise UserError("No photos were given.", "Name a folder of photos, or the photo files themselves.")
    check_choices(config)
    if config.capture.masks is not None:  # the report names the folder for later commands, which may start elsewhere
        masks = str(Path(config.capture.masks).expanduser().absolute())
        config = dataclasses.replace(config, capture=dataclasses.replace(config.capture, masks=masks))
    paths = [Path(path).expanduser() for path in photos]
    return run_pipeline(paths[0] if len(paths) == 1 else paths, out, config, build_tools(), progress)


def check_choices(config: PipelineConfig) -> None:
    """Refuse what cannot be done, in words, before work begins.

    Raises:
        UserError: a choice has no meaning here, or names a network that is not on this machine.
    """
    from models.registry import camera_models, load_matcher, require_camera_model, require_model

    require_model(config.model, config.weights)
    if config.camera_network is not None:
        if config.cameras not in ("auto", "network"):
            raise UserError(
                f"--camera-network has no part in --cameras {config.cameras}.", "Leave it out, or give --cameras network or auto."
            )
        require_camera_model("network", config.camera_network)
    elif config.cameras in camera_models():
        require_camera_model(config.cameras)
    if config.matcher is not None:
        if config.cameras != "auto":
            raise UserError(f"--matcher has no part in --cameras {config.cameras}.", "Leave it out, or give --cameras auto.")
        load_matcher(weights=config.matcher)
    if config.refine is not None and not 0 <= config.refine <= MOST_ROUNDS:
        raise UserError(
            f"--refine {config.refine}: wanted 0 to {MOST_ROUNDS} rounds.", "Leave it out for as many as suit, or give 0 for none."
        )
    if not 0 <= config.polish < math.inf:
        raise UserError(f"--polish {config.polish:g}: wanted seconds.", "Give 0 for none, or for example 60.")
    if not 0 <= config.polishing.polish_sh <= 3:
        raise UserError(
            f"--polish-sh {config.polishing.polish_sh}: wanted a degree from 0 to 3.", "Give 1, or 0 for the smallest file."
        )
    if config.long_side < 64:
        raise UserError(
            f"--long-side {config.long_side} is too small to find cameras in.", "Give 64 or more; 640 is usual on a CPU."
        )
    budget = config.fuse.max_gaussians
    if budget is not None and budget < 100:
        raise UserError(f"--max-gaussians {budget} is too few for a scene.", "Give 100 or more; tens of thousands are usual.")


def configure(config: Any, options: Mapping[str, Any]) -> Any:
    """Set fields of a config record and of the records in it by their plain names.

    Raises:
        TypeError: no record has a field of that name.
    """
    left = dict(options)
    changed = _configured(config, left)
    if left:
        raise TypeError(f"reconstruct: no option {sorted(left)}; there are {sorted(option_names(config))}")
    return changed


def _configured(config: Any, left: dict[str, Any]) -> Any:
    changes = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, Holdout) and entry.name not in left:
            changes[entry.name] = _configured(value, left)
        elif entry.name in left:
            given = left.pop(entry.name)
            changes[entry.name] = Holdout.parse(str(given)) if entry.name == "holdout" and isinstance(given, str | int) else given
    return dataclasses.replace(config, **changes)


def option_names(config: Any) -> list[str]:
    """List the plain names ``configure`` knows."""
    names = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        names += option_names(value) if dataclasses.is_dataclass(value) and not isinstance(value, Holdout) else [entry.name]
    return names


def build_tools() -> Tools:
    """Hand the pipeline the doors of the other rooms; each is opened when the run needs it."""
    from models.registry import camera_models, load_camera_predictor, load_matcher, load_predictor, load_splat_head, load_updater
    from render.rasterizer import load_rasterizer
    from render.trajectories import orbit
    from render.video import write_video

    from .identity import identify, resolve_model

    return Tools(
        load_rasterizer=load_rasterizer,
        load_predictor=load_predictor,
        load_splat_head=load_splat_head,
        load_updater=load_updater,
        orbit=orbit,
        write_video=write_video,
        load_camera_predictor=load_camera_predictor,
        camera_models=camera_models(),
        load_matcher=load_matcher,
        identify=identify,
        resolve_model=resolve_model,
    )


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Reconstruct a scene from photos: finds the cameras, estimates depth, fuses it into Gaussians and writes OUT/scene.ply,
    cameras.json, transforms.json, a COLMAP model, preview.png, orbit.mp4 and report.json."""

    photos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS...", help_behavior_hint="")]
    """Photos (JPEG, PNG, HEIC, WebP, AVIF, TIFF, GIF, BMP), folders of them, patterns like 'trip/*.jpg', lists (.txt, one path a
    line), zip archives, or videos (mp4, mov, webm, gif)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results; made when it is not there."""
    config: PipelineConfig = field(default_factory=PipelineConfig)
    quiet: Quiet = False
    """Show no progress."""
    json: Quiet = False
    """Print the report as one JSON object on stdout."""


def run(arguments: RunArguments) -> int:
    """Run the command."""
    with shown_progress(quiet=arguments.quiet) as progress:
        result = start(arguments.photos, arguments.out, arguments.config, progress)
    if arguments.json:
        answer(json.dumps(plain({**result.report, "out": arguments.out}), indent=2))
    elif not arguments.quiet:
        for line in summary(result):
            say(line)
    return 0


def summary(result: Result) -> list[str]:
    """Say in a few lines what a run made."""
    report = result.report
    if result.repeated:
        return [f"Nothing to do: {result.out} already holds the result of this very run.", f"Look with: recon view {result.out}"]
    counts, memory = report["counts"], report.get("peak_memory_bytes")
    lines = [f"{counts['gaussians']:,} Gaussians from {counts['used']} photos in {format_seconds(sum(report['seconds'].values()))}"]
    if memory:
        lines[0] += f", peak memory {format_bytes(max(memory.values()))}"
    cached = report.get("cached_s") or {}
    if cached:
        lines.append(f"From the cache: {', '.join(cached)}, which took {format_seconds(sum(cached.values()))} when they were made")
    lines += [f"Note: {warning}" for warning in report["warnings"]]
    quality = report["quality"]
    if quality and quality.get("n_scored"):
        lines.append(
            f"Held-out photos: {quality['psnr_mean']:.2f} dB PSNR, {quality['ssim_mean']:.3f} SSIM, "
            f"coverage {quality['coverage']:.0%}, over {quality['n_scored']} photos"
        )
    if result.out is not None:
        lines.append(f"Written to {result.out}; look with: recon view {result.out}")
    return lines
