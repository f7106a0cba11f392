"""Files to take home: made by `recon export` in a process of its own, kept in the job's folder until the scene changes.

Input: a job's folder and one of EXPORTS. Output: a file. Does not: know formats; the export command does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

from .exports import EXPORTS
from .processes import child_environment, end_child, new_group
from .refusals import Refused

EXPORT_S = 1800.0
"""Seconds an export may take."""
NOT_TAKEN = frozenset((".check.json", ".part"))
_making: dict[Path, threading.Lock] = {}
_making_guard = threading.Lock()
_one_at_a_time = threading.Semaphore(2)


def export(folder: Path, kind: str, *, cores: int = 0) -> Path:
    """Make a file to take home, or find it.

    Args:
        folder: of the job.
        kind: one of EXPORTS.

    Raises:
        Refused: there is no such kind, the run made no such file, or it cannot be made.
    """
    kind = "all" if kind == "zip" else kind
    if kind not in EXPORTS:
        raise Refused(f"There is no export called {kind[:40]!r}.", f"There are: {', '.join(EXPORTS)}.", 404)
    entry, scene = EXPORTS[kind], folder / "scene"
    if entry.from_run:
        if not (scene / entry.file).is_file():
            raise Refused(f"This reconstruction has no {entry.file}.", "Choose settings that make it, and run again.", 404)
        return scene / entry.file
    target = folder / "exports" / entry.file
    with _making_guard:
        lock = _making.setdefault(target, threading.Lock())
    with lock:
        if kind == "all" or not _fresh(target, scene / "scene.ply"):
            target.parent.mkdir(exist_ok=True)
            try:
                _make(folder, kind, target, cores)
            except OSError as error:
                raise Refused(f"{entry.file} could not be written ({error.strerror or error}).", "Free some space.", 507) from error
    return target


def _fresh(target: Path, scene: Path) -> bool:
    """Whether a file is younger than the scene it was made of."""
    return target.is_file() and target.stat().st_mtime_ns > scene.stat().st_mtime_ns


def _make(folder: Path, kind: str, target: Path, cores: int) -> None:
    scene = folder / "scene"
    if kind == "colmap":
        pack([path for path in scene.rglob("*") if path.is_relative_to(scene / "colmap")], scene, target)
    elif kind == "all":
        made = [path for path in (folder / "exports").rglob("*") if path != target]
        pack([*scene.rglob("*"), *made], folder, target)
    elif kind == "mesh-obj":
        place = target.parent / "mesh-obj"
        place.mkdir(exist_ok=True)
        run_export(scene, place / "mesh.obj", cores)
        pack(list(place.iterdir()), place, target)
    else:
        run_export(scene, target, cores)


def run_export(scene: Path, target: Path, cores: int) -> None:
    """Run `recon export`.

    Raises:
        Refused: with its words.
    """
    with _one_at_a_time:
        child = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "export", str(scene), str(target), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=child_environment(cores), cwd=target.parent, **new_group(),
        )  # fmt: skip
        try:
            said, _ = child.communicate(timeout=EXPORT_S)
        except subprocess.TimeoutExpired as error:
            end_child(child)
            child.communicate()
            raise Refused("The export took too long and was ended.", "Try a smaller scene.", 504) from error
    if child.returncode == 0 and target.is_file():
        return
    try:
        words = json.loads(said)
    except ValueError:
        words = {"error": f"The export ended with code {child.returncode}.", "remedy": "The machine may lack memory or disk."}
    raise Refused(words.get("error", "The export failed."), words.get("remedy", ""), 422)


def pack(files: list[Path], root: Path, target: Path) -> None:
    """Zip files without pressing: they are pressed already, or large. The archive appears whole or not at all."""
    partial = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(files):
                if path.is_file() and not path.is_symlink() and not any(path.name.endswith(end) for end in NOT_TAKEN):
                    archive.write(path, path.relative_to(root))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
