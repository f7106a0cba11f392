"""Photos out of a zip archive, without believing what it says.

Input: an archive. Output: a folder with its photos and videos. Does not: follow links, leave the folder, or unpack without end.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..errors import CannotReconstruct, UserError
from .files import NOT_PHOTO_FOLDERS, PHOTO_SUFFIXES, VIDEO_SUFFIXES
from .names import clean_name, shown

MOST_MEMBERS = 20_000
MOST_BYTES = 16 << 30
"""All that is unpacked."""
MOST_PHOTO_BYTES = 1 << 30
"""One photo."""
MOST_RATIO = 200
"""Unpacked over packed size of one member beyond which it is taken for a bomb; photos hardly shrink at all."""
BLOCK = 1 << 20
MOST_NAME_BYTES, MOST_PATH_BYTES = 120, 1000
"""Of a part of a member's name and of all of it; longer parts lose their beginning, longer names are left out."""


def safe_name(name: str) -> str | None:
    """Name of a member within the folder; None when it is absolute, climbs out, is hidden or no photo."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = path.parts
    if path.is_absolute() or ".." in parts or not parts or ":" in parts[0]:
        return None
    if any(part.startswith(".") or part.lower() in NOT_PHOTO_FOLDERS for part in parts):
        return None
    if path.suffix.lower() not in PHOTO_SUFFIXES | VIDEO_SUFFIXES:
        return None
    cleaned = [clean_name(part).encode()[-MOST_NAME_BYTES:].decode(errors="ignore").strip(" .") or "_" for part in parts]
    return "/".join(cleaned) if sum(len(part.encode()) + 1 for part in cleaned) <= MOST_PATH_BYTES else None


def unpack(archive: Path, folder: Path, *, check: Callable[[], None]) -> list[tuple[str, str]]:
    """Unpack the photos and videos of an archive.

    Args:
        folder: where to, existing and empty.
        check: called often; may raise to stop.

    Returns:
        (name, reason) of members that look like photos and were left out.

    Raises:
        UserError: it is no zip archive, or too large.
    """
    skipped: list[tuple[str, str]] = []
    left, made = MOST_BYTES, 0
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MOST_MEMBERS:
                raise UserError(f"{shown(archive)} holds {len(members):,} files; at most {MOST_MEMBERS:,} are taken.", "Split it.")
            for member in members:
                check()
                name = safe_name(member.filename)
                if member.is_dir() or name is None:
                    if not member.is_dir() and PurePosixPath(member.filename).suffix.lower() in PHOTO_SUFFIXES:
                        skipped.append((clean_name(member.filename)[:120], "has a name that is not taken from an archive"))
                    continue
                reason, written = _unpack_one(opened, member, folder / name, left, check)
                left -= written
                if reason:
                    skipped.append((name, reason))
                    (folder / name).unlink(missing_ok=True)
                made += not reason
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeError, ValueError) as error:
        raise UserError(f"{shown(archive)} is not a zip archive, or it is damaged ({error}).", "Pack the photos again.") from error
    if not made:
        shown_reasons = "; ".join(f"{name} {reason}" for name, reason in skipped[:5])
        raise CannotReconstruct(
            f"The archive {shown(archive)} holds no photos{': ' + shown_reasons if shown_reasons else ''}.", "Pack JPEG files."
        )
    return skipped


def _unpack_one(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, check: Callable[[], None]
) -> tuple[str, int]:
    """Write one member block by block; returns why it was given up, if so, and the bytes it took."""
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link", 0
    if member.flag_bits & 0x1:
        return "is encrypted", 0
    video = target.suffix.lower() in VIDEO_SUFFIXES
    most = min(left, MOST_BYTES if video else MOST_PHOTO_BYTES, max(BLOCK, member.compress_size * MOST_RATIO))
    if target.exists():
        return "is there twice", 0
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return "lies in a folder that is a file", 0
    try:
        with opened.open(member) as source, target.open("wb") as sink:
            while block := source.read(BLOCK):
                check()
                written += len(block)
                if written > most:
                    return "unpacks to far more than a photo", 0
                sink.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"is damaged ({error})", written
    return "", written
