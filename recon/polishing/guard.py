"""Photos set apart to judge whether polishing helps, and the way back when it does not.

Input: posed photos, a way to start a scene from some of them, seconds. Output: ``Guarded``: the scene to keep, and verdicts.
Guard photos are input photos; held-out photos (``--holdout``) never come here. Does not: hide a rollback: every verdict is
reported with its numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from ..fuse import Fused
from ..posed import PosedViews
from ..progress import Progress
from ..quality.score import as_8bit, psnr
from ..records import Cameras, Gaussians, Prediction, Rasterizer
from .choices import PolishConfig
from .polish import Job, Polished, begin, finish, run_until

GUARD_EVERY = 8
"""One photo in eight judges, from eight photos on; with fewer, each half judges what the other half made."""
JUDGED_AT = (0.25, 0.5, 0.75)
"""Shares of the time at which guard photos are looked at; at the last one they join the others."""
PROBE_SHARE = 0.1
"""With few photos: share of the seconds for each of the four probes (two halves, two settings)."""
TOLERANCE_DB = 0.02
"""A stage is kept when guard photos do not lose more than this."""

Start = Callable[[Sequence[int]], Fused]
"""Photos (indices) -> the scene that the stages before would have made of them alone."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One decision."""

    stage: str
    """What was judged."""
    psnr_before: float
    psnr_after: float
    """Mean over the guard photos, dB."""
    kept: bool
    guards: tuple[str, ...]
    """Names of the photos that judged."""
    note: str

    def entry(self) -> dict:
        """For report.json."""
        return {**asdict(self), "guards": list(self.guards)}


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What is left after judgement."""

    fused: Fused
    """The scene to keep."""
    start: Fused
    """What polishing began with."""
    polished: Polished | None
    """None when polishing was rolled back."""
    verdicts: tuple[Verdict, ...]
    partial: bool


def choose_guards(count: int) -> list[int]:
    """Indices of the guard photos among ``count``: the middle of every eight; none below eight."""
    if count < GUARD_EVERY:
        return []
    return [i for i in range(count) if i % GUARD_EVERY == GUARD_EVERY // 2]


def guard_psnr(
    gaussians: Gaussians, posed: PosedViews, views: Sequence[int], rasterizer: Rasterizer, cameras: Cameras | None = None
) -> float:
    """Mean PSNR of some photos, 8 bit, no alignment."""
    scores = []
    for i in views:
        image, valid = posed.pixels(i)
        camera = (cameras or posed.cameras).select([i]).to(gaussians.means.device)
        with torch.no_grad():
            drawn = rasterizer(gaussians, camera).color[0].cpu()
        scores.append(min(psnr(as_8bit(drawn), as_8bit(image), valid), 99.0))
    return sum(scores) / max(1, len(scores))


def polish_guarded(
    start: Start,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    progress: Progress,
    *,
    prediction: Prediction | None = None,
    cameras_known: bool = False,
    seed: int = 0,
    observe: Callable[[Job], None] | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Guarded:
    """Polish a scene and keep the result only where photos that had no part in it agree.

    From eight photos on, guard photos are left out until three quarters of the time, judge the scene there, and join for
    the rest. With fewer, two halves of the photos judge each other on short probes with two settings; the better setting is
    run on all photos, and stopped as early as the probes say.

    Args:
        start: makes the scene to begin with from some of the photos.
        observe: called after each step of the run on all photos (not of probes).
        timer: what the clock reads.
    """
    details = {"prediction": prediction, "cameras_known": cameras_known, "seed": seed, "progress": progress, "timer": timer}
    if choose_guards(len(posed)):
        return _with_guards(start, posed, seconds, config, rasterizer, details, observe)
    return _with_halves(start, posed, seconds, config, rasterizer, details, observe)


def _with_guards(
    start: Start,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    details: dict,
    observe: Callable[[Job], None] | None,
) -> Guarded:
    guards = choose_guards(len(posed))
    others = [i for i in range(len(posed)) if i not in guards]
    scene = start(others)
    before = guard_psnr(scene.gaussians, posed, guards, rasterizer)
    job = begin(scene.gaussians, posed, seconds, config, rasterizer, views=others, far_count=scene.shell_count, **details)
    best, best_psnr, partial = finish(job), before, False
    after, kept_at = before, 0.0
    for share in JUDGED_AT:
        partial = run_until(job, share, observe)
        after = _judged(job, guards)
        if after >= best_psnr - TOLERANCE_DB:
            best, best_psnr, kept_at = finish(job, partial=partial), after, job.clock.share
        if partial:
            break
    note = f"guard photos went from {before:.2f} to {best_psnr if kept_at else after:.2f} dB"
    if kept_at and not partial and after < best_psnr - TOLERANCE_DB:
        note += f"; the state at {kept_at:.0%} of the time was kept, because they fell to {after:.2f} dB afterwards"
    elif kept_at and not partial:
        job.use_views(range(len(posed)))
        partial = run_until(job, 1.0, observe)
        best = finish(job, partial=partial)
        note += "; then they joined the others"
    verdict = Verdict(
        stage="polish", psnr_before=before, psnr_after=best_psnr if kept_at else after, kept=kept_at > 0,
        guards=tuple(posed.names[i] for i in guards), note=note if kept_at else f"{note}: polishing was undone",
    )  # fmt: skip
    if not kept_at:
        return Guarded(fused=start(range(len(posed))), start=scene, polished=None, verdicts=(verdict,), partial=partial)
    return Guarded(fused=as_fused(best), start=scene, polished=best, verdicts=(verdict,), partial=partial)


def as_fused(polished: Polished) -> Fused:
    """A polished scene in the form that scoring and writing take."""
    return Fused(gaussians=polished.gaussians, shell_count=polished.far_count)


def _judged(job: Job, guards: Sequence[int]) -> float:
    """Guard PSNR of a job; scoring does not use up its time. Guard cameras share the corrected focal length."""
    began = job.clock.elapsed_s
    value = guard_psnr(job.parameters.gaussians(), job.posed, guards, job.rasterizer, job.cameras.cameras(job.posed.cameras))
    job.clock.forgive(job.clock.elapsed_s - began)
    return value


def gentle(config: PolishConfig) -> PolishConfig:
    """Smaller moves, no new Gaussians, stronger priors: what little evidence can carry."""
    schedule = config.schedule
    calm = replace(schedule, means_px=0.3 * schedule.means_px, scales=0.5 * schedule.scales, grow_until=0.0, sh_from=1.1)
    return replace(
        config,
        schedule=calm,
        depth_prior=3 * config.depth_prior,
        opacity_prior=3 * config.opacity_prior,
        scale_prior=3 * config.scale_prior,
    )


def _with_halves(
    start: Start,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    details: dict,
    observe: Callable[[Job], None] | None,
) -> Guarded:
    """Two-fold judgement with few photos."""
    settings = {"full": config, "gentle": gentle(config)}
    base, curves, partial = _probe(start, posed, seconds, settings, rasterizer, details)
    choice, best = max(curves.items(), key=lambda item: item[1], default=(("full", 1), -math.inf))
    whole = start(range(len(posed)))
    numbers = ", ".join(f"{name} {'halfway' if k == 0 else 'whole'} {value:.2f}" for (name, k), value in curves.items())
    note = f"halves of the photos judged each other: {numbers} dB against {base:.2f} dB before"
    if partial or best < base - TOLERANCE_DB:
        note = "stopped before the photos had judged" if partial else f"{note}: polishing was undone"
        after = base if partial else best
        verdict = Verdict(stage="polish", psnr_before=base, psnr_after=after, kept=False, guards=posed.names, note=note)
        return Guarded(fused=whole, start=whole, polished=None, verdicts=(verdict,), partial=partial)
    name, stop = choice
    left = (1 - 4 * PROBE_SHARE) * seconds
    job = begin(whole.gaussians, posed, left, settings[name], rasterizer, far_count=whole.shell_count, **details)
    partial = run_until(job, 0.5 if stop == 0 else 1.0, observe)
    result = finish(job, partial=partial)
    note += f"; '{name}' was run on all photos"
    verdict = Verdict(stage="polish", psnr_before=base, psnr_after=best, kept=True, guards=posed.names, note=note)
    return Guarded(fused=as_fused(result), start=whole, polished=result, verdicts=(verdict,), partial=partial)


def _probe(
    start: Start, posed: PosedViews, seconds: float, settings: dict[str, PolishConfig], rasterizer: Rasterizer, details: dict
) -> tuple[float, dict[tuple[str, int], float], bool]:
    """Polish each half briefly with each setting and look at the other half.

    Returns:
        Mean PSNR before, mean PSNR per (setting, 0 halfway or 1 at the end), and whether it was stopped.
    """
    halves = [list(range(0, len(posed), 2)), list(range(1, len(posed), 2))]
    before = 0.0
    curves = {(name, k): 0.0 for name in settings for k in (0, 1)}
    for use, judge in (halves, halves[::-1]):
        scene = start(use)
        before += 0.5 * guard_psnr(scene.gaussians, posed, judge, rasterizer)
        for name, setting in settings.items():
            job = begin(
                scene.gaussians,
                posed,
                PROBE_SHARE * seconds,
                setting,
                rasterizer,
                views=use,
                far_count=scene.shell_count,
                **details,
            )
            for k, share in enumerate((0.5, 1.0)):
                if run_until(job, share):
                    return before, {}, True
                curves[name, k] += 0.5 * _judged(job, judge)
    return before, curves, False
