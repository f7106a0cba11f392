"""Uploaded files become clean photos: unpacked, probed, written anew without metadata, with thumbnails.

Input: one uploaded file. Output: a folder on the owner's shelf with photos/, thumbs/ and taken.json, kept under a key of the file.
Does not: decode here; two kinds of limited processes do. Runs in ``app.server.clerk_child``, never in the server.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.capture.choices import CaptureConfig
from recon.capture.decoder import Decoder
from recon.capture.files import ANIMATION_SUFFIXES, ARCHIVE_SUFFIXES, PHOTO_SUFFIXES, RAW_SUFFIXES, VIDEO_SUFFIXES
from recon.capture.intake import take_in
from recon.capture.names import clean_name
from recon.errors import UserError
from recon.files import atomic_folder, write_json_atomic
from recon.photos import MEASURED_SIDE

from .names import stored_name, unique
from .refusals import Refused
from .worker import folder_bytes

LAYOUT = 1
"""Changes when the same upload would be taken in differently."""
TAKEN = "taken.json"
CHECKED_EVERY = 64
"""Blocks of an archive between two looks at how much was written."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Raises once a folder holds more than it may."""

    folder: Path
    most_bytes: int
    counter: list[int]

    def __call__(self) -> None:
        self.counter[0] += 1
        if self.counter[0] % CHECKED_EVERY == 1 and folder_bytes(self.folder) > self.most_bytes:
            raise Refused("The files unpack to more than is allowed.", "Give fewer or smaller photos.", 413)


class Bench:
    """Two limited processes at work on one upload at a time: one looks, one writes. They stay, since starting them takes longer."""

    def __init__(self) -> None:
        self.probing, self.writing = Decoder(), Decoder(module="app.server.picture_child")

    def close(self) -> None:
        self.probing.close()
        self.writing.close()


_unpacking = threading.Lock()
"""Held while the environment names the folder to unpack to."""


def take(file: Path, shelf: Path, config: CaptureConfig, bench: Bench, *, most_bytes: int, most_files: int) -> dict[str, Any]:
    """Photos of one upload; from an earlier call when there was one. An upload lies under a path of its own and is never replaced.

    What was taken in is emptied, so that nothing of its metadata stays; a video stays, since it may be cut in another way.

    Returns:
        {"folder", "photos": [{"name", "file", "thumb", "probe"}], "skipped": [[name, reason]], "reason", "remedy"}; the last two
        say why nothing could be taken.
    """
    found = _beside(file, shelf)
    if found is not None:
        return found
    video = file.suffix.lower() in VIDEO_SUFFIXES | ANIMATION_SUFFIXES
    text = json.dumps([LAYOUT, str(file), [config.fps, config.max_frames] if video else []])
    folder = shelf / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    if not (folder / TAKEN).is_file():
        with atomic_folder(folder) as target:
            facts = _take(file, target, config, bench, most_bytes, most_files)
            write_json_atomic(target / TAKEN, facts)
        if not video:
            file.write_bytes(b"")
    return json.loads((folder / TAKEN).read_text(encoding="utf-8")) | {"folder": str(folder)}


def _beside(file: Path, shelf: Path) -> dict[str, Any] | None:
    """What is known of a photo that lies on the shelf already."""
    known = file.parent.parent / TAKEN
    if not (file.is_relative_to(shelf) and file.parent.name == "photos" and known.is_file()):
        return None
    facts = json.loads(known.read_text(encoding="utf-8"))
    mine = [photo for photo in facts["photos"] if photo["file"] == file.name]
    return {**facts, "photos": mine, "skipped": [], "folder": str(file.parent.parent)}


def _take(file: Path, target: Path, config: CaptureConfig, bench: Bench, most_bytes: int, most_files: int) -> dict[str, Any]:
    empty = {"photos": [], "skipped": [], "reason": "", "remedy": ""}
    name, suffix = clean_name(file.name), file.suffix.lower()
    if suffix not in PHOTO_SUFFIXES | VIDEO_SUFFIXES | ARCHIVE_SUFFIXES | RAW_SUFFIXES:  # a list would name files of this machine
        why = "is no photo, video or zip archive"
        said = {"reason": f"{name} {why}.", "remedy": "Give JPEG photos, a video or a zip."}
        return {**empty, **said, "skipped": [[name, why]]}
    unpacked = target / "unpacked"
    try:
        if suffix in PHOTO_SUFFIXES - ANIMATION_SUFFIXES:
            found, skipped = {name: file}, []
        else:
            with _unpacking:
                os.environ["RECON_CACHE"] = str(unpacked)
                intake = take_in([file], config, check=Budget(folder=target, most_bytes=most_bytes, counter=[0]))
            found, skipped = intake.photos, [list(pair) for pair in intake.skipped]
        if len(found) > most_files:
            raise Refused(f"{name} holds {len(found)} photos; {most_files} are the most.", "Give fewer: 20 to 300 do.", 413)
        photos, broken = _write_clean(found, target, bench)
    except Refused:
        raise
    except UserError as error:
        return {**empty, "skipped": [[name, error.reason]], "reason": error.reason, "remedy": error.remedy}
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return {**empty, "photos": photos, "skipped": skipped + broken}


def _write_clean(found: dict[str, Path], target: Path, bench: Bench) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Probe and write every photo anew."""
    (target / "photos").mkdir()
    (target / "thumbs").mkdir()
    photos, skipped, used = [], [], set()
    for name, path in found.items():
        probe = bench.probing.ask({"task": "probe", "path": str(path), "keep_private": False, "side": MEASURED_SIDE})
        if "reason" in probe:
            skipped.append([name, probe["reason"]])
            continue
        stem = unique(stored_name(name), used)
        thumb = target / "thumbs" / f"{stem}.jpg"
        order = {"task": "clean", "path": str(path), "stem": str(target / "photos" / stem), "thumb": str(thumb)}
        answer = bench.writing.ask(order)
        if "disk" in answer:
            raise Refused(f"{name} could not be stored ({answer['disk']}).", "Free some space on the disk.", 507)
        if "reason" in answer:
            skipped.append([name, answer["reason"]])
            continue
        photos.append({"name": name, "file": answer["file"], "thumb": thumb.name, "probe": {**probe, "content": ""}})
    return photos, skipped


def link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def store_photos(
    taken: Sequence[tuple[dict[str, Any], int]], folder: Path, turn: Callable[[Path, Path, Path, int], str]
) -> list[dict[str, Any]]:
    """Fill a job's photos/ and thumbs/.

    Args:
        taken: entries of ``take`` with their folder under "folder", and quarter turns clockwise.
        turn: (photo, stem, thumbnail, turns) -> file name; writes a turned copy.

    Returns:
        The entries, under the names they have now.
    """
    for name in ("photos", "thumbs"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    stored, used = [], set()
    for photo, turns in taken:
        source = Path(photo["folder"]) / "photos" / photo["file"]
        stem = unique(source.stem, used)
        name = stem + source.suffix
        if turns % 4:
            name = turn(source, folder / "photos" / stem, folder / "thumbs" / f"{name}.jpg", turns % 4)
        else:
            link(source, folder / "photos" / name)
            link(Path(photo["folder"]) / "thumbs" / photo["thumb"], folder / "thumbs" / f"{name}.jpg")
        stored.append({**photo, "name": name})
    return stored
