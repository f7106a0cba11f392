"""What a visitor may choose for a run.

Input: JSON or the page's fields. Output: ``RunSettings``, and the ``PipelineConfig`` they stand for.
Does not: import torch before ``config`` is called (in the child that runs): the page must stand within seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .refusals import Refused

if TYPE_CHECKING:
    from recon.config import PipelineConfig

Preset = Literal["fast", "balanced", "best"]
PRESETS: dict[Preset, tuple[str, dict[str, Any]]] = {
    "fast": ("small pictures, no polish, no video: a first look", {"long_side": 480, "polish_s": 0.0, "video": False}),
    "balanced": ("usual size, one minute of polish", {"long_side": 640, "polish_s": 60.0, "video": True}),
    "best": ("larger pictures, four minutes of polish", {"long_side": 800, "polish_s": 240.0, "video": True}),
}
"""Preset -> what it does in words, the settings it stands for."""
CAMERAS = ("auto", "sfm", "network")
MODELS = ("auto", "mini", "plane-sweep")
"""Choices that are always there; published networks add their names."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_SCALE = re.compile(r"[^\x00-\x1f]{1,300}=\s*[0-9.eE+-]+\s*[a-z]{1,4}")
_LENS = re.compile(r"\s*[0-9.eE+-]+(\s*,\s*[0-9.eE+-]+){3,7}\s*")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a visitor may choose of ``PipelineConfig``: nothing that names a file of this machine. None: as the preset says."""

    preset: Preset = "balanced"
    long_side: int | None = None
    """Longest side of the photos in pixels, 128 to 1600."""
    max_gaussians: int | None = None
    """Most Gaussians; None: as the pipeline chooses."""
    polish_s: float | None = None
    """Seconds of optimisation, 0 to 3600."""
    video: bool | None = None
    """Render an orbit video."""
    holdout: int = 0
    """Score every K-th photo; 0 scores none."""
    cameras: str = "auto"
    """One of CAMERAS, or the name of a published network."""
    model: str = "auto"
    """One of MODELS, or the name of a published network."""
    shared_camera: bool = False
    """All photos come from one camera with one zoom setting."""
    intrinsics: str = ""
    """fx,fy,cx,cy[,k1,k2,p1,p2] in pixels of the original photos; empty: not known."""
    scale_from: str = ""
    """A,B=1.2m: real distance between the places two photos were taken from; empty: not known."""
    fps: float = 2.0
    """Of a video, frames kept per second at most."""
    max_frames: int = 60
    """Of a video, frames kept in all at most."""
    polish_sh: int = 1
    """SH degree at the end of polishing, 0 to 3."""
    surfels: bool = False
    """Flat Gaussians, for smoother meshes (with polish)."""
    seed: int = 0

    def __post_init__(self) -> None:
        _choose("preset", self.preset, isinstance(self.preset, str) and self.preset in PRESETS, f"one of {', '.join(PRESETS)}")
        _within("long_side", self.long_side, 128, 1600, whole=True)
        _within("max_gaussians", self.max_gaussians, 100, 2_000_000, whole=True)
        _within("polish_s", self.polish_s, 0, 3600)
        _within("fps", self.fps, 0.01, 60)
        _within("max_frames", self.max_frames, 2, 400, whole=True)
        _within("polish_sh", self.polish_sh, 0, 3, whole=True)
        _within("seed", self.seed, 0, 2**31, whole=True)
        _choose(
            "holdout", self.holdout, _whole(self.holdout) and (self.holdout == 0 or 2 <= self.holdout <= 1000), "0, or 2 or more"
        )
        for name in ("cameras", "model"):
            value = getattr(self, name)
            _choose(name, value, isinstance(value, str) and _NAME.fullmatch(value) is not None, "the name of a method or network")
        for name in ("shared_camera", "surfels"):
            _choose(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        _choose("video", self.video, self.video is None or isinstance(self.video, bool), "true, false or nothing")
        lens, scale = self.intrinsics, self.scale_from
        _choose("intrinsics", lens, isinstance(lens, str) and (not lens or bool(_LENS.fullmatch(lens))), "fx,fy,cx,cy in pixels")
        _choose("scale_from", scale, isinstance(scale, str) and (not scale or bool(_SCALE.fullmatch(scale))), "A,B=1.2m")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> RunSettings:
        """Make settings of what came as JSON.

        Raises:
            UserError: a name or value that does not exist.
        """
        unknown = sorted(set(given) - {f.name for f in fields(cls)})
        if unknown:
            raise Refused(
                f"There is no setting {', '.join(map(repr, unknown))[:200]}.",
                f"There are {', '.join(f.name for f in fields(cls))}.",
            )
        return cls(**given)

    def chosen(self, name: str) -> Any:
        """A setting, by the preset where nothing else was said."""
        value = getattr(self, name)
        return PRESETS[self.preset][1][name] if value is None and name in PRESETS[self.preset][1] else value

    def plain(self) -> dict[str, Any]:
        """As JSON; ``read`` makes the same settings of it."""
        return asdict(self)

    def config(self, *, masks: Path | None = None) -> PipelineConfig:
        """The same for the pipeline.

        Args:
            masks: folder of uploaded masks; None when there are none.
        """
        from dataclasses import replace

        from recon.config import Holdout, PipelineConfig

        usual = PipelineConfig()
        return replace(
            usual,
            long_side=self.chosen("long_side"),
            polish=float(self.chosen("polish_s")),
            video=self.chosen("video"),
            holdout=Holdout(every=self.holdout) if self.holdout else None,
            cameras=self.cameras,
            model=self.model,
            seed=self.seed,
            capture=replace(
                usual.capture,
                fps=self.fps,
                max_frames=self.max_frames,
                shared_camera=self.shared_camera,
                intrinsics=self.intrinsics or None,
                scale_from=self.scale_from or None,
                masks=None if masks is None else str(masks),
            ),
            fuse=replace(usual.fuse, max_gaussians=self.max_gaussians),
            polishing=replace(usual.polishing, polish_sh=self.polish_sh, surfels=self.surfels),
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _within(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Accept None, where the field may be None, or a number in a range."""
    if value is None and name in ("long_side", "max_gaussians", "polish_s"):
        return
    number = _whole(value) or (not whole and isinstance(value, float))  # NaN lies in no range
    given = cast(Any, value)
    _choose(name, value, number and low <= given <= high, f"{'a whole number' if whole else 'a number'} from {low:g} to {high:g}")


def _choose(name: str, value: Any, fits: bool, wanted: str) -> None:
    if not fits:
        raise Refused(f"{name}: {str(value)[:80]!r} does not fit.", f"Give {wanted}.")
