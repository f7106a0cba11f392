"""`recon check`: look at photos before a run costs time.

Input: photos, as for `recon run`. Output: a table, advice in words, or JSON.
Does not: find cameras.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon.capture.check import PhotoCheck
from recon.config import PipelineConfig
from recon.files import plain
from recon.photos import PhotoSet, open_photos

from .console import Quiet, answer, say, shown_progress
from .identity import resolve_model

MOST_ROWS = 60


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """Look at photos before anything costs time: size, camera, sharpness, exposure, copies; what will be skipped and why; advice;
    and how long a run will take. Exit code 3 when no run is possible."""

    photos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS...", help_behavior_hint="")]
    """As for `recon run`."""
    config: PipelineConfig = field(default_factory=PipelineConfig)
    json: Quiet = False
    """Print everything as one JSON object on stdout."""


def check(arguments: CheckArguments) -> int:
    """Run the command."""
    from recon.pipeline import resolve_device
    from recon.planning.estimate import plan_run

    config = arguments.config
    with shown_progress(quiet=arguments.json) as progress:
        progress.update("photos", 0.0)
        found = open_photos(
            [path.expanduser() for path in arguments.photos], long_side=config.long_side, holdout=config.holdout,
            keep_gps=config.keep_gps, capture=config.capture,
            check=progress.check, tell=lambda text: progress.update("photos", 0.0, text),
        )  # fmt: skip
        progress.update("photos", 1.0)
        device = resolve_device(config.device)
        plan = plan_run(found.views, config, device, model=resolve_model(config, device))
    if arguments.json:
        answer(json.dumps(plain({"check": found.check, "skipped": found.skipped, "videos": found.videos, "plan": plan}), indent=2))
    else:
        Console().print(table(found.check))
        for line in lines(found):
            say(line)
        say(plan.sentence())
    return 0 if len(found.views) >= 2 else 3


def table(check: PhotoCheck) -> Table:
    """One row per photo; of many, those that are doubtful first."""
    drawn = Table()
    for column in ("photo", "size", "kind", "camera", "focal px", "blur", "brightness", "doubts"):
        drawn.add_column(column, overflow="fold")
    ordered = check.photos if len(check.photos) <= MOST_ROWS else sorted(check.photos, key=lambda photo: not photo.words)
    for photo in ordered[:MOST_ROWS]:
        doubts = ", ".join(photo.words) + (f" of {photo.same_as}" if photo.same_as else "")
        focal = "" if photo.focal_px is None else f"{photo.focal_px:.0f}"
        cells = (photo.name, f"{photo.width}x{photo.height}", photo.kind, photo.camera, focal)
        drawn.add_row(*map(escape, cells), f"{photo.blur:.2f}", f"{photo.brightness:.2f}", escape(doubts))
    return drawn


def lines(found: PhotoSet) -> list[str]:
    """What a person should know, one sentence each."""
    said = [found.check.summary]
    said += [f"{video['name']}: {video['kept']} of {video['frames']} frames kept." for video in found.videos]
    said += [f"Skipped: {name} {reason}." for name, reason in found.skipped[:20]]
    if len(found.skipped) > 20:
        said.append(f"Skipped: {len(found.skipped) - 20} more files.")
    return said + [f"Advice: {sentence}" for sentence in found.check.advice]
