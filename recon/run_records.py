"""What a run is given, what it notes, and what it gives back.

Input: nothing. Output: the records ``Tools``, ``Ledger``, ``Capture`` and ``Result``. Does not: run anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .cameras.matches import Matcher
from .cameras.result import SfmResult
from .config import PipelineConfig
from .fuse import SplatHead
from .posed import PosedViews
from .progress import Progress
from .records import Prediction, Rasterizer, Scene, Views
from .refining import Updater

DepthPredictor = Callable[[PosedViews, tuple[tuple[int, ...], ...], torch.Tensor, Progress], Prediction]
"""(posed photos, neighbours per view, near and far per view, progress) -> depth with confidence."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the pipeline needs from other rooms; ``app.run`` fills it in."""

    load_rasterizer: Callable[[str], Rasterizer]
    load_predictor: Callable[..., DepthPredictor]
    """(name, device=, weights=, random_seed=) -> predictor."""
    load_splat_head: Callable[..., SplatHead]
    """(device=, weights=, random_seed=) -> head."""
    load_updater: Callable[..., Updater | None]
    """(device=, weights=) -> network of learned refinement, or None where there is none."""
    orbit: Callable[..., Any]
    """(cameras, frames=) -> cameras around the scene."""
    write_video: Callable[..., None]
    """(path, iterator of uint8 frames, fps=)."""
    load_camera_predictor: Callable[..., Any]
    """(name, device=, weights=) -> network whose ``predict_views`` finds cameras."""
    camera_models: tuple[str, ...] = ()
    """Names ``load_camera_predictor`` knows."""
    load_matcher: Callable[..., Matcher | None] | None = None
    """(device=, weights=) -> matches by a network, or None where there is none."""
    identify: Callable[[PipelineConfig, str], str] | None = None
    """(config, device) -> digest of code, libraries and weights; without it nothing is kept for resuming."""
    resolve_model: Callable[[PipelineConfig, str], str] | None = None
    """(config, device) -> name of the depth network that will be used, for the estimate."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run gives back."""

    scene: Scene
    report: dict
    out: Path | None
    """Folder that was written; None when nothing was asked for."""
    repeated: bool = False
    """True when the folder already held the result of this very run, so that nothing was done."""


@dataclass
class Ledger:
    """What happened along the way, for the report."""

    seconds: dict[str, float] = field(default_factory=dict)
    """What this run spent, per stage."""
    cached_s: dict[str, float] = field(default_factory=dict)
    """What stages whose result was found in the cache took when an earlier run computed them."""
    choices: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a stage entered twice adds up, and one within another takes its seconds from it."""
        before, started = sum(self.seconds.values()), time.perf_counter()
        yield
        within = sum(self.seconds.values()) - before
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started - within


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Photos with cameras, split into what may be used and what is scored."""

    views: Views
    """All readable photos, held-out ones included."""
    solved: SfmResult
    """Cameras of all photos at the original size; points seen by input photos alone."""
    inputs: PosedViews
    held_out: PosedViews
    """Registered held-out photos at the scoring size."""
    lost_held_out: tuple[str, ...]
    """Held-out photos without a camera."""
