"""What the result of each stage depends on.

Input: photos, choices, the identity of code and weights. Output: keys, each stage's made from the one before.
Does not: keep anything.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..records import Views
from .digests import key_of, path_digest

if TYPE_CHECKING:
    from ..config import PipelineConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageKeys:
    """One key per stage."""

    cameras: str
    depth: str
    gaussians: str
    polish: str
    result: str
    """Of everything in the output folder."""

    def kept(self, polished: bool) -> dict[str, str]:
        """Keys of the stages whose results are kept, in order."""
        last = {"polish": self.polish} if polished else {"gaussians": self.gaussians}
        return {"cameras": self.cameras, "depth": self.depth, **last}


def stage_keys(views: Views, config: PipelineConfig, identity: str, device: str) -> StageKeys:
    """Make the keys of a run.

    Args:
        identity: digest of the program's code, of the libraries that shape results, and of the networks' weights.
    """
    photos = [
        (
            view.name, view.content, view.original_width, view.original_height, view.width, view.height,
            view.focal_px, view.camera_id, view.holdout, view.intrinsics,
        )
        for view in views
    ]  # fmt: skip
    cameras = key_of(
        identity, device, config.seed, photos, config.cameras, path_digest(config.cameras), config.adjust_cameras,
        config.takes_own_gaussians, config.capture.scale_from,
    )  # fmt: skip
    depth = key_of(cameras, config.model, config.long_side)
    gaussians = key_of(depth, dataclasses.asdict(config.fuse), config.refine, config.refine_sh, config.polish)
    polish = key_of(gaussians, dataclasses.asdict(config.polishing))
    result = key_of(polish, config.video, config.keep_gps, config.capture.masks, config.capture.intrinsics)
    return StageKeys(cameras=cameras, depth=depth, gaussians=gaussians, polish=polish, result=result)
