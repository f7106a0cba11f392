"""Joint optimisation of Gaussians, exposure and cameras through the rasteriser, within a number of seconds.

Input: a scene, posed photos, a rasteriser, seconds. Output: ``Polished``: the scene, cameras, exposure and what happened.
Does not: judge itself (``recon.polishing.guard`` does).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..posed import PosedViews
from ..progress import Cancelled, Progress
from ..records import Cameras, Gaussians, Prediction, Rasterizer, RasterOptions, Rendering
from . import growth
from .adam import take_step
from .cameras import CameraState
from .choices import MOST_GAUSSIANS, PolishConfig, default_count
from .exposure import Exposure
from .losses import photo_loss
from .parameters import NAMES, Parameters, extend, keep, make_parameters, with_sh
from .priors import DepthPrior, prior_weight
from .schedule import Clock, factor_at, rates_at, wanted_count
from .surfels import surfel_loss
from .targets import Targets, TilePicker, ViewPicker

logger = logging.getLogger(__name__)

MOST_OPAQUE = 0.9995
"""Opacities stay below this when they make up for Gaussians that were left out."""
UNEVEN = 0.1
"""Photos whose brightness spreads more than this (in logarithms, 0.15 stops) had their exposure changed by the camera; less is
what light does from view to view, and correcting it would take it out of the scene."""


@dataclass(frozen=True, kw_only=True)
class Polished:
    """What a polish made."""

    gaussians: Gaussians
    far_count: int
    """How many Gaussians at the end belong to the far shell."""
    cameras: Cameras
    """Of all photos given, as corrected."""
    zoom: Tensor
    """Factor on the focal length, per photo."""
    exposure: Exposure
    history: tuple[dict, ...]
    """Per addition of Gaussians: seconds, steps, Gaussians, how much photos were shrunk, squared error."""
    camera_changes: dict[str, float]
    partial: bool = False
    """True when it was stopped before its time."""


@dataclass
class Job:
    """A polish in progress."""

    posed: PosedViews
    views: list[int]
    """Photos that are optimised for."""
    rasterizer: Rasterizer
    config: PolishConfig
    clock: Clock
    progress: Progress
    targets: Targets
    parameters: Parameters
    cameras: CameraState
    exposure: Exposure
    picker: ViewPicker
    tiles: TilePicker
    depth: DepthPrior | None
    generator: torch.Generator
    first_count: int
    last_count: int
    next_growth: float
    balance: bool = False
    """Brightness and white balance of every photo are found too."""
    spacing: Tensor = field(default_factory=lambda: torch.zeros(0))
    """World units that a pixel covers at each Gaussian."""
    shown_from: float = 0.0
    """Share of the stage that was done before, as progress shows it."""
    steps: int = 0
    squared_error: float = 0.0
    history: list[dict] = field(default_factory=list)

    def use_views(self, views: Sequence[int]) -> None:
        """Optimise for these photos from now on."""
        self.views = list(views)
        self.picker = ViewPicker(self.views)


def begin(
    gaussians: Gaussians,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    *,
    progress: Progress | None = None,
    views: Sequence[int] | None = None,
    prediction: Prediction | None = None,
    cameras_known: bool = False,
    far_count: int = 0,
    seed: int = 0,
    timer: Callable[[], float] = time.perf_counter,
) -> Job:
    """Set up a polish; its clock starts here.

    Args:
        seconds: time to spend, > 0.
        views: photos to optimise for; None takes all.
        prediction: depth per photo of ``posed``, for the prior; None does without.
        cameras_known: keeps cameras as they are.
        far_count: how many Gaussians at the end belong to the far shell.
        timer: what the clock reads.
    """
    clock = Clock(seconds, timer)
    device = gaussians.means.device
    chosen = list(range(len(posed))) if views is None else list(views)
    cameras = posed.cameras.to(device)
    last = min(default_count(seconds, prior_weight(len(chosen))), config.max_gaussians or MOST_GAUSSIANS)
    distance = torch.cdist(gaussians.means[:: max(1, len(gaussians) // 2000)].float(), cameras.centers_world.float()).median()
    refine = config.options.refine_cameras and not cameras_known and len(chosen) > 2
    job = Job(
        posed=posed,
        views=chosen,
        rasterizer=rasterizer,
        config=config,
        clock=clock,
        progress=progress or Progress(),
        targets=Targets(posed, device),
        parameters=make_parameters(gaussians, far_count),
        cameras=CameraState(cameras, distance=float(distance), move=refine, zoom=refine),
        exposure=Exposure(len(posed), device=device),
        picker=ViewPicker(chosen),
        tiles=TilePicker(config.schedule.tile_share, seed),
        depth=DepthPrior(prediction, device) if prediction is not None else None,
        generator=torch.Generator().manual_seed(seed),
        first_count=len(gaussians),
        last_count=max(last, len(gaussians)),
        next_growth=config.schedule.grow_from,
    )
    job.spacing = spacing_of(job)
    job.balance = config.options.match_exposure and len(chosen) > 2 and exposure_spread(job) > UNEVEN
    return job


def exposure_spread(job: Job) -> float:
    """How much brighter some photos are than the scene they show: deviation over the photos of the log ratio."""
    ratios = []
    for view in job.views:
        target = job.targets.at(view, 4)
        with torch.no_grad():
            drawn = job.rasterizer(job.parameters.gaussians(), camera_of(job, view, 4)).color[0]
        seen = float((target.image.sum() / (drawn * target.weight[..., None]).sum().clamp_min(1e-6)).clamp(1e-3, 1e3))
        ratios.append(math.log(seen))
    return float(torch.tensor(ratios).std())


def spacing_of(job: Job) -> Tensor:
    """World units that a pixel covers at each Gaussian, seen from the nearest camera."""
    cameras = job.cameras
    distances = torch.cdist(job.parameters.values["means"], cameras.T_world_cam[job.views, :3, 3])
    return (distances / cameras.K[job.views, 0, 0]).amin(1)


@contextmanager
def few_torch_threads() -> Iterator[None]:
    """Let torch use one thread for a while: its operations here are too small to share, and waiting threads cost time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def optimise(job: Job, until: float, observe: Callable[[Job], None] | None = None) -> None:
    """Take steps until a share of the clock has passed.

    Args:
        observe: called after each step.
    Raises:
        Cancelled: somebody asked to stop; the job's parameters are valid.
    """
    with few_torch_threads():
        while (share := job.clock.share) < until:
            if share >= job.config.schedule.sh_from:
                job.parameters = with_sh(job.parameters, (job.config.options.polish_sh + 1) ** 2)
            step(job, share)
            if share >= job.next_growth:
                grow(job, share)
                job.next_growth = share + job.config.schedule.grow_every
            if job.steps % 16 == 0:
                shown = job.shown_from + (1 - job.shown_from) * share
                job.progress.update("polish", shown, f"{len(job.parameters):,} Gaussians")
            if observe is not None:
                observe(job)


def camera_of(job: Job, view: int, factor: int, *, follow: bool = False) -> Cameras:
    """One camera at a shrunk size; ``follow`` collects gradients for it."""
    width, height = job.targets.size(view, factor)
    T_world_cam = job.cameras.T_world_cam[view].clone().requires_grad_(follow)
    K = job.targets.scaled_K(job.cameras.K[view], view, factor).requires_grad_(follow)
    return Cameras(T_world_cam=T_world_cam[None], K=K[None], width=(width,), height=(height,))


def step(job: Job, share: float) -> None:
    """Draw one photo, or the tiles of it that differ most, compare, and move what was seen."""
    schedule, config = job.config.schedule, job.config
    factor = factor_at(share, schedule)
    view = job.picker.next()
    target = job.targets.at(view, factor)
    follow = job.cameras.moving and schedule.cameras_from <= share
    leaves, camera = job.parameters.leaves(), camera_of(job, view, factor, follow=follow)
    tiles = job.tiles.choose(view, target) if factor == 1 else None
    few = prior_weight(len(job.views))
    kept = random_part(job, few * config.drop * share)
    drawn = leaves if kept is None else replace(leaves, opacities=(leaves.opacities.detach() * kept).clamp(max=MOST_OPAQUE))
    if kept is not None:
        drawn.opacities.requires_grad_()
    rendering = job.rasterizer(drawn, camera, RasterOptions(tiles=tiles))
    color = rendering.color[0].detach()
    shown = job.exposure.apply(color, view)
    if tiles is not None:
        shown = torch.where(job.tiles.pixels(tiles, target)[..., None], shown, target.image)
    loss = photo_loss(shown, target, config.loss)
    gradient = job.exposure.step(view, color, loss.gradient, schedule.exposure_rate if job.balance else 0.0)
    outputs, incoming = [rendering.color], [gradient[None]]
    if job.depth is not None and few > 0:
        weight = config.depth_prior * few * (1 - share)
        pull = job.depth.gradient(view, rendering.depth[0].detach(), rendering.alpha[0].detach(), weight)
        outputs, incoming = [*outputs, rendering.depth], [*incoming, pull[None]]
    if config.options.surfels:
        flatness = surfel_loss(drawn, camera, rendering.depth[0], rendering.alpha[0])
        outputs, incoming = [*outputs, flatness], [*incoming, torch.ones_like(flatness)]
    inputs = [getattr(drawn, name) for name in NAMES]
    gradients = torch.autograd.grad(outputs, [*inputs, camera.T_world_cam, camera.K] if follow else inputs, incoming)
    if kept is not None:
        gradients = (*gradients[:3], gradients[3] * kept, *gradients[4:])
    count = max(1, len(job.parameters))
    rates = rates_at(share, schedule, opacity_pull=few * config.opacity_prior / count, scale_pull=few * config.scale_prior / count)
    take_step(job.parameters, gradients[:5], job.spacing, rates)
    if follow:
        width, height = job.targets.size(view, 1)
        g_K = gradients[6][0] * gradients[6].new_tensor([camera.width[0] / width, camera.height[0] / height, 1.0])[:, None]
        job.cameras.step(view, gradients[5][0], g_K, 1 - share)
    if factor == 1:
        job.tiles.tell(view, shown, target, tiles)
    squared = loss.squared_error if tiles is None else job.tiles.mean_error(view)
    job.picker.tell(view, squared)
    job.steps += 1
    job.squared_error += 0.05 * (squared - job.squared_error) if job.steps > 1 else squared
    if job.steps % len(job.views) == 0:
        job.exposure.center()
        job.cameras.settle(job.views)


def random_part(job: Job, drop: float) -> Tensor | None:
    """Factor ``N`` on opacities that leaves out a random share of the Gaussians and makes up for them; None leaves none out.

    No Gaussian can then rely on its neighbours to hide it, which is how few photos are learned by heart.
    Source: Park et al., "DropGaussian: Structural Regularization for Sparse-view Gaussian Splatting", CVPR 2025, section 3.2.
    """
    if drop <= 0:
        return None
    kept = torch.rand(len(job.parameters), generator=job.generator) >= drop
    return (kept.float() / (1 - drop)).to(job.parameters.raw.device)


def grow(job: Job, share: float) -> None:
    """Drop idle Gaussians and put new ones where photos differ most."""
    schedule, values = job.config.schedule, job.parameters.values
    dropped = growth.idle(values["opacities"], values["scales"])
    if bool(dropped.any()) and not bool(dropped.all()):
        job.parameters = keep(job.parameters, torch.nonzero(~dropped)[:, 0])
    if share <= schedule.grow_until:
        missing = wanted_count(share + schedule.grow_every, job.first_count, job.last_count, schedule) - len(job.parameters)
        worst = sorted(job.views, key=lambda v: -job.picker.error[v])[: max(4, len(job.views) // 3)]
        total = max(sum(job.picker.error[v] for v in worst), 1e-12)
        before = len(job.parameters)
        for view in worst:
            room = missing - (len(job.parameters) - before)
            count = min(room, round(missing * job.picker.error[view] / total))
            if count > 0:
                add_from(job, view, factor_at(share, schedule), count)
    job.spacing = spacing_of(job)
    job.history.append(
        {
            "seconds": round(job.clock.elapsed_s, 2),
            "steps": job.steps,
            "gaussians": len(job.parameters),
            "shrunk": factor_at(share, schedule),
            "train_psnr": round(-10 * math.log10(max(job.squared_error, 1e-10)), 2),
        }
    )


def add_from(job: Job, view: int, factor: int, count: int) -> None:
    """Place Gaussians for the errors of one photo."""
    camera, target = camera_of(job, view, factor), job.targets.at(view, factor)
    with torch.no_grad():
        drawn = job.rasterizer(job.parameters.gaussians(), camera, RasterOptions(median_depth=True))
    corrected = Rendering(
        color=job.exposure.apply(drawn.color[0], view)[None], alpha=drawn.alpha, depth=drawn.depth, median_depth=drawn.median_depth
    )
    job.parameters = extend(job.parameters, growth.propose(corrected, target, camera, count, job.generator))


def polish(
    gaussians: Gaussians, posed: PosedViews, seconds: float, config: PolishConfig, rasterizer: Rasterizer, **details: Any
) -> Polished:
    """Optimise a scene for a number of seconds; stopping it early gives what there is.

    Args:
        details: as ``begin`` takes them.
    """
    job = begin(gaussians, posed, seconds, config, rasterizer, **details)
    return finish(job, partial=run_until(job, 1.0))


def run_until(job: Job, until: float, observe: Callable[[Job], None] | None = None) -> bool:
    """Run ``optimise``; returns True when it was stopped on request, with the job still in order."""
    try:
        optimise(job, until, observe)
    except (Cancelled, KeyboardInterrupt):
        logger.info("polish stopped on request after %.1f s", job.clock.elapsed_s)
        return True
    return False


def finish(job: Job, *, partial: bool = False) -> Polished:
    """Take the result out of a job."""
    return Polished(
        gaussians=job.parameters.gaussians(),
        far_count=job.parameters.far_count,
        cameras=job.cameras.cameras(job.posed.cameras),
        zoom=job.cameras.log_zoom.exp()[job.cameras.group].cpu(),
        exposure=job.exposure,
        history=tuple(job.history),
        camera_changes=job.cameras.changes(job.views) if job.cameras.moving else {},
        partial=partial,
    )
