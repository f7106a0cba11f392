"""The process that looks at uploads: ``python -m app.server.clerk_child``. It stays, since loading torch takes seconds.

Input: one JSON request a line on stdin. Output: one JSON line each on stdout. Does not: decode; limited processes of its own do.

inspect: what was understood of some uploads, and what a run would cost. prepare: the photos of a job.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from recon.capture.check import PhotoCheck, check_photos
from recon.capture.choices import CaptureConfig
from recon.capture.decoder import Decoder
from recon.capture.measures import LIKENESS_SIZE
from recon.capture.photo_size import working_size
from recon.errors import UserError
from recon.records import View, Views

from .intake import Bench, store_photos, take
from .names import unique
from .refusals import Refused
from .settings import PRESETS, RunSettings


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Look at uploads."""
    taken = _take_all([Path(file) for file in request["files"]], request)
    photos = _named(taken, [Path(file) for file in request["files"]])
    check = _judge(photos)
    looks = [
        {
            "name": photo["name"], "path": str(Path(photo["folder"]) / "photos" / photo["file"]), "width": seen.width,
            "height": seen.height, "kind": seen.kind, "camera": seen.camera, "focal_px": seen.focal_px, "blur": seen.blur,
            "brightness": seen.brightness, "same_as": seen.same_as, "words": seen.words,
            "thumbnail": str(Path(photo["folder"]) / "thumbs" / photo["thumb"]),
        }
        for photo, seen in zip(photos, check.photos, strict=True)
    ]  # fmt: skip
    left_out = [
        {"name": name, "path": file, "skipped": reason}
        for file, one in zip(request["files"], taken, strict=True)
        for name, reason in one["skipped"]
    ]
    reason, remedy = _trouble(photos, taken)
    return {
        "photos": looks + left_out,
        "advice": list(check.advice),
        "reason": reason,
        "remedy": remedy,
        "estimates": {} if reason else _estimates(photos, request.get("settings")),
    }


def _trouble(photos: Sequence[dict[str, Any]], taken: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Why no run is possible, and what would help; empty when one is."""
    if len(photos) >= 2:
        same = len({photo["probe"]["digest"] for photo in photos}) == 1
        return ("All photos are the same picture.", "Take photos from different places around the scene.") if same else ("", "")
    told = next((one for one in taken if one["reason"]), None)
    if told is not None and not photos:
        return told["reason"], told["remedy"]
    count = "No photo" if not photos else "Only one photo"
    return f"{count} could be read; at least two from different places are needed.", "Take 8 to 60 photos that overlap."


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Fill a job's folder with clean photos."""
    folder = Path(request["folder"])
    files = [Path(file) for file in request["files"]]
    taken = _take_all(files, request)
    turns = [request["turns"].get(str(file), 0) for file in files]
    entries = [(photo, count) for one, count in zip(taken, turns, strict=True) for photo in one["photos"]]
    if len(entries) > request["most_files"]:
        raise Refused(f"{len(entries)} photos are too many; {request['most_files']} are taken.", "Give fewer: 20 to 300 do.", 413)
    reason, remedy = _trouble([entry for entry, _ in entries], taken)
    if reason:
        raise Refused(reason, remedy, 422)
    with Decoder(module="app.server.picture_child") as pictures:

        def turn(source: Path, stem: Path, thumb: Path, count: int) -> str:
            answer = pictures.ask({"task": "clean", "path": str(source), "stem": str(stem), "thumb": str(thumb), "turns": count})
            if "file" not in answer:
                raise Refused(f"{source.name} could not be turned: it {answer.get('reason') or answer.get('disk')}.", "", 422)
            return answer["file"]

        photos = store_photos(entries, folder, turn)
        _store_masks([Path(file) for file in request["masks"]], folder / "masks", request, pictures)
    check = _judge(photos)
    words = {photo.name: photo.words for photo in check.photos if photo.words}
    skipped = [f"{name} was left out: {reason}" for one in taken for name, reason in one["skipped"]]
    return {
        "photos": [photo["name"] for photo in photos],
        "photo_words": words,
        "offending": list(words),
        "advice": skipped[:20],
    }


LANES = 2
"""Uploads that are taken in at once."""
_BENCHES: queue.SimpleQueue[Bench] = queue.SimpleQueue()


def _store_masks(files: Sequence[Path], folder: Path, request: dict[str, Any], pictures: Decoder) -> None:
    for file in files:
        folder.mkdir(exist_ok=True)
        for photo in _take_all([file], request)[0]["photos"]:
            source = Path(photo["folder"]) / "photos" / photo["file"]
            answer = pictures.ask({"task": "mask", "path": str(source), "target": str(folder / f"{source.stem}.png")})
            if "disk" in answer:
                raise Refused(f"{photo['name']} could not be stored ({answer['disk']}).", "Free some space on the disk.", 507)
            if "reason" in answer:
                raise Refused(f"{photo['name']} {answer['reason']}.", "Give masks as PNG, white where the photo counts.", 422)


def _take_all(files: Sequence[Path], request: dict[str, Any]) -> list[dict[str, Any]]:
    """Take uploads in, several at a time."""
    settings = RunSettings.read(request.get("settings") or {})
    capture = CaptureConfig(fps=settings.fps, max_frames=settings.max_frames)
    limits = {"most_bytes": request["most_bytes"], "most_files": request["most_files"]}

    def one(file: Path) -> dict[str, Any]:
        bench = _BENCHES.get()
        try:
            taken = take(file, Path(request["shelf"]), capture, bench, **limits)
        finally:
            _BENCHES.put(bench)
        return taken | {"photos": [{**photo, "folder": taken["folder"]} for photo in taken["photos"]]}

    with ThreadPoolExecutor(max_workers=LANES) as pool:
        return list(pool.map(one, files))


def _named(taken: Sequence[dict[str, Any]], files: Sequence[Path]) -> list[dict[str, Any]]:
    """Photos of all uploads under names of their own."""
    used: set[str] = set()
    named = []
    for one in taken:
        for photo in one["photos"]:
            source = Path(photo["file"])
            named.append({**photo, "name": unique(source.stem, used) + source.suffix})
    return named


def _judge(photos: Sequence[dict[str, Any]]) -> PhotoCheck:
    width, height = LIKENESS_SIZE
    likeness = [np.frombuffer(base64.b64decode(p["probe"]["likeness"]), np.uint8).reshape(height, width) for p in photos]
    return check_photos([photo["name"] for photo in photos], [photo["probe"] for photo in photos], likeness)


def _estimates(photos: Sequence[dict[str, Any]], settings: dict[str, Any] | None) -> dict[str, Any]:
    """What a run would cost, per preset, and under "" with the settings asked for."""
    from app.identity import resolve_model
    from recon.pipeline import resolve_device
    from recon.planning.estimate import plan_run
    from recon.planning.probe import measure

    wanted = {preset: RunSettings(preset=preset) for preset in PRESETS}
    if settings is not None:
        wanted[""] = RunSettings.read(settings)
    machine = _MACHINE[0] if _MACHINE else measure()
    _MACHINE[:] = [machine]
    found = {}
    for name, chosen in wanted.items():
        config = chosen.config()
        device = resolve_device(config.device)
        views = _views(photos, config.long_side, chosen.holdout)
        try:
            plan = plan_run(views, config, device, model=resolve_model(config, device), machine=machine)
        except UserError as error:  # a network that is not on this machine: the estimate of the others still helps
            found[name] = {"seconds": {}, "memory_bytes": 0, "reason": error.reason}
            continue
        found[name] = {"seconds": plan.seconds, "memory_bytes": plan.memory_bytes}
    return found


_MACHINE: list[Any] = []


def _views(photos: Sequence[dict[str, Any]], long_side: int, holdout: int) -> Views:
    """Views that know their sizes; nobody decodes them."""

    def closed(width: int, height: int) -> np.ndarray:
        raise RuntimeError("an estimate needs no pixels")

    items = []
    for index, photo in enumerate(photos):
        probe = photo["probe"]
        width, height = working_size(probe["width"], probe["height"], long_side)
        items.append(
            View(
                path=Path(photo["file"]), name=photo["name"], original_width=probe["width"], original_height=probe["height"],
                width=width, height=height, decode=closed, holdout=bool(holdout) and index % holdout == 0,
            )
        )  # fmt: skip
    return Views(tuple(items))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do one request; refusals come as words."""
    try:
        return {"ok": inspect(request) if request["task"] == "inspect" else prepare(request)}
    except UserError as error:
        return {"refused": [error.reason, error.remedy, getattr(error, "status", 422)]}
    except OSError as error:
        return {"refused": [f"The files could not be taken in ({error.strerror or error}).", "Free some space on the disk.", 507]}


def main() -> None:
    """Answer requests until stdin closes."""
    news = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    scratch = tempfile.mkdtemp(prefix="recon-clerk-")
    os.environ["TMPDIR"] = scratch
    benches = [Bench() for _ in range(LANES)]
    for bench in benches:
        _BENCHES.put(bench)
    try:
        for line in sys.stdin:
            try:
                said = answer(json.loads(line))
            except Exception:
                traceback.print_exc()
                said = {"refused": ["The program could not look at these files.", "Please report it with the server's log.", 500]}
            news.write(json.dumps({**said, "done": True}) + "\n")
            news.flush()
    finally:
        for bench in benches:
            bench.close()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
