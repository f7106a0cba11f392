"""How the seconds of a polish are spent.

Input: the share of time that has passed. Output: picture size, number of Gaussians, SH degree, learning rates.
Everything follows the clock and not a step count, so that any number of seconds on any machine runs the whole course.
Does not: measure time beyond ``Clock``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from .adam import Rates


class Clock:
    """Share of a time budget that is used.

    Args:
        seconds: the budget, > 0.
        timer: returns seconds; the wall clock unless a measurement on a busy machine counts processor time.
    """

    def __init__(self, seconds: float, timer: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = seconds
        self._timer = timer
        self._started = timer()
        self._paused = 0.0

    @property
    def elapsed_s(self) -> float:
        return self._timer() - self._started - self._paused

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return min(1.0, self.elapsed_s / self.seconds)

    def forgive(self, seconds: float) -> None:
        """Take out time that was spent on something that is not polishing, such as a benchmark's scoring."""
        self._paused += seconds


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The course of a polish, in shares of its time."""

    quarter_until: float = 0.06
    """Pictures of a quarter of the working size until then."""
    half_until: float = 0.65
    """Pictures of half the working size until then."""
    grow_from: float = 0.06
    grow_until: float = 0.7
    """Gaussians are added between these."""
    grow_every: float = 0.04
    """Share of time between additions."""
    sh_from: float = 0.7
    """SH degree 1 from then on."""
    means_px: float = 1.6
    """First rate of the means, in pixels of the working size per step; falls to ``final`` of it."""
    color: float = 0.03
    """First rate of colours."""
    scales: float = 0.04
    quats: float = 0.01
    opacities: float = 0.05
    cameras_from: float = 0.3
    """Cameras move from then on."""
    exposure_rate: float = 1.0
    """Factor on the rates of exposure."""
    tile_share: float = 1.0
    """Share of the tiles drawn per step at full size, those with most error; 1 draws all."""
    final: float = 0.05
    """Rates at the end over rates at the beginning."""


def factor_at(share: float, config: ScheduleConfig) -> int:
    """How many times the photos are shrunk."""
    return 4 if share < config.quarter_until else 2 if share < config.half_until else 1


def wanted_count(share: float, first: int, last: int, config: ScheduleConfig) -> int:
    """How many Gaussians there should be: grows from ``first`` to ``last`` by a constant factor per time."""
    t = min(max((share - config.grow_from) / max(config.grow_until - config.grow_from, 1e-6), 0.0), 1.0)
    return round(first * (last / max(first, 1)) ** t)


def rates_at(share: float, config: ScheduleConfig, *, opacity_pull: float, scale_pull: float) -> Rates:
    """Learning rates: exponential decay with time."""
    decay = math.exp(math.log(config.final) * share)
    gentle = math.exp(0.5 * math.log(config.final) * share)
    return Rates(
        means=config.means_px * decay,
        quats=config.quats * gentle,
        scales=config.scales * gentle,
        opacities=config.opacities * gentle,
        color=config.color * gentle,
        opacity_pull=opacity_pull,
        scale_pull=scale_pull,
    )
