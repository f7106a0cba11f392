"""`recon eval cameras`: how close cameras found from photos are to reference cameras.

Input: photos and a file of reference cameras. Output: a table or JSON.
Does not: change anything.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from recon.cameras.auto import CameraCandidate, cameras_of, find_cameras
from recon.cameras.camera_files import load_cameras
from recon.cameras.predicted import cameras_by_network
from recon.cameras.recipes import LADDER, QUICK, with_matches_of
from recon.cameras.result import SfmResult, blank_cameras
from recon.cameras.scoring import drawn_at_random, evenly_spread, score_cameras
from recon.errors import CannotReconstruct, UserError
from recon.files import write_json_atomic
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Cameras, Views

from .console import Quiet, answer, say, shown_progress

Finder = Callable[[Views, Progress], SfmResult]
COLUMNS = ("auc5", "auc10", "auc30", "focal_error", "ate")


@dataclass(frozen=True, kw_only=True)
class EvalCamerasArguments:
    """Score cameras against a reference: area under the recall curve of pairwise errors up to 5, 10 and 30 degrees (the larger of
    rotation and translation direction, a photo that was not placed misses), focal lengths, and centres after a similarity."""

    photos: tyro.conf.Positional[Path]
    """Folder of the photos."""
    reference: Path
    """Reference cameras: COLMAP model, transforms.json or cameras.json. Photos it does not name are used but not scored."""
    cameras: str = "auto"
    """'auto' or 'sfm' finds cameras as `recon run` does, 'network' or the name of a published network asks that one; otherwise a
    file of cameras to score."""
    matcher: Path | None = None
    """Weights of a matching network from `recon train matcher`, which 'auto' then tries too."""
    camera_network: Path | None = None
    """Weights of a camera network from `recon train cameras`: what 'network' is, and what 'auto' asks last."""
    adjust_cameras: bool = True
    """Adjust the cameras of a named network to matches of the photos, as `recon run` does."""
    subsets: tuple[int, ...] = ()
    """Also find cameras for so many photos, evenly spread among those of the reference, for example 3 6 12."""
    random_subsets: bool = False
    """Draw the photos of --subsets at random, by --seed, as careless people take them, not evenly spread."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the scores."""
    seed: int = 0
    """Seed of everything random."""
    quiet: Quiet = False
    """Show no progress."""
    json: Quiet = False
    """Print the scores as one JSON object on stdout."""


def evaluate_cameras(arguments: EvalCamerasArguments) -> int:
    """Run `recon eval cameras`."""
    if arguments.matcher is not None and arguments.cameras != "auto":
        raise UserError(f"--matcher has no part in --cameras {arguments.cameras}.", "Leave it out, or give --cameras auto.")
    if arguments.camera_network is not None and arguments.cameras not in ("auto", "network"):
        raise UserError(
            f"--camera-network has no part in --cameras {arguments.cameras}.", "Leave it out, or give --cameras network or auto."
        )
    small = [count for count in arguments.subsets if count < 2]
    if small:
        raise UserError(f"--subsets {small[0]}: cameras need at least two photos.", "Give numbers of 2 or more.")
    if arguments.random_subsets and not arguments.subsets:
        raise UserError(
            "--random-subsets without --subsets has nothing to draw.", "Say how many photos, for example --subsets 3 6 12."
        )
    find = finder_of(arguments)
    views = open_photos(arguments.photos, long_side=640).views
    reference = load_cameras(arguments.reference, views).cameras
    known = torch.nonzero(reference.registered_mask)[:, 0].tolist()
    if len(known) < 2:
        raise UserError(f"{arguments.reference} has cameras for {len(known)} of the photos.", "At least two are needed to compare.")
    given = None if find is not None else load_cameras(Path(arguments.cameras), views).cameras
    chosen = [list(range(len(views)))]
    for count in arguments.subsets:
        if count < len(known):
            drawn = arguments.random_subsets
            chosen.append(drawn_at_random(known, count, arguments.seed) if drawn else evenly_spread(known, count))
    rows = []
    with shown_progress(quiet=arguments.quiet or arguments.json) as progress:
        for photos in chosen:
            scored = None if given is None else given.select(photos)
            rows.append(score_choice(views.select(photos), reference.select(photos), scored, find, progress))
    result = {"photos": str(arguments.photos), "reference": str(arguments.reference), "cameras": arguments.cameras, "scores": rows}
    if arguments.random_subsets:
        result["random_subsets"] = {"seed": arguments.seed}
    for name, path in (("matcher", arguments.matcher), ("camera_network", arguments.camera_network)):
        if path is not None:
            result[name] = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    if arguments.out is not None:
        write_json_atomic(arguments.out, result)
    if arguments.json:
        answer(json.dumps(result, indent=2))
    else:
        show(rows)
    return 0


def score_choice(
    views: Views,
    reference: Cameras,
    given: Cameras | None,
    find: Finder | None,
    progress: Progress,
) -> dict[str, Any]:
    """Find the cameras of some photos, unless they are given, and score them; photos without any score nothing."""
    if given is not None or find is None:
        assert given is not None
        return {"given": len(views), **score_cameras(given, reference).plain(), "seconds": 0.0}
    started = time.perf_counter()
    try:
        solved = find(views, progress)
        found, told = solved.cameras, {"attempts": list(solved.attempts), "warnings": list(solved.warnings)}
    except CannotReconstruct as error:
        found, told = blank_cameras(views), {"attempts": [], "warnings": [str(error)]}
    seconds = time.perf_counter() - started
    return {"given": len(views), **score_cameras(found, reference).plain(), "seconds": round(seconds, 2), **told}


def finder_of(arguments: EvalCamerasArguments) -> Finder | None:
    """The way of finding cameras as `recon run` has it, with networks of ours where there are any; None for a file of cameras."""
    from models.registry import camera_models, load_camera_predictor, load_matcher
    from recon.pipeline import resolve_device

    device, weights, seed = resolve_device("auto"), arguments.camera_network, arguments.seed
    if arguments.cameras == "sfm":
        return lambda views, progress: find_cameras(views, progress=progress, seed=seed, ladder=QUICK)
    if arguments.cameras not in ("auto", *camera_models()):
        return None
    others: tuple[CameraCandidate, ...] = ()
    if arguments.cameras != "auto" or weights is not None:
        network = load_camera_predictor("network" if weights is not None else arguments.cameras, device, weights)
        ask = CameraCandidate(name=network.name, find=lambda views, told: cameras_by_network(views, network.predict_views, told))
        if arguments.cameras != "auto":
            return lambda views, progress: cameras_of(ask, views, progress=progress, seed=seed, adjust=arguments.adjust_cameras)
        others = (ask,)
    matcher = load_matcher(device=device, weights=arguments.matcher)
    ladder = LADDER if matcher is None else with_matches_of(matcher)
    return lambda views, progress: find_cameras(views, progress=progress, seed=seed, ladder=ladder, others=others)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and what is wrong with the photos."""
    table = Table("photos given", "placed of known", *COLUMNS, "seconds")
    for row in rows:
        numbers = ["-" if row[name] is None else f"{row[name]:.4f}" for name in COLUMNS]
        table.add_row(str(row["given"]), f"{row['placed']} of {row['photos']}", *numbers, f"{row['seconds']:.1f}")
    Console().print(table)
    for row in rows:
        for sentence in row.get("warnings", ()):
            say(f"{row['given']} photos: {sentence}")
