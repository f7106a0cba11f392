"""Write an edited scene beside the one that was opened.

Input: a ``Document`` and a folder. Output: a folder with scene.ply, cameras.json and report.json that every command opens.
Does not: touch the scene that was opened.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recon.files import atomic_folder, write_json_atomic
from recon.formats.conventions import Y_DOWN
from recon.formats.registry import FORMATS, write_splats

from ..export_command import write_cameras
from ..scene_files import CAMERAS_NAME, REPORT_NAME, SPLAT_NAME
from .document import Document

EDITED_NAME = "edited"


def save_edited(document: Document, folder: Path) -> Path:
    """Write the edited scene as ``folder``/edited, whole or not at all; returns where it is.

    Raises:
        UserError: it cannot be written.
    """
    target = folder / EDITED_NAME
    scene = document.edited()
    with atomic_folder(target) as partial:
        write_splats(partial / SPLAT_NAME, scene.gaussians, FORMATS["ply"])
        if scene.cameras is not None:
            write_cameras(partial / CAMERAS_NAME, scene, Y_DOWN)
        write_json_atomic(partial / REPORT_NAME, edited_report(document, target))
    return target


def edited_report(document: Document, target: Path) -> dict[str, Any]:
    """The report of the run, with what was done since; scores of the scene before the edits are left out."""
    given = document.scene.provenance.get("report")
    report = {key: value for key, value in given.items() if key not in ("quality", "files")} if isinstance(given, dict) else {}
    report["edits"] = list(document.history)
    photos = document.scene.provenance.get("photos")
    if photos:
        relative = Path(os.path.relpath(Path(str(photos)).resolve(), target.resolve())).as_posix()
        report["photos"] = {**(report.get("photos") or {}), "folder": relative}
    if document.step.metres_per_unit is not None:
        choices = dict(report.get("choices") or {})
        choices.setdefault("scale", {"metres_per_unit_before": document.step.metres_per_unit, "metres": None, "from": []})
        report["choices"] = choices
    return report
