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
JUDGED_AT = (0.15, 0.3)
"""Shares of the time at which guard photos are looked at; at the last one they join the others. Later would cost more than it
tells: places that guard photos alone show must be built like all others."""
PROBE_SHARE, PROBE_S, MOST_PROBE_SHARE = 0.06, 1.5, 0.2
"""With few photos: share of the seconds for each probe of one half (a second setting is probed where the first does not help);
seconds that a probe wants to tell anything; most that a short polish gives for it, as a share."""
TOLERANCE_DB = 0.02
"""A stage is kept when guard photos do not lose more than this."""
FALLEN_DB = 3.0
"""What one guard photo may lose on the way, while steps are large, before that is a verdict; n of them may lose this over the
root of n. Single photos of sparse captures change by that much by luck."""
REGAINED_IN_S = 40.0
"""Seconds in which a polish regains such a fall, on two cores; a shorter one may lose less, in proportion."""
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
    finished: bool = False,
    seed: int = 0,
    observe: Callable[[Job], None] | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Guarded:
    """Polish a scene and keep the result only where photos that had no part in it agree.

    From eight photos on, guard photos are left out until ``JUDGED_AT`` ends, judge the scene on the way, and join for the
    rest; ``config.start_again`` starts again with the scene of all photos instead. With fewer, two halves of the photos judge
    each other on short probes; the setting that helps is run on all photos.

    Args:
        start: makes the scene to begin with from some of the photos.
        finished: ``start`` gives one scene, made with all photos, whatever it is asked for; what counts then is the end,
            when guard photos have joined.
        observe: called after each step of the run on all photos (not of probes).
        timer: what the clock reads.
    """
    details = {"prediction": prediction, "cameras_known": cameras_known, "seed": seed, "progress": progress, "timer": timer}
    if choose_guards(len(posed)):
        return _with_guards(start, posed, seconds, config, rasterizer, details, observe, finished)
    return _with_halves(start, posed, seconds, config, rasterizer, details, observe)


def _with_guards(
    start: Start,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    details: dict,
    observe: Callable[[Job], None] | None,
    finished: bool,
) -> Guarded:
    guards = choose_guards(len(posed))
    others = [i for i in range(len(posed)) if i not in guards]
    scene = start(others)
    before = guard_psnr(scene.gaussians, posed, guards, rasterizer)
    job = begin(scene.gaussians, posed, seconds, config, rasterizer, views=others, far_count=scene.shell_count, **details)
    least = before - FALLEN_DB * min(1.0, seconds / REGAINED_IN_S) / math.sqrt(len(guards))
    best, best_psnr, kept_at = finish(job), before, 0.0
    after, partial = before, False
    for share in JUDGED_AT:
        partial = run_until(job, share, observe)
        after = _judged(job, guards)
        if after >= best_psnr - TOLERANCE_DB:
            best, best_psnr, kept_at = finish(job, partial=partial), after, job.clock.share
        early = config.start_again and share < JUDGED_AT[-1]  # a short polish has hardly moved by then
        if partial or (after < least and not early) or (kept_at and config.start_again):
            break
    if kept_at and config.start_again and not partial:
        return _on_all(start, posed, seconds, config, rasterizer, details, observe, (kept_at, before, best_psnr))
    unseen = best_psnr if kept_at else after
    if not partial and after >= least:
        unseen = after
        job.use_views(range(len(posed)))
        partial = run_until(job, 1.0, observe)
        after = _judged(job, guards)
        note = f"guard photos went from {before:.2f} to {unseen:.2f} dB, then joined the others and reached {after:.2f} dB"
        if after >= best_psnr - TOLERANCE_DB:
            best, kept_at = finish(job, partial=partial), 1.0
            unseen = after if finished else unseen
    else:
        note = f"guard photos went from {before:.2f} to {unseen:.2f} dB"
    if kept_at and kept_at < job.clock.share:
        unseen = best_psnr
        note += f"; the state at {kept_at:.0%} of the time was kept, because they fell to {after:.2f} dB afterwards"
    verdict = Verdict(
        stage="polish", psnr_before=before, psnr_after=unseen, kept=kept_at > 0,
        guards=tuple(posed.names[i] for i in guards), note=note if kept_at else f"{note}: polishing was undone",
    )  # fmt: skip
    if not kept_at:
        return Guarded(fused=start(range(len(posed))), start=scene, polished=None, verdicts=(verdict,), partial=partial)
    return Guarded(fused=as_fused(best), start=scene, polished=best, verdicts=(verdict,), partial=partial)


def _on_all(
    start: Start,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    details: dict,
    observe: Callable[[Job], None] | None,
    judged: tuple[float, float, float],
) -> Guarded:
    """Polish the scene of all photos, after guard photos saw the one made without them gain.

    Args:
        judged: share of the seconds that this took, and PSNR of the guard photos before and after.
    """
    spent, before, after = judged
    whole = start(range(len(posed)))
    job = begin(whole.gaussians, posed, (1 - spent) * seconds, config, rasterizer, far_count=whole.shell_count, **details)
    job.shown_from = spent
    partial = run_until(job, 1.0, observe)
    result = finish(job, partial=partial)
    note = f"guard photos went from {before:.2f} to {after:.2f} dB, then the scene of all photos was polished"
    guards = tuple(posed.names[i] for i in choose_guards(len(posed)))
    verdict = Verdict(stage="polish", psnr_before=before, psnr_after=after, kept=True, guards=guards, note=note)
    return Guarded(fused=as_fused(result), start=whole, polished=result, verdicts=(verdict,), partial=partial)


def as_fused(polished: Polished) -> Fused:
    """A polished scene in the form that scoring and writing take."""
    return Fused(gaussians=polished.gaussians, shell_count=polished.far_count)


def _judged(job: Job, guards: Sequence[int]) -> float:
    """Guard PSNR of a job. Guard cameras share the corrected focal length."""
    return guard_psnr(job.parameters.gaussians(), job.posed, guards, job.rasterizer, job.cameras.cameras(job.posed.cameras))


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
    """Two-fold judgement with few photos: each half judges what a short polish made of the other.

    The second, gentler setting is probed only where the first one does not help.
    """
    timer, began = details["timer"], details["timer"]()
    halves = [list(range(0, len(posed), 2)), list(range(1, len(posed), 2))]
    scenes = [start(half) for half in halves]
    whole = start(range(len(posed)))
    making = timer() - began
    sides = list(zip(halves, halves[::-1], scenes, strict=True))
    base = sum(guard_psnr(scene.gaussians, posed, judge, rasterizer) for _, judge, scene in sides) / 2
    probe_s = min(MOST_PROBE_SHARE * seconds, max(PROBE_SHARE * seconds, PROBE_S))
    chosen, best, found = None, -math.inf, []
    for name, setting in (("full", config), ("gentle", gentle(config))):
        value = 0.0
        for use, judge, scene in sides:
            job = begin(
                scene.gaussians, posed, probe_s, setting, rasterizer, views=use, far_count=scene.shell_count,
                **details,
            )  # fmt: skip
            if run_until(job, 1.0):
                verdict = Verdict(
                    stage="polish", psnr_before=base, psnr_after=base, kept=False, guards=posed.names,
                    note="stopped before the photos had judged",
                )  # fmt: skip
                return Guarded(fused=whole, start=whole, polished=None, verdicts=(verdict,), partial=True)
            value += _judged(job, judge) / 2
        found.append(f"{name} {value:.2f}")
        best = max(best, value)
        if value >= base - TOLERANCE_DB:
            chosen = (name, setting)
            break
    note = f"halves of the photos judged each other: {', '.join(found)} dB against {base:.2f} dB before"
    if chosen is None:
        note += ": polishing was undone"
        verdict = Verdict(stage="polish", psnr_before=base, psnr_after=best, kept=False, guards=posed.names, note=note)
        return Guarded(fused=whole, start=whole, polished=None, verdicts=(verdict,), partial=False)
    left = max(0.25 * seconds, seconds - (timer() - began - making))
    job = begin(whole.gaussians, posed, left, chosen[1], rasterizer, far_count=whole.shell_count, **details)
    partial = run_until(job, 1.0, observe)
    result = finish(job, partial=partial)
    note += f"; '{chosen[0]}' was run on all photos"
    verdict = Verdict(stage="polish", psnr_before=base, psnr_after=best, kept=True, guards=posed.names, note=note)
    return Guarded(fused=as_fused(result), start=whole, polished=result, verdicts=(verdict,), partial=partial)
