"""Which version of the output folder a result is, and whether this program understands it.

Input: the dictionary of report.json. Output: the same in the present format, or a refusal in words.
Does not: write; a result is migrated while it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json

FORMAT = 2
"""1: up to version 0.1. 2: photo check, plan, what is known about the capture, which stages were found in the cache."""


def migrate(report: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Bring a report to the present format.

    Raises:
        UserError: a newer version wrote it, or it is no report.
    """
    version = report.get("format") if isinstance(report, Mapping) else None
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{where} is not a report of recon.", "Run the reconstruction again.")
    if version > FORMAT:
        raise UserError(
            f"{where} was written by a newer version (format {version}; this version knows up to {FORMAT}).",
            "Update recon, or name another folder.",
        )
    moved = dict(report)
    if version < 2:
        moved |= {"format": 2, "plan": None, "stages": None, "run_key": None}
    return moved


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report of an output folder in the present format; None when it has none.

    Raises:
        UserError: a newer version wrote it, or it is damaged.
    """
    path = folder / "report.json"
    return migrate(read_json(path), path) if path.is_file() else None


def refuse_newer(folder: Path) -> None:
    """Refuse to replace a result that a newer version wrote; anything else of ours may be replaced.

    Raises:
        UserError: a newer version wrote it.
    """
    path = folder / "report.json"
    try:
        found = read_json(path) if path.is_file() else None
    except UserError:
        return  # damaged: replaced by the next result
    if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
        migrate(found, path)


def finished_report(folder: Path, run_key: str) -> dict[str, Any] | None:
    """The report of a folder that holds this very run's result, whole; None otherwise."""
    try:
        report = read_report(folder)
    except UserError:
        return None
    if report is None or report.get("run_key") != run_key:
        return None
    files = report.get("files") or {}
    sizes = [(folder / name).stat().st_size if (folder / name).is_file() else -1 for name in files]
    whole = bool(files) and sizes == list(files.values()) and (folder / "colmap").is_dir() and (folder / "report.html").is_file()
    return report if whole else None
