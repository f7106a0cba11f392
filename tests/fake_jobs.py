"""A server for tests of the page: it follows the contract of ``app.server.records.Jobs`` and reconstructs nothing.

Jobs move only when a test says so, so that every state can be looked at.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from app.server.exports import EXPORTS
from app.server.records import Estimate, Inspection, JobView, PhotoLook, StageView
from app.server.refusals import NotThere, Refused
from app.server.settings import PRESETS, RunSettings


def ring_of_cameras(count: int = 12) -> dict[str, Any]:
    """Cameras on a circle that look at the middle, and points of a plane, in the layout of early/cameras.json."""
    import math

    frames, points = [], []
    for index in range(count):
        a = 2 * math.pi * index / count
        T = [
            [-math.sin(a), 0, -math.cos(a), 3 * math.cos(a)],
            [0, 1, 0, 0],
            [math.cos(a), 0, -math.sin(a), 3 * math.sin(a)],
            [0, 0, 0, 1],
        ]
        K = [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
        frames.append({"name": f"{index}.jpg", "T_world_cam": T, "K": K, "width": 640, "height": 480, "registered": True})
    for i in range(40):
        for j in range(40):
            points.append([i / 20 - 1, 0.8, j / 20 - 1, 6 * i, 120, 6 * j])
    return {"frames": frames, "points": points}


class FakeJobs:
    """Keeps jobs in memory and files under ``out``; addresses are made by ``address``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.views: dict[str, JobView] = {}
        self.owners: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.submitted: list[tuple[RunSettings, dict[Path, int], tuple[str, ...]]] = []
        self.inspected: list[RunSettings | None] = []
        self.refusal: Refused | None = None

    def change(self, job_id: str, **what: Any) -> JobView:
        """Let something happen to a job."""
        self.views[job_id] = dataclasses.replace(self.views[job_id], **what)
        self.versions[job_id] += 1
        return self.views[job_id]

    def reach(self, job_id: str, stage: str, fraction: float, message: str = "", seconds: float = 2.0) -> JobView:
        stages = {**self.views[job_id].stages, stage: StageView(fraction=fraction, message=message, seconds=seconds)}
        return self.change(job_id, state="running", position=0, started_s=time.time(), stages=stages)

    def place_cameras(self, job_id: str) -> JobView:
        path = self.views[job_id].folder / "early" / "cameras.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(ring_of_cameras()))
        return self.change(job_id, early_cameras=path)

    def finish(self, job_id: str) -> JobView:
        scene = self.views[job_id].folder / "scene"
        scene.mkdir()
        (scene / "scene.ply").write_bytes(b"ply" * 1000)
        (scene / "report.html").write_text("<p>report</p>")
        (scene / "cameras.json").write_text("{}")
        Image.new("RGB", (90, 30), (200, 60, 40)).save(scene / "preview.png")
        report = {
            "counts": {"gaussians": 59_999, "used": 2},
            "quality": {"n_scored": 0},
            "warnings": ["<b>c.jpg</b> lost"],
            "seconds": {},
        }
        return self.change(job_id, state="done", scene=scene, report=report, finished_s=time.time(), bytes=3000)

    def submit(
        self,
        owner: str,
        photos: Sequence[Path],
        settings: RunSettings,
        *,
        name: str = "",
        turns: Mapping[Path, int] | None = None,
        masks: Sequence[Path] = (),
    ) -> JobView:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append((settings, dict(turns or {}), tuple(mask.name for mask in masks)))
        job_id = f"job{len(self.views):04d}"
        folder = self.out / job_id
        for sub in ("photos", "thumbs"):
            (folder / sub).mkdir(parents=True)
        for path in photos:
            shutil.copy(path, folder / "photos" / path.name)
            if "broken" not in path.name:
                shrink(path, folder / "thumbs" / f"{path.name}.jpg")
        waiting = sum(not view.over for view in self.views.values())
        view = JobView(
            id=job_id, name=name or "Scene", state="waiting", position=waiting + 1, created_s=time.time(), started_s=None,
            finished_s=None, settings=settings.plain(), photos=tuple(path.name for path in photos), folder=folder,
        )  # fmt: skip
        self.views[job_id], self.owners[job_id], self.versions[job_id] = view, owner, 1
        return view

    def get(self, owner: str, job_id: str) -> JobView:
        if self.owners.get(job_id) != owner:
            raise NotThere
        return self.views[job_id]

    def list(self, owner: str) -> list[JobView]:
        return [view for job_id, view in reversed(self.views.items()) if self.owners[job_id] == owner]

    def cancel(self, owner: str, job_id: str) -> None:
        self.get(owner, job_id)
        self.change(job_id, state="stopped", position=0)

    def again(self, owner: str, job_id: str) -> JobView:
        self.get(owner, job_id)
        return self.change(job_id, state="waiting", position=1, reason="", remedy="", offending=())

    def delete(self, owner: str, job_id: str) -> None:
        shutil.rmtree(self.get(owner, job_id).folder)
        del self.views[job_id]

    def rename(self, owner: str, job_id: str, name: str) -> JobView:
        self.get(owner, job_id)
        return self.change(job_id, name=name)

    def wait(self, owner: str, job_id: str, since: int, timeout_s: float) -> tuple[int, JobView]:
        return self.versions.get(job_id, 0), self.get(owner, job_id)

    def viewer_path(self, owner: str, job_id: str, *, early: bool = False) -> str:
        self.get(owner, job_id)
        return f"/viewer-of/{job_id}?early={early}"

    def export(self, owner: str, job_id: str, format: str) -> Path:
        folder = self.get(owner, job_id).folder / "exports"
        folder.mkdir(exist_ok=True)
        if format == "mesh-obj":
            raise Refused("No <surface> was found.", "Take more photos.")
        path = folder / EXPORTS[format].file
        path.write_bytes(b"x" * 1234)
        return path

    def file_path(self, owner: str, job_id: str, file: Path) -> str:
        return f"/jobs/{job_id}/files/{file.relative_to(self.views[job_id].folder).as_posix()}"

    def inspect(self, owner: str, photos: Sequence[Path], settings: RunSettings | None = None) -> Inspection:
        self.inspected.append(settings)
        looks, folder = [], self.out / "looked"
        folder.mkdir(exist_ok=True)
        for path in photos:
            if "broken" in path.name:
                looks.append(PhotoLook(name=path.name, path=path, skipped="it ends in the middle"))
                continue
            with Image.open(path) as photo:
                width, height = photo.size
            words = ("blurred",) if "blurred" in path.name else ()
            small = shrink(path, folder / f"{path.name}.jpg")
            looks.append(
                PhotoLook(
                    name=path.name,
                    path=path,
                    width=width,
                    height=height,
                    kind="JPEG",
                    camera="Pear Phone 7",
                    words=words,
                    thumbnail=small,
                )
            )
        estimates = {
            name: Estimate(seconds={"photos": 1.0, "depth": 40.0 * (i + 1)}, memory_bytes=10**9) for i, name in enumerate(PRESETS)
        }
        if settings is not None:
            estimates[""] = Estimate(seconds={"photos": 1.0, "depth": float(settings.chosen("long_side"))}, memory_bytes=2 * 10**9)
        return Inspection(
            photos=tuple(looks), advice=("Few photos: <8 to 60> work best.",) if len(looks) < 8 else (), estimates=estimates
        )

    def thumbnail_path(self, owner: str, thumbnail: Path) -> str:
        return f"/thumbs/{thumbnail.name}"


def shrink(path: Path, target: Path) -> Path:
    """Write a small picture."""
    with Image.open(path) as photo:
        ImageOps.exif_transpose(photo).convert("RGB").resize((160, 120)).save(target)
    return target
