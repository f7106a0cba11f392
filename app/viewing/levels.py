"""How coarse a picture may be drawn, and the sets of Gaussians for it.

Input: Gaussians, and how long pictures took. Output: thinned Gaussians and a size.
Does not: draw.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from recon.records import Gaussians

from .document import Document
from .pictures import Look
from .thinning import thinned

KEPT_SETS = 3
"""Filtered sets that stay in memory."""
HEADROOM = 0.75
"""A finer level is tried when it should take less than this share of the time there is."""
PATIENCE = 4
"""Pictures in time before a finer level is tried."""


@dataclass(frozen=True)
class Level:
    """One way to draw while moving."""

    share: float
    """Of the Gaussians."""
    long_side: int
    """Most pixels of the longer side."""


LEVELS = (
    Level(1.0, 960),
    Level(1.0, 640),
    Level(0.5, 640),
    Level(0.5, 480),
    Level(0.25, 480),
    Level(0.125, 480),
    Level(0.0625, 480),
    Level(0.0625, 320),
    Level(0.03, 240),
)
"""Finest first. Detail goes before size: a blurred picture hides more than a thinned one."""
FIRST_LEVEL = 4


class Pace:
    """Chooses a level from the seconds that pictures took."""

    def __init__(self) -> None:
        self.level = FIRST_LEVEL
        self._in_time = 0
        self._took: dict[int, float] = {}

    def forget(self) -> None:
        """Another scene: nothing is known of its times."""
        self._took.clear()

    def note(self, seconds: float, wanted_s: float) -> None:
        """Hear how long the present level took, and how long it may take."""
        known = self._took.get(self.level)
        self._took[self.level] = seconds if known is None else 0.6 * known + 0.4 * seconds
        took = self._took[self.level]
        if took > wanted_s:
            self.level, self._in_time = min(self.level + 1, len(LEVELS) - 1), 0
            return
        self._in_time += 1
        finer = self.level - 1
        if finer >= 0 and self._in_time >= PATIENCE:
            guess = self._took.get(finer, 1.8 * took)
            if guess < HEADROOM * wanted_s:
                self.level = finer
            else:
                self._took[finer] = 0.7 * guess  # the machine may have become faster since
            self._in_time = 0


class Sets:
    """The Gaussians that a look leaves, whole and thinned, kept for the next picture.

    Args:
        document: whose Gaussians.
        seen: photos that see each of the opened Gaussians; None until somebody counted.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: torch.Tensor | None = None
        self._kept: dict[tuple, dict[float, Gaussians]] = {}
        self._lock = threading.Lock()

    def _filtered(self, look: Look) -> Gaussians:
        gaussians = self.document.gaussians
        keep = gaussians.opacities >= look.opacity_min
        if look.seen_min > 0 and self.seen is not None:
            keep &= self.seen[self.document.step.keep] >= look.seen_min
        if look.box is not None:
            keep &= look.box.inside(gaussians.means)
        return gaussians if bool(keep.all()) else gaussians.select(keep)

    def get(self, look: Look, share: float) -> Gaussians:
        """Gaussians for a look and a share; may be none."""
        with self._lock:
            key = (self.document.step.keep, look.opacity_min, look.seen_min, look.box, self.seen is None)
            shares = self._kept.pop(key, None)
            if shares is None:
                shares = {1.0: self._filtered(look)}
                while len(self._kept) >= KEPT_SETS:
                    self._kept.pop(next(iter(self._kept)))
            self._kept[key] = shares
            if share not in shares:
                shares[share] = thinned(shares[1.0], share)
            return shares[share]
