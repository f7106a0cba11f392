"""From what was given to photos on disk: archives unpacked, videos cut into frames.

Input: paths. Output: name -> path of candidate photos. Does not: open photos.

What is unpacked is kept in the cache under a key of its content, so that a second run finds it; without a cache it goes to a
temporary folder that ends with the process.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CannotReconstruct, UserError
from ..files import atomic_folder, write_json_atomic
from ..resume.leftovers import make_temporary
from ..resume.places import cache_root
from .archive import unpack
from .choices import CaptureConfig
from .decoder import Decoder
from .files import Found, find_files
from .names import clean_name, natural_key, shown

UNPACKED = "captures"
"""Folder of the cache that holds unpacked archives and frames of videos."""
FACTS = "unpacked.json"
LAYOUT = "1"
"""Changes when the same input would be unpacked differently."""
FRAMES = (1, 2000)
FPS = (0.01, 240.0)


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Candidate photos of a capture."""

    photos: dict[str, Path]
    """Name -> path, in natural order."""
    skipped: tuple[tuple[str, str], ...]
    videos: list[dict[str, Any]] = field(default_factory=list)
    """Per video: its name, its seconds and frames, how many were kept."""


def take_in(
    paths: Path | str | Sequence[Path | str],
    config: CaptureConfig,
    *,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Intake:
    """Find all photos meant by ``paths``, unpacking what has to be.

    Args:
        check: called often; may raise to stop.
        tell: told what is being done, for long videos.

    Raises:
        UserError: a path cannot be used; an archive or video is broken and nothing else was given.
        CannotReconstruct: there is nothing in it.
    """
    if not (FRAMES[0] <= config.max_frames <= FRAMES[1] and FPS[0] <= config.fps <= FPS[1]):
        raise UserError(
            f"--fps {config.fps:g} --max-frames {config.max_frames}: out of range.",
            f"Give {FPS[0]:g} to {FPS[1]:g} frames per second and {FRAMES[0]} to {FRAMES[1]} frames.",
        )
    found = find_files(paths)
    photos, skipped = dict(found.photos), list(found.skipped)
    videos: list[dict[str, Any]] = []
    several = len(found.videos) + len(found.archives) > 1 or bool(photos)
    for archive in found.archives:
        tell(f"unpacking {shown(archive.name)}")
        folder, facts = _kept(archive, {"kind": "zip"}, lambda target, a=archive: {"skipped": unpack(a, target, check=check)})
        inner = find_files(folder)
        skipped += [tuple(pair) for pair in facts["skipped"]]
        skipped += inner.skipped
        _join(photos, inner.photos, clean_name(archive.stem) if several else "")
        found = Found(photos=found.photos, videos=(*found.videos, *inner.videos))
    for video in found.videos:
        tell(f"reading {shown(video.name)}")
        request = {"kind": "frames", "fps": config.fps, "max_frames": config.max_frames}
        try:
            folder, facts = _kept(video, request, lambda target, v=video: _frames(v, target, config, check, tell))
        except CannotReconstruct as error:
            if not several:
                raise
            skipped.append((clean_name(video.name), error.reason.partition(": ")[2] or error.reason))
            continue
        frames = {name: folder / name for name in facts["written"]}
        _join(photos, frames, clean_name(video.stem) if several or len(found.videos) > 1 else "")
        videos.append({"name": clean_name(video.name), "kept": len(frames), "frames": facts["frames"], "seconds": facts["seconds"]})
    ordered = dict(sorted(photos.items(), key=lambda pair: (natural_key(pair[0]), pair[0])))
    return Intake(photos=ordered, skipped=tuple(skipped), videos=videos)


def _join(photos: dict[str, Path], more: dict[str, Path], prefix: str) -> None:
    """Add photos under a prefix that keeps names apart."""
    number, unique = 1, prefix
    while any(f"{unique}/{name}" in photos if unique else name in photos for name in more):
        number += 1
        unique = f"{prefix or 'more'}_{number}"
    photos.update({f"{unique}/{name}" if unique else name: path for name, path in more.items()})


def _frames(
    video: Path, target: Path, config: CaptureConfig, check: Callable[[], None], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Cut a video into frames in the decoding process."""
    request = {"task": "frames", "path": str(video), "target": str(target), "fps": config.fps, "max_frames": config.max_frames}
    name = shown(video.name)
    with Decoder(check) as decoder:
        answer = decoder.ask(request, tell=lambda share: tell(f"reading {name}, {share:.0%}"))
    if answer.get("disk"):
        raise UserError(f"{name}: {answer['reason']}.", "Free some space, or set RECON_CACHE to a folder on another disk.")
    if "reason" in answer:
        raise CannotReconstruct(f"No frames could be taken from a video: {name} {answer['reason']}.", "Convert it to mp4 (H.264).")
    return answer


def _kept(source: Path, request: dict[str, Any], fill: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Folder with what a file unpacks to, and what was found out; made now, or by an earlier run.

    Raises:
        UserError: the file cannot be read, or there is nowhere to unpack it to.
    """
    try:
        with source.open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{shown(source)} cannot be read ({error.strerror or error}).", "Check the file.") from error
    text = json.dumps([LAYOUT, content, request], sort_keys=True)
    root = cache_root()
    folder = (root if root is not None else _temporary()) / UNPACKED / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    facts = folder.with_suffix(".json")
    if folder.is_dir() and facts.is_file():
        os.utime(facts)  # lately used: the last to go when the cache is full
        return folder, json.loads(facts.read_text(encoding="utf-8"))
    try:
        with atomic_folder(folder) as target:
            told = fill(target)
        write_json_atomic(facts, told)
    except OSError as error:
        raise UserError(
            f"{shown(source.name)} cannot be unpacked to {shown(folder.parent)} ({error.strerror or error}).",
            "Free some space, or set RECON_CACHE to a folder on another disk.",
        ) from error
    return folder, told


_TEMPORARY: list[Path] = []


def _temporary() -> Path:
    """A folder that ends with this process."""
    if not _TEMPORARY:
        folder = make_temporary("capture")
        _TEMPORARY.append(folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _TEMPORARY[0]
