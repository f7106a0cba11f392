"""The program that runs COLMAP, in a process of its own: ``python -m recon.cameras.child COMMAND FOLDER``.

Input: ``job.npz`` in FOLDER. Output: ``result.npz`` there, progress as JSON lines on stdout, COLMAP's log on stderr.
It ends as soon as its stdin is closed, so it never outlives the process that started it.
Does not: import torch or PIL. A native crash, or a library of pycolmap's that clashes with another one's, stays in here.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .database import fill_database, set_focal_lengths, take_matches, verified_matches
from .features import describe_affine
from .mapping import adjust, leave_out_two_view_points, map_globally, map_incrementally
from .matching import match, match_share
from .models import describe, read, write
from .refining import refine_cameras
from .speech import speak_on_stderr, stop_with_parent


def match_photos(folder: Path) -> dict[str, np.ndarray]:
    """Make the database that the job names, match its pairs, and return what agrees."""
    job = dict(np.load(folder / "job.npz"))
    path = folder / str(job["database"])
    path.unlink(missing_ok=True)  # a kept folder may hold an earlier run's
    fill_database(path, job)
    if "given_matches" in job:
        take_matches(path, job, int(job["seed"]))
    else:
        match(path, job["pairs"], int(job["seed"]), guided=bool(job["guided"]))
    return verified_matches(path)


def place_photos(folder: Path) -> dict[str, np.ndarray]:
    """Place the photos of a database; leaves ``models.json``, the photos of every model found, largest first."""
    job = dict(np.load(folder / "job.npz"))
    choice: dict[str, Any] = json.loads(str(job["choice"]))
    path, seed = folder / str(job["database"]), int(job["seed"])
    if choice["focal_ratio"] is not None:
        own = path.with_name(f"focal_{path.name}")
        shutil.copy(path, own)
        set_focal_lengths(own, choice["focal_ratio"])
        path = own
    models = map_globally(path, seed) if choice["mapper"] == "global" else map_incrementally(path, choice, seed, int(job["views"]))
    (folder / "models.json").write_text(json.dumps([sorted(int(i) - 1 for i in m.reg_image_ids()) for m in models]))
    if not models:
        return {}
    leave_out_two_view_points(models[0])
    adjust(models[0])
    return describe(models[0])


COMMANDS = {
    "features": describe_affine,
    "match": match_photos,
    "place": place_photos,
    "refine": refine_cameras,
    "read": read,
    "write": write,
}


def main(command: str, folder: Path) -> None:
    """Run one command; an error of COLMAP's becomes ``error.json``. ``match_share`` is what ``match`` starts, with a database."""
    stop_with_parent()
    speak_on_stderr()
    if command == "match_share":
        match_share(folder)
        return
    try:
        result = COMMANDS[command](folder)
    except (ValueError, RuntimeError, OSError, KeyError, IndexError) as error:
        (folder / "error.json").write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        sys.exit(1)
    np.savez(folder / "result.npz", **result)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
