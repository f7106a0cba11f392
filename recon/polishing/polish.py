"""Joint optimisation of Gaussians, exposure and cameras through the rasteriser, within a number of seconds.

Input: a scene, posed photos, a rasteriser, seconds. Output: ``Polished``: the scene, cameras, exposure and what happened.
Does not: judge itself (``recon.polishing.guard`` does).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..posed import PosedViews
from ..progress import Progress
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions, Rendering
from . import growth
from .adam import take_step
from .exposure import Exposure
from .losses import LossConfig, photo_loss
from .parameters import NAMES, Parameters, extend, keep, make_parameters, with_sh
from .schedule import Clock, ScheduleConfig, factor_at, rates_at, wanted_count
from .targets import Targets, ViewPicker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """How a scene is polished."""

    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    polish_gaussians: int | None = None
    """Gaussians at the end of polishing; None lets the seconds decide."""
    polish_sh: int = 1
    """SH degree at the end of polishing, 0 to 3."""


@dataclass(frozen=True, kw_only=True)
class Polished:
    """What a polish made."""

    gaussians: Gaussians
    cameras: Cameras
    exposure: Exposure
    history: tuple[dict, ...]
    """Per addition of Gaussians: seconds, steps, Gaussians, picture size, PSNR of the photos looked at."""
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
    T_world_cam: Tensor
    K: Tensor
    exposure: Exposure
    picker: ViewPicker
    generator: torch.Generator
    spacing: Tensor
    first_count: int
    last_count: int
    next_growth: float
    steps: int = 0
    squared_error: float = 0.0
    history: list[dict] = field(default_factory=list)


def default_count(seconds: float, current: int) -> int:
    """Gaussians that a polish of so many seconds can bring into shape."""
    return round(min(60_000, max(8_000, 6_000 + 400 * seconds)))


def begin(
    gaussians: Gaussians,
    posed: PosedViews,
    seconds: float,
    rasterizer: Rasterizer,
    config: PolishConfig,
    progress: Progress,
    *,
    views: Sequence[int] | None = None,
    seed: int = 0,
) -> Job:
    """Set up a polish; its clock starts here."""
    device = gaussians.means.device
    chosen = list(range(len(posed))) if views is None else list(views)
    parameters = make_parameters(gaussians)
    cameras = posed.cameras.to(device)
    last = config.polish_gaussians or default_count(seconds, len(gaussians))
    job = Job(
        posed=posed,
        views=chosen,
        rasterizer=rasterizer,
        config=config,
        clock=Clock(seconds),
        progress=progress,
        targets=Targets(posed, device),
        parameters=parameters,
        T_world_cam=cameras.T_world_cam.float().clone(),
        K=cameras.K.float().clone(),
        exposure=Exposure(len(posed), device=device),
        picker=ViewPicker(chosen),
        generator=torch.Generator().manual_seed(seed),
        spacing=torch.zeros(0),
        first_count=len(gaussians),
        last_count=max(last, len(gaussians)),
        next_growth=config.schedule.grow_from,
    )
    job.spacing = spacing_of(job)
    return job


def spacing_of(job: Job) -> Tensor:
    """World units that a pixel covers at each Gaussian, seen from the nearest camera."""
    means = job.parameters.values["means"]
    centers, focal = job.T_world_cam[job.views, :3, 3], job.K[job.views, 0, 0]
    return (torch.cdist(means, centers) / focal).amin(1)


def optimise(job: Job, until: float, observe: Callable[[Job], None] | None = None) -> None:
    """Take steps until a share of the clock has passed.

    Args:
        observe: called after each step.
    Raises:
        Cancelled: somebody asked to stop; the job's parameters are valid.
    """
    while (share := job.clock.share) < until:
        raise_degree(job, share)
        step(job, share)
        if share >= job.next_growth:
            grow(job, share)
            job.next_growth = share + job.config.schedule.grow_every
        if job.steps % 16 == 0:
            job.progress.update("polish", share, f"{len(job.parameters):,} Gaussians")
        if observe is not None:
            observe(job)


def camera_of(job: Job, view: int, factor: int) -> Cameras:
    """One camera at a shrunk size."""
    width, height = job.targets.size(view, factor)
    K = job.targets.scaled_K(job.K[view], view, factor)
    return Cameras(T_world_cam=job.T_world_cam[view][None], K=K[None], width=width, height=height)


def step(job: Job, share: float) -> None:
    """Draw one photo, compare, and move what was seen."""
    schedule = job.config.schedule
    factor = factor_at(share, schedule)
    view = job.picker.next()
    target = job.targets.at(view, factor)
    leaves = job.parameters.leaves()
    rendering = job.rasterizer(leaves, camera_of(job, view, factor), RasterOptions())
    color = rendering.color[0].detach()
    loss = photo_loss(job.exposure.apply(color, view), target, job.config.loss)
    gradient = job.exposure.step(view, color, loss.gradient, 1.0 if len(job.views) > 2 else 0.0)
    gradients = torch.autograd.grad([rendering.color], [getattr(leaves, name) for name in NAMES], [gradient[None]])
    rates = rates_at(share, schedule, opacity_pull=0.0, scale_pull=0.0)
    take_step(job.parameters, gradients, job.spacing, rates)
    job.picker.tell(view, loss.squared_error)
    job.steps += 1
    job.squared_error += 0.05 * (loss.squared_error - job.squared_error) if job.steps > 1 else loss.squared_error
    if job.steps % len(job.views) == 0:
        job.exposure.center()


def raise_degree(job: Job, share: float) -> None:
    """Give Gaussians view-dependent colour once their shape has settled."""
    if share >= job.config.schedule.sh_from:
        job.parameters = with_sh(job.parameters, (job.config.polish_sh + 1) ** 2)


def grow(job: Job, share: float) -> None:
    """Drop idle Gaussians and put new ones where photos differ most."""
    schedule, values = job.config.schedule, job.parameters.values
    dropped = growth.idle(values["opacities"], values["scales"], float("inf"))
    job.parameters = keep(job.parameters, torch.nonzero(~dropped)[:, 0])
    if share <= schedule.grow_until:
        missing = wanted_count(share + schedule.grow_every, job.first_count, job.last_count, schedule) - len(job.parameters)
        worst = sorted(job.views, key=lambda v: -job.picker.error[v])[: max(4, len(job.views) // 3)]
        total = sum(job.picker.error[v] for v in worst)
        factor = factor_at(share, schedule)
        for view in worst:
            count = round(missing * job.picker.error[view] / total)
            if count > 0:
                add_from(job, view, factor, count)
    job.spacing = spacing_of(job)
    job.history.append(
        {"seconds": round(job.clock.elapsed_s, 2), "steps": job.steps, "gaussians": len(job.parameters),
         "factor": factor_at(share, schedule), "squared_error": job.squared_error}
    )  # fmt: skip


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
    gaussians: Gaussians,
    posed: PosedViews,
    seconds: float,
    config: PolishConfig,
    rasterizer: Rasterizer,
    progress: Progress,
) -> Polished:
    """Optimise a scene for a number of seconds."""
    job = begin(gaussians, posed, seconds, rasterizer, config, progress)
    optimise(job, 1.0)
    return finish(job)


def finish(job: Job, *, partial: bool = False) -> Polished:
    """Take the result out of a job."""
    cameras = Cameras(
        T_world_cam=job.T_world_cam.cpu(), K=job.K.cpu(), width=job.posed.cameras.width, height=job.posed.cameras.height,
        names=job.posed.names,
    )  # fmt: skip
    return Polished(
        gaussians=job.parameters.gaussians(), cameras=cameras, exposure=job.exposure, history=tuple(job.history), partial=partial
    )
