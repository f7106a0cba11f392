"""Every choice of a run in one record; the command line is generated from it.

Input: nothing. Output: ``PipelineConfig``.
Does not: act. Each stage keeps its own frozen config beside its code; they are composed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .capture.choices import CaptureConfig
from .fuse import FuseConfig
from .polishing.choices import PolishOptions


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Photo i of the natural order is held out when i % every == offset."""

    every: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.every < 2 or not 0 <= self.offset < self.every:
            raise ValueError(f"holdout: wanted K >= 2 and 0 <= OFFSET < K, got {self.every}:{self.offset}")

    def covers(self, index: int) -> bool:
        return index % self.every == self.offset

    @staticmethod
    def parse(text: str) -> Holdout:
        """Read ``K`` or ``K:OFFSET``."""
        every, _, offset = text.partition(":")
        try:
            return Holdout(every=int(every), offset=int(offset or 0))
        except ValueError as error:
            raise ValueError(f"--holdout: wanted K or K:OFFSET with K >= 2 and 0 <= OFFSET < K, got {text!r}") from error


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All choices of one reconstruction."""

    long_side: int = 640
    """Working size: longest side of the photos in pixels. Photos are never enlarged."""
    cameras: str = "auto"
    """'auto' finds cameras with COLMAP, trying cheap ways first and richer ones until the evidence is strong; 'sfm' tries the
    cheap ways only; the name of a published network lets that one find them, 'network' that of --camera-network or else the
    best on this machine; otherwise a path to a COLMAP model, transforms.json or cameras.json, which are kept exactly."""
    adjust_cameras: bool = True
    """Adjust the cameras of a named network to matches of the photos (bundle adjustment), and keep what explains them better.
    Cameras from a file are never touched, nor those whose network also gives the Gaussians (unless polish follows)."""
    model: str = "auto"
    """Depth network: 'mini' is built in; published ones go by name (da3-small, da3-base, vggt, anysplat, pi3, yonosplat: see
    `recon weights list`); 'auto' takes the best of those on this machine that fits, else 'mini'; 'plane-sweep' needs none."""
    holdout: Holdout | None = None
    """Which photos are kept out of everything but camera finding, and scored."""
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    """How photos and videos are taken in, and what is known about them."""
    fuse: FuseConfig = field(default_factory=FuseConfig)
    """How depth becomes one compact set of Gaussians."""
    refine: int | None = None
    """Rounds of learned refinement: draw the scene where the photos were taken, and let a small network correct every Gaussian by
    what differs. None takes as many as it was trained for, but leaves Gaussians alone that a network made itself; 0 matches
    colours and nothing else."""
    refine_sh: Literal[0, 1] = 1
    """SH degree of the colours that refinement finds; with 0 the browser's part of the viewer shows all there is."""
    polish: float = 0.0
    """Seconds of optimisation through the rasteriser; 0 leaves it out."""
    polishing: PolishOptions = field(default_factory=PolishOptions)
    """What polishing may change."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks and the rasteriser run."""
    seed: int = 0
    """Seed of everything random."""
    keep_gps: bool = False
    """Copy the position and owner fields of EXIF into report.json."""
    video: bool = True
    """Render orbit.mp4."""
    weights: Path | None = None
    """Weights of the depth network from a file instead of the shipped or pulled ones."""
    matcher: Path | None = None
    """Weights of a matching network from `recon train matcher`; 'auto' tries its matches where plain SIFT gives no strong
    evidence."""
    camera_network: Path | None = None
    """Weights of a camera network from `recon train cameras`; --cameras network is then that one, and 'auto' asks it last."""
    max_memory: float | None = None
    """Most memory of this process, in GB (10^9 bytes): work is cut into chunks that fit; None takes what it takes."""
    resume: bool = True
    """Go on where an earlier run with the same photos and choices stopped; results of stages are kept in the cache."""

    @property
    def takes_own_gaussians(self) -> bool:
        """Whether Gaussians and cameras come from one network and nothing is optimised: they fit together only as they are."""
        return self.cameras == self.model and self.polish == 0
