"""Which files a person means: folders and what lies in them, files, globs, lists, archives and videos.

Input: paths. Output: name -> path of every candidate photo, in natural order. Does not: open pictures.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CannotReconstruct, UserError
from .names import clean_name, natural_key, shown

HOW_TO_SHOOT = "Take 8 to 60 photos while walking around the scene, each overlapping the last by two thirds or more."
PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif", ".bmp", ".gif")
)
VIDEO_SUFFIXES = frozenset((".mp4", ".mov", ".m4v", ".webm", ".avi", ".mkv", ".3gp", ".mpg", ".mpeg"))
ANIMATION_SUFFIXES = frozenset((".gif", ".apng"))
ARCHIVE_SUFFIXES = frozenset((".zip",))
LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
RAW_SUFFIXES = frozenset((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"))
NOT_PHOTO_FOLDERS = frozenset(
    ("mask", "masks", "depth", "depths", "normals", "thumbnails", "thumbs", "__macosx", "@eadir", "sparse")
)
"""Sub-folders, in lower case, that hold pictures but not photos."""
MOST_FILES = 20_000
LARGEST_LIST_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """Files that were meant."""

    photos: dict[str, Path]
    """Name -> path of candidate photos, in natural order of the names."""
    videos: tuple[Path, ...] = ()
    archives: tuple[Path, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of files that are left out without opening them."""


def find_files(paths: Path | str | Sequence[Path | str]) -> Found:
    """Find every candidate file.

    A folder stands for its files and those of its sub-folders; hidden ones, masks, smaller copies (images_4 beside images) and
    results of an earlier run are left out. A file ending in .txt or .lst lists one path a line. A path that does not exist may
    be a pattern with * and ?.

    Args:
        paths: folders, files, patterns, or one of them.

    Raises:
        UserError: a path does not exist or cannot be read.
        CannotReconstruct: nothing was given, or a folder is empty.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if not given:
        raise CannotReconstruct("No photos were given.", HOW_TO_SHOOT)
    given = [path for one in given for path in _expanded(one)]
    missing = [shown(p) for p in given if not _exists(p)]
    if missing:
        more = f" (and {len(missing) - 5} more)" if len(missing) > 5 else ""
        raise UserError(f"There is no file or folder {', '.join(missing[:5])}{more}.", "Check the path.")
    strange = [shown(p) for p in given if not (p.is_file() or p.is_dir())]
    if strange:
        raise UserError(
            f"{strange[0]} is neither a file nor a folder, but a pipe or a device.", "Give photos, or a folder of them."
        )
    files: dict[Path, str] = {}
    skipped: list[tuple[str, str]] = []
    for path in given:
        inside = _files_in(path, skipped) if path.is_dir() else [(path, path.name)]
        for file, name in inside:
            files.setdefault(Path(os.path.abspath(file)), name)
    if len(files) > MOST_FILES:
        raise UserError(f"{len(files):,} files were given; at most {MOST_FILES:,} are taken.", "Give fewer photos: 20 to 300 do.")
    return _sorted_out(files, skipped, named={Path(os.path.abspath(p)) for p in given})


def _sorted_out(files: dict[Path, str], skipped: list[tuple[str, str]], named: set[Path]) -> Found:
    """Tell photos, videos and archives apart by their endings; a folder's videos count when it has no photos."""

    def of(suffixes: frozenset[str]) -> list[Path]:
        return [path for path in files if path.suffix.lower() in suffixes]

    videos = of(VIDEO_SUFFIXES) + [p for p in of(ANIMATION_SUFFIXES) if p in named]
    archives, raws = of(ARCHIVE_SUFFIXES), of(RAW_SUFFIXES)
    photos = {path: name for path, name in files.items() if path not in {*videos, *archives, *raws}}
    if any(path.suffix.lower() in PHOTO_SUFFIXES for path in photos):
        skipped += [(clean_name(files[p]), "is a video among photos; name it to use it") for p in videos if p not in named]
        videos = [p for p in videos if p in named]
    skipped += [(clean_name(files[p]), "is an archive inside a folder; name it to use it") for p in archives if p not in named]
    skipped += [(clean_name(files[p]), "is a raw file; develop it to JPEG or 16-bit TIFF first") for p in raws]
    return Found(
        photos=_named(photos),
        videos=tuple(videos),
        archives=tuple(p for p in archives if p in named),
        skipped=tuple(skipped),
    )


def _named(photos: dict[Path, str]) -> dict[str, Path]:
    """Clean unique names: within the folder that was given, or, where two coincide, within the folder all files share."""
    names = [clean_name(name) for name in photos.values()]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath([path.parent for path in photos]))
        names = [clean_name(path.relative_to(common).as_posix()) for path in photos]
    return dict(sorted(zip(names, photos, strict=True), key=lambda pair: (natural_key(pair[0]), pair[0])))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _expanded(path: Path) -> Iterator[Path]:
    """A path, what a pattern matches, or what a list names."""
    if not _exists(path):
        text = os.fspath(path)
        matches = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and "\0" not in text else []
        yield from (Path(match) for match in matches) if matches else [path]
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        yield from _listed(path)
    else:
        yield path


def _listed(path: Path) -> Iterator[Path]:
    """Paths in a text file, one a line, relative to it; empty lines and those that begin with # are comments."""
    try:
        if path.stat().st_size > LARGEST_LIST_BYTES:
            raise UserError(f"{shown(path)} is too large to be a list of photos.", "Give a text file with one path a line.")
        text = os.fsdecode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read ({error.strerror or error}).", "Check its permissions.") from error
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise CannotReconstruct(f"The list {shown(path)} names no files.", "Write one path a line.")
    for entry in entries:
        yield path.parent / Path(entry.replace("\0", "")).expanduser()


def _files_in(folder: Path, skipped: list[tuple[str, str]]) -> list[tuple[Path, str]]:
    """Files of a folder with their names within it: every direct one, and photos and videos of sub-folders."""
    found: list[tuple[Path, str]] = []

    def refuse(error: OSError) -> None:
        if error.filename is None or Path(error.filename) == folder:
            raise UserError(
                f"The folder {shown(folder)} cannot be read ({error.strerror or error}).", "Check its permissions."
            ) from error
        skipped.append((clean_name(os.path.relpath(error.filename, folder)), f"cannot be opened ({error.strerror})"))

    for where, inner, names in os.walk(folder, onerror=refuse):
        here = Path(where)
        inner[:] = sorted(name for name in inner if _holds_photos(here, name, inner))
        for name in names:
            path = here / name
            wanted = here == folder or path.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES | RAW_SUFFIXES
            if wanted and not name.startswith(".") and path.is_file():
                found.append((path, path.relative_to(folder).as_posix()))
        if len(found) > MOST_FILES:
            raise UserError(
                f"The folder {shown(folder)} holds more than {MOST_FILES:,} files.", "Give the folder that holds the photos alone."
            )
    if not found:
        raise CannotReconstruct(f"The folder {shown(folder)} holds no files.", "Give the folder that holds the photos.")
    return found


def _holds_photos(parent: Path, name: str, siblings: Sequence[str]) -> bool:
    """Tell sub-folders with photos from hidden ones, masks, smaller copies and results of an earlier run."""
    stem, _, factor = name.rpartition("_")
    copies = factor.isdigit() and stem in siblings
    result = (parent / name / "report.json").is_file() and (parent / name / "scene.ply").is_file()
    return not (name.startswith(".") or name.lower() in NOT_PHOTO_FOLDERS or copies or result)
