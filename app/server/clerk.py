"""Asking the process that looks at uploads.

Input: files an owner has uploaded. Output: ``Inspection``, fields of a job's row. Does not: import torch, or open uploads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.capture.decoder import Decoder

from .limits import GB, Limits
from .records import Estimate, Inspection, PhotoLook
from .refusals import Refused
from .settings import RunSettings

PATIENCE_S = 300.0
"""Seconds of waiting without news after which a request is given up; a quarter of it is asked for."""


class Clerk:
    """One process, one request at a time.

    Args:
        limits: of files and bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process = Decoder(module="app.server.clerk_child")

    def inspect(self, files: Sequence[Path], shelf: Path, settings: RunSettings | None) -> Inspection:
        """Look at uploads.

        Args:
            shelf: where the owner's clean photos are kept.

        Raises:
            Refused: says why.
        """
        found = self._ask("inspect", files, shelf, settings)
        photos = [
            PhotoLook(**{**look, "path": Path(look["path"]), "words": tuple(look.get("words", ()))} | _thumbnail(look))
            for look in found["photos"]
        ]
        costs = {
            name: Estimate(seconds=cost["seconds"], memory_bytes=cost["memory_bytes"]) for name, cost in found["estimates"].items()
        }
        said = {name: found[name] for name in ("reason", "remedy")}
        unknown = found["estimates"].get("", {}).get("reason")
        if unknown and not said["reason"]:
            said = {"reason": unknown, "remedy": "Choose another network or method."}
        return Inspection(photos=tuple(photos), advice=tuple(found["advice"]), estimates=costs, **said)

    def prepare(self, order: Mapping[str, Any], shelf: Path, folder: Path, settings: RunSettings) -> dict[str, Any]:
        """Fill a job's folder with clean photos; returns fields of its row.

        Args:
            order: "files", "turns" (file -> quarter turns clockwise) and "masks", with paths as text.
        """
        more = {"folder": str(folder), "turns": order["turns"], "masks": order["masks"]}
        found = self._ask("prepare", [Path(file) for file in order["files"]], shelf, settings, **more)
        words = {name: tuple(said) for name, said in found["photo_words"].items()}
        return {name: tuple(found[name]) for name in ("photos", "offending", "advice")} | {"photo_words": words}

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _ask(self, task: str, files: Sequence[Path], shelf: Path, settings: RunSettings | None, **more: Any) -> dict[str, Any]:
        shelf.mkdir(parents=True, exist_ok=True)
        request = {
            "task": task, "files": [str(file) for file in files], "shelf": str(shelf),
            "settings": None if settings is None else settings.plain(),
            "most_files": self._limits.max_files, "most_bytes": int(self._limits.max_upload_gb * GB), **more,
        }  # fmt: skip
        with self._lock:
            answer = self._process.ask(request, seconds=PATIENCE_S / 4)
        if "ok" in answer:
            return answer["ok"]
        reason, remedy, status = answer.get("refused") or ("These files ended the program that looks at photos.", "", 422)
        raise Refused(reason, remedy, status)


def _thumbnail(look: Mapping[str, Any]) -> dict[str, Any]:
    return {"thumbnail": Path(look["thumbnail"])} if look.get("thumbnail") else {}
