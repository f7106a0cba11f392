"""What can be chosen about polishing, and how many Gaussians suit its seconds.

Input: nothing. Output: ``PolishOptions`` for the user, ``PolishConfig`` for the stage.
Does not: act.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .losses import LossConfig
from .schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class PolishOptions:
    """What a user may choose about polishing."""

    polish_sh: int = 1
    """SH degree at the end of polishing, 0 to 3."""
    refine_cameras: bool = True
    """Polishing also corrects camera positions, rotations and focal lengths; what the user gave stays fixed all the same."""
    match_exposure: bool = True
    """Polishing also finds brightness and white balance of every photo, where photos differ more than light alone explains."""
    surfels: bool = False
    """Polishing also makes Gaussians flat and turns them into the surface, for smoother meshes."""


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """How a scene is polished."""

    options: PolishOptions = field(default_factory=PolishOptions)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    max_gaussians: int | None = None
    """Most Gaussians; None lets the seconds decide."""
    drop: float = 0.4
    """Most of the Gaussians that a step leaves out with few photos; fades to 0 with many."""
    depth_prior: float = 0.3
    """Weight of the network's depth with few photos; fades to 0 with many."""
    opacity_prior: float = 0.2
    """Weight of the mean opacity in the loss with few photos; fades to 0 with many."""
    scale_prior: float = 0.0
    """Weight of the mean logarithm of scales in the loss with few photos; fades to 0 with many."""
    start_again: bool = False
    """Where guard photos agree, start again with the scene of all photos instead of going on with the one made without them."""


MOST_GAUSSIANS = 60_000
"""Most Gaussians of a polish when nobody names a number."""
LONG_S = 40.0
"""A polish of so many seconds, on two cores, leaves out Gaussians as much as it may, and learns what guard photos alone show."""
MORE_WITH_FEW = 0.3
"""Share of Gaussians more where photos are few."""


def default_count(seconds: float, few: float = 0.0) -> int:
    """Gaussians that a polish of so many seconds can bring into shape on two cores.

    Args:
        few: 1 with few photos, 0 with many; each Gaussian is seen more often with few, so more of them find their shape.
    """
    return round(min(MOST_GAUSSIANS, (1 + MORE_WITH_FEW * few) * (8_000 + 700 * seconds)))


def for_refined(config: PolishConfig, seconds: float) -> PolishConfig:
    """What suits a scene that learned refinement has shaped: it gains from the first step on, and a short polish is worth its time.

    Such a scene shows detail, which small pictures would wash out and large moves tear apart, so photos keep their size and means
    take small steps, while colours, shapes and opacities may change fast. The depth prior is left out: the network's depth is
    older than the scene, and pulling towards it takes back what refinement corrected. The opacity prior is left out too: while
    opacities change fast it makes surfaces see-through, which pictures forgive and meshes do not. Leaving out Gaussians helps a
    long polish against learning few photos by heart and only delays a short one; a short one also has no time to learn what guard
    photos alone show, so it starts again with the scene of all photos once they have judged.
    """
    schedule = config.schedule
    calm = replace(
        schedule, quarter_until=0.0, half_until=0.0, sh_from=0.0, means_px=0.3 * schedule.means_px, color=1.3 * schedule.color,
        quats=3 * schedule.quats, opacities=1.6 * schedule.opacities,
    )  # fmt: skip
    drop = config.drop * min(1.0, seconds / LONG_S)
    return replace(config, schedule=calm, depth_prior=0.0, opacity_prior=0.0, drop=drop, start_again=seconds < LONG_S)


def for_finished(config: PolishConfig) -> PolishConfig:
    """What suits a scene that was optimised before: no small pictures, and steps that do not tear it apart first."""
    schedule = config.schedule
    calm = replace(
        schedule, quarter_until=0.0, half_until=0.25, means_px=0.2 * schedule.means_px, color=0.3 * schedule.color,
        scales=0.3 * schedule.scales, quats=0.5 * schedule.quats, opacities=0.4 * schedule.opacities,
    )  # fmt: skip
    return replace(config, schedule=calm)
