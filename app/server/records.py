"""What the page and the server say to each other: ``JobView``, ``Inspection``, and ``Jobs``, the server's side of the page.

Input: nothing. Output: frozen records. Does not: act, or import torch: the page must stand within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from .settings import RunSettings

State = Literal["waiting", "running", "done", "failed", "stopped"]
OVER: tuple[State, ...] = ("done", "failed", "stopped")


@dataclass(frozen=True, kw_only=True)
class PhotoLook:
    """What was understood of one given file."""

    name: str
    """Name as it may be shown (no HTML in it is trusted: escape it)."""
    path: Path
    """The file that was given; of a zip or video, that file."""
    width: int = 0
    height: int = 0
    kind: str = ""
    """JPEG, PNG, ..."""
    camera: str = ""
    """Make, model, lens by EXIF; empty when unknown."""
    focal_px: float | None = None
    blur: float = 0.0
    """0 sharp, 1 without detail."""
    brightness: float = 0.0
    same_as: str = ""
    """Name of an earlier photo that shows the same picture."""
    words: tuple[str, ...] = ()
    """What is wrong with it: "blurred", "too dark", "a copy", ..."""
    skipped: str = ""
    """Why it cannot be used; empty when it can."""
    thumbnail: Path | None = None
    """A small JPEG without metadata, upright; None for what is skipped."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will cost here."""

    seconds: dict[str, float | None] = field(default_factory=dict)
    """Per stage; None where nothing is known yet."""
    memory_bytes: int = 0

    @property
    def total_s(self) -> float:
        return sum(value for value in self.seconds.values() if value is not None)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was understood of all given files, before anything costs time."""

    photos: tuple[PhotoLook, ...] = ()
    advice: tuple[str, ...] = ()
    reason: str = ""
    """Why these files cannot be reconstructed; empty when they can be tried."""
    remedy: str = ""
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """Per preset; and "" for the settings that were asked for."""


@dataclass(frozen=True, kw_only=True)
class StageView:
    """How far one stage is."""

    fraction: float
    message: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class JobView:
    """What may be shown of a job: a snapshot."""

    id: str
    name: str
    state: State
    position: int
    """0: running or over; from 1: place in the queue."""
    created_s: float
    """Seconds since 1970, as the next two."""
    started_s: float | None
    finished_s: float | None
    settings: dict[str, Any]
    """As ``RunSettings.read`` takes them."""
    photos: tuple[str, ...]
    """Names of the stored photos, as they are in ``folder / "photos"``."""
    stages: dict[str, StageView] = field(default_factory=dict)
    """Reached stages, in order."""
    advice: tuple[str, ...] = ()
    reason: str = ""
    """Why it failed or stopped, in words."""
    remedy: str = ""
    offending: tuple[str, ...] = ()
    """Names of photos to mark."""
    photo_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Photo -> what is wrong with it: "blurred", "could not be placed", ..."""
    folder: Path
    """<out>/<id>, with photos/, early/, scene/ and exports/ inside."""
    early_cameras: Path | None = None
    early_scene: Path | None = None
    scene: Path | None = None
    """Folder of the result; None before it is there."""
    report: dict[str, Any] | None = None
    bytes: int = 0
    """What the job takes on the disk, as of its last change."""
    resumed: int = 0
    """How often it went on after the server or its own process had died."""

    @property
    def over(self) -> bool:
        return self.state in OVER


class Jobs(Protocol):
    """The server as the page sees it. Every method raises ``UserError`` in words; ``NotThere`` when a job is not the owner's."""

    def submit(
        self,
        owner: str,
        photos: Sequence[Path],
        settings: RunSettings,
        *,
        name: str = "",
        turns: Mapping[Path, int] | None = None,
        masks: Sequence[Path] = (),
    ) -> JobView:
        """Take uploaded files (photos, zips, videos) over into a job and queue it.

        Args:
            photos: files the owner has uploaded; any other path is refused.
            turns: quarter turns clockwise of single photos.
            masks: pictures named like the photos: white is used, black is not.
        """
        ...

    def get(self, owner: str, job_id: str) -> JobView: ...

    def list(self, owner: str) -> list[JobView]:
        """The owner's jobs, newest first."""
        ...

    def cancel(self, owner: str, job_id: str) -> None:
        """Ask it to stop; a waiting job stops at once."""
        ...

    def again(self, owner: str, job_id: str) -> JobView:
        """Queue a stopped or failed job once more; it goes on where it was."""
        ...

    def delete(self, owner: str, job_id: str) -> None:
        """Remove a job with all its files; a running one is stopped first."""
        ...

    def rename(self, owner: str, job_id: str, name: str) -> JobView: ...

    def wait(self, owner: str, job_id: str, since: int, timeout_s: float) -> tuple[int, JobView]:
        """Return at the next change after ``since`` (0: at once), or after ``timeout_s``, with the number to give next."""
        ...

    def viewer_path(self, owner: str, job_id: str, *, early: bool = False) -> str:
        """Path of the job's viewer on the app's own port, for an iframe or a link; starts the viewer when needed (seconds)."""
        ...

    def export(self, owner: str, job_id: str, format: str) -> Path:
        """Make one of EXPORTS, or find it; returns the file in the job's folder. May take minutes for a mesh."""
        ...

    def file_path(self, owner: str, job_id: str, file: Path) -> str:
        """Path on the app's own port of a file in the job's folder: a link, an image, a download."""
        ...

    def inspect(self, owner: str, photos: Sequence[Path], settings: RunSettings | None = None) -> Inspection:
        """Look at uploaded files in a limited process, make thumbnails and estimate a run."""
        ...

    def thumbnail_path(self, owner: str, thumbnail: Path) -> str:
        """Path on the app's own port of ``PhotoLook.thumbnail``."""
        ...
