"""What a person may say about the photos.

Input: nothing. Output: ``CaptureConfig``. Does not: act.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CaptureConfig:
    """How photos and videos are taken in, and what is known about them."""

    fps: float = 2.0
    """Of a video, frames kept per second at most; the sharpest of each stretch of way is taken."""
    max_frames: int = 60
    """Of a video, frames kept in all at most."""
    masks: str | None = None
    """Folder of masks named like the photos (a.jpg: a.png or a.jpg.png): white is used, black is not, in any stage. Photos with
    an alpha channel bring their own mask."""
    intrinsics: str | None = None
    """What is known of the lens: fx,fy,cx,cy in pixels of the original photos, optionally k1,k2,p1,p2 after them; or a JSON file
    that gives such lists by photo name, or one for all under "all"."""
    shared_camera: bool = False
    """All photos come from one camera with one zoom setting, whatever EXIF says; those of one size share a lens."""
    scale_from: str | None = None
    """Real distance between the places two photos were taken from, as A,B=1.2m (or cm, mm, ft, in); the scene is then in metres."""
