"""The whole path: photos in, a scene with its report out.

Input: photos, one ``PipelineConfig`` and the tools of the other rooms as callables. Output: ``Result`` and, when asked, an
OUT folder written in one piece. Does not: know how networks or rasterisers work, or print.

    photos -> cameras -> (held-out photos leave here) -> depth -> Gaussians -> (polish) -> score -> write
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import lens, photos
from .cameras.diagnosis import too_few_placed
from .cameras.result import FOUND, SfmResult
from .cameras.stage import find_cameras
from .capture.known import KnownDistance
from .config import PipelineConfig
from .depth_range import choose_depth_range
from .editing import strongest
from .errors import CannotReconstruct, UserError
from .files import plain
from .first_look import first_look, worth_a_look
from .fuse import Fused, default_budget, fuse
from .fusing.recolor import recolor
from .neighbours import choose_neighbours
from .outputs import check_writable, write_outputs
from .planning.estimate import fill_actual, kept_within, plan_run, remember
from .planning.memory import FRUGAL_CACHE_BYTES
from .polishing.choices import PolishConfig, for_refined
from .polishing.stage import run_polish, zoom_others, zoomed
from .polishing.targets import Targets
from .posed import PosedViews
from .progress import Progress
from .quality.report import build_report
from .quality.score import ViewScore, score_views, summarize
from .records import Prediction, Rasterizer, Scene
from .refining import refine, with_degree
from .resume.keys import stage_keys
from .resume.out_format import finished_report
from .resume.store import open_store
from .run_records import Capture, Ledger, Result, Tools

logger = logging.getLogger(__name__)

MATCHING_VIEWS = 4
"""Neighbours against which a view's depth is swept."""
TARGET_CACHE_BYTES = 256 << 20
"""Prepared photos that refinement holds; others are prepared again each round."""
SCORE_SIDE = 640
"""Long side at which held-out photos are scored."""


def run_pipeline(
    source: Path | Sequence[Path], out: Path | None, config: PipelineConfig, tools: Tools, progress: Progress
) -> Result:
    """Reconstruct a scene from photos.

    Args:
        source: a folder of photos, or files.
        out: folder to write, replaced as a whole at the end; None writes nothing.
        progress: told about every stage; raises ``Cancelled`` when asked to stop, and nothing is left behind.
    Raises:
        CannotReconstruct: the photos do not allow it; says why and what would help.
        UserError: an argument cannot be used.
    """
    if config.refine is not None and config.refine < 0:
        raise UserError(f"--refine {config.refine}: wanted a number of rounds.", "Give 0 for none, or leave it out.")
    if config.capture.scale_from is not None:
        KnownDistance.parse(config.capture.scale_from)
    if out is not None:
        check_writable(out)
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    ledger = Ledger()
    rasterizer = tools.load_rasterizer(device)
    identity = tools.identify(config, device) if config.resume and tools.identify is not None else None
    store = open_store(identity is not None)
    found = look_at_photos(source, config, ledger, progress)
    keys = stage_keys(found.views, config, identity or "", device)
    plan = plan_run(found.views, config, device, model=tools.resolve_model(config, device) if tools.resolve_model else None)
    progress.say(plan.sentence(store.ready(keys.kept(config.polish > 0))))
    config = kept_within(config, plan)

    def cameras() -> SfmResult:
        with ledger.stage("cameras"):
            return find_cameras(found.views, config, tools, device, ledger, progress)

    solved = store.keep("cameras", keys.cameras, ledger, cameras)
    progress.offer("cameras", solved, found.views)
    capture = place_photos(found, solved, config, ledger)
    if progress.has_taker and worth_a_look(config.long_side) and "depth" not in store.ready(keys.kept(config.polish > 0)):
        with ledger.stage("first look"):
            progress.update("depth", 0.0, "a first look")
            look = first_look(capture, tools, device, progress)
            if look is not None:
                progress.offer("look", look)

    def depth() -> Prediction:
        return store.keep(
            "depth", keys.depth, ledger, lambda: predict_depth(capture.inputs, config, tools, device, ledger, progress)
        )

    before: list[ViewScore] = []
    if config.polish > 0:

        def polished() -> tuple:
            done, moved, scored = polish_gaussians(capture, depth(), config, tools, rasterizer, device, ledger, progress)
            return done, moved.solved, moved.inputs.cameras, moved.held_out.cameras, scored

        whole = store.keep("polish", keys.polish, ledger, polished, worth=lambda _: not ledger.choices["polish"]["partial"])
        fused, solved, *moved, before = whole
        inputs, held_out = (replace(p, cameras=c) for p, c in zip((capture.inputs, capture.held_out), moved, strict=True))
        capture = replace(capture, solved=solved, inputs=inputs, held_out=held_out)
    else:

        def gaussians() -> Fused:
            return make_gaussians(capture.inputs, depth(), config, tools, rasterizer, device, ledger, progress)

        fused = store.keep("gaussians", keys.gaussians, ledger, gaussians)
        progress.offer("scene", Scene(gaussians=fused.gaussians, cameras=capture.inputs.cameras))
    if out is not None and not store.computed and store.resumed:
        earlier = finished_report(out, keys.result)
        if earlier is not None:
            progress.update("write", 1.0, "already there")
            scene = Scene(gaussians=fused.gaussians, cameras=capture.inputs.cameras, provenance={"report": earlier})
            return Result(scene=scene, report=earlier, out=out, repeated=True)
    if store.trouble:
        ledger.warnings.append(store.trouble)
    scores: list[ViewScore] = []
    with ledger.stage("score"):
        progress.update("score", 0.0)
        if config.holdout is not None:
            scores = score_views(fused, capture.held_out, capture.lost_held_out, rasterizer)
    report = build_report(capture, fused, scores, found.skipped, config, ledger, device)
    report |= {"run_key": keys.result, "stages": {"computed": store.computed, "from_cache": store.resumed}}
    report["photos"] |= {"check": plain(found.check), "videos": found.videos}
    if config.polish > 0:
        report["quality_before_polish"] = summarize(before)
    report["plan"] = plan.entry()
    fill_actual(report)
    scene = Scene(gaussians=fused.gaussians, cameras=capture.inputs.cameras, provenance={"report": report})
    if out is not None:
        with ledger.stage("write"):
            write_outputs(out, capture, fused, report, ledger, config, tools, rasterizer, progress)
    ran = [*store.computed, "photos", "score", "write"]
    remember(found.views, config, device, plan, ledger.seconds, ran=ran, model=ledger.choices.get("model"))
    return Result(scene=scene, report=report, out=out)


def resolve_device(wanted: str) -> str:
    """'auto' becomes CUDA when there is one.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("--device cuda: torch finds no CUDA device.", "Use --device cpu, or install a CUDA build of torch.")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and available) else "cpu"


def prepare_capture(
    source: Path | Sequence[Path], config: PipelineConfig, tools: Tools, device: str, ledger: Ledger, progress: Progress
) -> tuple[Capture, tuple[tuple[str, str], ...]]:
    """Open the photos, find or load their cameras, and set the held-out photos apart."""
    found = look_at_photos(source, config, ledger, progress)
    with ledger.stage("cameras"):
        solved = find_cameras(found.views, config, tools, device, ledger, progress)
    return place_photos(found, solved, config, ledger), found.skipped


def look_at_photos(source: Path | Sequence[Path], config: PipelineConfig, ledger: Ledger, progress: Progress) -> photos.PhotoSet:
    """Open the photos, and say what they look like before anything costs time."""
    with ledger.stage("photos"):
        progress.update("photos", 0.0)
        found = photos.open_photos(
            source, long_side=config.long_side, holdout=config.holdout, keep_gps=config.keep_gps, capture=config.capture,
            check=progress.check, tell=lambda text: progress.update("photos", 0.0, text),
        )  # fmt: skip
        if len(found.views) < 2:
            raise CannotReconstruct(
                "Only one readable photo was given; depth needs at least two photos from different places.",
                "Take 8 to 60 photos while walking around the scene.",
            )
        ledger.warnings += [f"{name} was skipped: {reason}" for name, reason in found.skipped]
        ledger.choices["capture"] = known_facts(found, config)
        progress.update("photos", 1.0, found.check.summary)
        for sentence in found.check.advice:
            progress.say(sentence)
        return found


def known_facts(found: photos.PhotoSet, config: PipelineConfig) -> dict[str, Any]:
    """What the user said about the photos, as it was understood, for the report."""
    masked = [view.name for view in found.views if view.read_mask is not None]
    lenses = {view.name: list(view.intrinsics) for view in found.views if view.intrinsics is not None}
    shared = len({view.camera_id for view in found.views}) == 1
    return {"masked": masked, "intrinsics": lenses, "one_camera": shared, "one_camera_said": config.capture.shared_camera}


def place_photos(found: photos.PhotoSet, solved: SfmResult, config: PipelineConfig, ledger: Ledger) -> Capture:
    """Split the photos into those that may be used and those that are scored."""
    views, registered = found.views, solved.cameras.registered_mask.tolist()
    lost = [v.name for v, ok in zip(views, registered, strict=True) if not ok]
    if lost:
        ledger.warnings.append(f"{len(lost)} of {len(views)} photos could not be placed: {', '.join(lost)}.")
    used = [i for i, v in enumerate(views) if registered[i] and not v.holdout]
    if len(used) < 2:
        finding = too_few_placed(views, registered)
        raise CannotReconstruct(" ".join((finding.reason, *solved.warnings)), finding.remedy)
    solved = keep_points_of(solved, used)
    scored = [i for i, v in enumerate(views) if registered[i] and v.holdout]
    inputs = lens.posed_views(views, solved, used, long_side=config.long_side)
    return Capture(
        views=views,
        solved=solved,
        inputs=replace(inputs, cache_bytes=FRUGAL_CACHE_BYTES) if config.fuse.frugal else inputs,
        held_out=lens.posed_views(views, solved, scored, long_side=SCORE_SIDE),
        lost_held_out=tuple(v.name for i, v in enumerate(views) if v.holdout and not registered[i]),
    )


def keep_points_of(solved: SfmResult, used: Sequence[int]) -> SfmResult:
    """Drop sparse points that fewer than two input photos observed, so that held-out photos shape nothing."""
    return solved.observed_by(used)


def predict_depth(
    posed: PosedViews, config: PipelineConfig, tools: Tools, device: str, ledger: Ledger, progress: Progress
) -> Prediction:
    """Choose neighbours and depth ranges, then run the depth source."""
    with ledger.stage("depth"):
        progress.update("depth", 0.0, "choosing neighbours")
        predictor = tools.load_predictor(config.model, device=device, weights=config.weights)
        ledger.choices["model"] = getattr(predictor, "name", config.model)
        neighbours = choose_neighbours(posed, count=MATCHING_VIEWS)
        lonely = [posed.names[i] for i, chosen in enumerate(neighbours) if not chosen]
        if len(lonely) == len(posed):
            raise CannotReconstruct("No two photos see the same place.", "Take photos that overlap by two thirds or more.")
        if lonely:
            ledger.warnings.append(f"No other photo overlaps with: {', '.join(lonely)}.")
        ranges = choose_depth_range(posed)
        ledger.choices["neighbours"] = {posed.names[i]: [posed.names[j] for j in chosen] for i, chosen in enumerate(neighbours)}
        ledger.choices["depth_range"] = {name: ranges[i].tolist() for i, name in enumerate(posed.names)}
        prediction = predictor(posed, neighbours, ranges, progress)
        progress.update("depth", 1.0)
        return prediction


def make_gaussians(
    posed: PosedViews,
    prediction: Prediction,
    config: PipelineConfig,
    tools: Tools,
    rasterizer: Rasterizer,
    device: str,
    ledger: Ledger,
    progress: Progress,
) -> Fused:
    """Take the Gaussians a network made; else fuse the depth maps and fit what comes out to the photos."""
    with ledger.stage("gaussians"):
        if prediction.gaussians is not None:
            made, most = prediction.gaussians, config.fuse.max_gaussians
            ledger.choices["gaussians"] = {"source": "network", "made": len(made)}
            fused = Fused(gaussians=made if most is None else strongest(made, most), shell_count=0)
            return fit_to_photos(fused, posed, config, tools, rasterizer, device, ledger, progress) if config.refine else fused
        head = tools.load_splat_head(device=device)
        fused = fuse(posed, prediction, head, config.fuse, progress, device=device)
        fused = fit_to_photos(fused, posed, config, tools, rasterizer, device, ledger, progress)
        progress.update("gaussians", 1.0)
        return fused


def fit_to_photos(
    fused: Fused,
    posed: PosedViews,
    config: PipelineConfig,
    tools: Tools,
    rasterizer: Rasterizer,
    device: str,
    ledger: Ledger,
    progress: Progress,
) -> Fused:
    """Refine a scene by what the photos say about it, or match its colours where refinement is not wanted or not there."""
    updater = tools.load_updater(device=device) if config.refine != 0 else None
    if updater is not None:
        targets = Targets(posed, device, FRUGAL_CACHE_BYTES if config.fuse.frugal else TARGET_CACHE_BYTES)
        rounds = updater.rounds if config.refine is None else config.refine
        start = with_degree(fused.gaussians, config.refine_sh)
        refined, errors = refine(start, targets, rasterizer, updater, rounds=rounds, progress=progress)
        psnr = [round(-10 * math.log10(max(error, 1e-10)), 2) for error in errors]
        ledger.choices["refinement"] = {"rounds": rounds, "input_psnr_before_each": psnr}
        return replace(fused, gaussians=refined)
    if config.refine:
        raise UserError(f"--refine {config.refine}: no weights for refinement are here.", "Reinstall recon, or leave it out.")
    if config.fuse.recolor_steps:
        matched = recolor(fused.gaussians, posed, rasterizer, steps=config.fuse.recolor_steps, progress=progress)
        return replace(fused, gaussians=matched)
    return fused


def polish_gaussians(
    capture: Capture,
    prediction: Prediction,
    config: PipelineConfig,
    tools: Tools,
    rasterizer: Rasterizer,
    device: str,
    ledger: Ledger,
    progress: Progress,
) -> tuple[Fused, Capture, list[ViewScore]]:
    """Make the scene, polish it under guard, and carry corrected cameras over.

    Returns:
        The scene, the capture with its cameras as corrected, and the scores of held-out photos before.
    """
    if prediction.gaussians is not None:
        ledger.warnings.append("Polishing starts from the network's depth; the Gaussians it made itself are not used.")

    def make(posed: PosedViews, depth: Prediction) -> Fused:
        made = make_gaussians(posed, depth, config, tools, rasterizer, device, ledger, progress)
        progress.offer("scene", Scene(gaussians=made.gaussians, cameras=posed.cameras))
        return made

    polishing = PolishConfig(options=config.polishing, max_gaussians=config.fuse.max_gaussians or default_budget(device))
    if config.refine != 0 and tools.load_updater(device=device) is not None:
        polishing = for_refined(polishing, config.polish)
    with ledger.stage("polish"):
        done = run_polish(
            capture.inputs, prediction, make, config.polish, polishing, rasterizer, progress,
            cameras_known=ledger.choices["cameras"]["source"] not in FOUND, seed=config.seed,
        )  # fmt: skip
    if done.partial:
        progress.resume()
    ledger.choices["polish"] = done.report
    ledger.warnings += done.warnings
    held_out = capture.held_out
    with ledger.stage("score"):
        before = [] if config.holdout is None else score_views(done.start, held_out, capture.lost_held_out, rasterizer)
    if done.zoom is not None:
        names = capture.views.names
        used = [names.index(name) for name in capture.inputs.names]
        cameras = zoomed(capture.solved.cameras, used, done.zoom, done.posed.cameras.T_world_cam)
        held_out = replace(held_out, cameras=zoom_others(held_out.cameras, done.zoom))
        capture = replace(capture, solved=replace(capture.solved, cameras=cameras), inputs=done.posed, held_out=held_out)
    return done.fused, capture, before
