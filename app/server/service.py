"""The server's side of the page: jobs of owners, as ``records.Jobs`` says.

Input: an owner and what is asked. Output: snapshots and files, or a refusal in words. Does not: speak HTTP, or import torch.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .clerk import Clerk
from .limits import Limits
from .records import Inspection, JobView, StageView
from .refusals import NotThere, Refused
from .settings import RunSettings
from .store import Row, Store
from .take_home import export
from .uploads import Uploads
from .viewers import Viewers
from .worker import Worker, folder_bytes

logger = logging.getLogger(__name__)

TIDY_S = 5.0
LONGEST_NAME = 80
SHOWN = ("photos", "thumbs", "early", "scene", "exports", "cover.jpg")
"""What of a job's folder may be handed out."""
GONE = ".gone-"
"""Begins the names of folders of deleted jobs."""
LARGEST_REPORT = 64 << 20
MOST_REPORTS = 256
"""Reports that are kept in memory."""


class Service:
    """Everything behind the page.

    Args:
        out: folder of the reconstructions, one sub-folder each.
        limits: how much visitors may take.
        run_module: what the process of a reconstruction runs; tests give their own.
        viewer_module: what the process of a viewer runs.
    """

    def __init__(
        self,
        out: Path,
        limits: Limits,
        *,
        run_module: str = "app.server.run_child",
        viewer_module: str = "app.viewing.child",
    ) -> None:
        self.out = out.resolve()
        self.limits = limits
        self._lock = take_lock(self.out / ".server" / "lock")
        self.store = Store(self.out / ".server" / "jobs.sqlite")
        self.uploads = Uploads(self.out / ".uploads", self.store, limits)
        self.viewers = Viewers(limits, module=viewer_module)
        self._lookers, self._preparer = Clerk(limits), Clerk(limits)
        self._reports: dict[Path, tuple[int, dict[str, Any]]] = {}
        self._sweep()
        warm = self.viewers.warm
        self.worker = Worker(self.store, self.folder, self._prepare, limits, module=run_module, on_cameras=warm)
        self._closing = threading.Event()
        self._tidier = threading.Thread(target=self._tidy, name="recon-tidy", daemon=True)
        self._tidier.start()

    def close(self) -> None:
        """Stop everything; what runs is continued at the next start."""
        self._closing.set()
        self.worker.close()
        self.viewers.close()
        self._lookers.close()
        self._preparer.close()
        self._tidier.join(TIDY_S)
        self.store.close()
        self._lock.close()

    def folder(self, job_id: str) -> Path:
        return self.out / job_id

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
        """Take uploads over into a job and queue it."""
        files = self.uploads.owned(owner, photos)
        masked = self.uploads.owned(owner, masks)
        if not files:
            raise Refused("No photos were given.", "Drop some into the box first.")
        if len(files) + len(masked) > self.limits.max_files:
            raise Refused(f"More than {self.limits.max_files} files were given.", "Give fewer: 20 to 300 photos do.", 413)
        self._check_counts(owner)
        self.uploads.check_room(owner)
        turned = {str(self.uploads.owned(owner, [path])[0]): int(count) % 4 for path, count in (turns or {}).items()}
        now = time.time()
        job_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(12)
        order = {"files": [str(f) for f in files], "turns": turned, "masks": [str(f) for f in masked]}
        folder = self.folder(job_id)
        try:
            folder.mkdir()
            (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
            title = clean_title(name) or time.strftime("%d %B %Y, %H:%M", time.localtime(now))
            self.store.add(Row(id=job_id, owner=owner, name=title, created_s=now, settings=settings.plain(), turn=now))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Refused(f"The reconstruction could not be noted ({error.strerror or error}).", "Free some space.", 507) from error
        except Refused:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self.get(owner, job_id)

    def get(self, owner: str, job_id: str) -> JobView:
        return self._view(self.store.get(job_id, owner))

    def list(self, owner: str) -> list[JobView]:
        return [self._view(row) for row in self.store.rows(owner)]

    def cancel(self, owner: str, job_id: str) -> None:
        self.worker.cancel(self.store.get(job_id, owner).id)

    def again(self, owner: str, job_id: str) -> JobView:
        """Queue a job that stopped or failed once more; results of its finished stages are still there."""
        row = self.store.get(job_id, owner)
        if row.state not in ("stopped", "failed"):
            raise Refused("This reconstruction did not stop.", "", 409)
        self._check_counts(owner)
        fresh = {"state": "waiting", "reason": "", "remedy": "", "finished_s": None, "deaths": 0, "stages": {}, "turn": time.time()}
        self.store.change_if(job_id, lambda now: now.over, **fresh)
        return self.get(owner, job_id)

    def delete(self, owner: str, job_id: str) -> None:
        row = self.store.get(job_id, owner)
        self._remove(row)

    def rename(self, owner: str, job_id: str, name: str) -> JobView:
        self.store.get(job_id, owner)
        self.store.change(job_id, name=clean_title(name) or "Without a name")
        return self.get(owner, job_id)

    def wait(self, owner: str, job_id: str, since: int, timeout_s: float) -> tuple[int, JobView]:
        self.store.get(job_id, owner)
        count = self.store.wait(job_id, since, timeout_s)
        return count, self.get(owner, job_id)

    def viewer_path(self, owner: str, job_id: str, *, early: bool = False) -> str:
        view = self.get(owner, job_id)
        scene = view.early_scene if early and view.scene is None else view.scene
        if scene is None:
            raise Refused("There is no scene to look at yet.", "Wait until the first one is there.", 409)
        return self.viewers.open(owner, job_id, scene, view.folder / "photos").path

    def export(self, owner: str, job_id: str, format: str) -> Path:
        view = self.get(owner, job_id)
        if view.scene is None:
            raise Refused("There is no scene to take home yet.", "Wait until it is done.", 409)
        self.uploads.check_room(owner)
        made = export(view.folder, format, cores=self.limits.cores)
        self.store.change(job_id, bytes=folder_bytes(view.folder))
        return made

    def file_path(self, owner: str, job_id: str, file: Path) -> str:
        folder = self.folder(self.store.get(job_id, owner).id)
        inside = file.relative_to(folder).as_posix() if file.is_absolute() else file.as_posix()
        return f"/jobs/{job_id}/files/{quote(inside)}"

    def job_file(self, owner: str, job_id: str, inside: str) -> Path:
        """A file of a job that may be handed out.

        Raises:
            NotThere: there is none, or it is not for handing out.
        """
        folder = self.folder(self.store.get(job_id, owner).id).resolve()
        parts = inside.split("/")
        if parts[0] not in SHOWN or any(part in ("", ".", "..") or part.startswith(".") or "\0" in part for part in parts):
            raise NotThere
        path = folder.joinpath(*parts)
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise NotThere from error
        if real != path or not real.is_file():  # a link on the way leads elsewhere
            raise NotThere
        return real

    def job_files(self, owner: str, job_id: str) -> list[Path]:
        """All files of a job that may be handed out."""
        folder = self.folder(self.store.get(job_id, owner).id)
        found = []
        for top in SHOWN:
            if top.endswith(".jpg"):
                found += [folder / top]
            elif not (folder / top).is_symlink():
                found += sorted(Path(where) / name for where, _, names in os.walk(folder / top) for name in names)
        return [path for path in found if path.is_file() and not path.is_symlink() and not path.name.startswith(".")]

    def upload_file(self, owner: str, given: str) -> Path:
        """A clean photo or thumbnail of the owner; what was sent is never handed out as it was.

        Raises:
            NotThere: it is none of the owner's.
        """
        try:
            path = self.uploads.owned(owner, [given])[0]
        except Refused as error:
            raise NotThere from error
        if not path.is_relative_to(self.uploads.shelf(owner)) or path.parent.name not in ("photos", "thumbs"):
            raise NotThere
        return path

    def inspect(self, owner: str, photos: Sequence[Path], settings: RunSettings | None = None) -> Inspection:
        files = self.uploads.owned(owner, photos)
        if not files:
            raise Refused("No photos were given.", "Drop some into the box first.")
        self.uploads.check_room(owner)
        self.worker.warm()  # who has photos looked at will want a scene
        return self._lookers.inspect(files, self.uploads.shelf(owner), settings)

    def thumbnail_path(self, owner: str, thumbnail: Path) -> str:
        path = self.uploads.owned(owner, [thumbnail])[0]
        return f"/uploads/{quote(path.relative_to(self.uploads.shelf(owner)).as_posix())}"

    def _prepare(self, row: Row) -> dict[str, Any]:
        """Make photos of a job's uploads."""
        folder = self.folder(row.id)
        order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        learnt = self._preparer.prepare(order, self.uploads.shelf(row.owner), folder, RunSettings.read(row.settings))
        return learnt | {"bytes": folder_bytes(folder)}

    def _check_counts(self, owner: str) -> None:
        rows = self.store.rows(owner)
        if len(rows) >= self.limits.max_jobs:
            raise Refused(f"{len(rows)} reconstructions are kept; that is the limit.", "Delete some in the gallery first.", 429)
        if sum(not row.over for row in rows) >= self.limits.max_waiting:
            raise Refused(f"{self.limits.max_waiting} reconstructions wait already.", "Wait until some are done.", 429)

    def _remove(self, row: Row) -> None:
        self.viewers.close(row.id)
        self.worker.finish(row.id)
        gone = self.folder(row.id).with_name(GONE + row.id)
        if self.folder(row.id).exists():
            os.replace(self.folder(row.id), gone)
        self.store.remove(row.id)
        shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self) -> None:
        """Finish what a server that died left half done: folders of deleted jobs, and of jobs that were never noted."""
        known = {row.id for row in self.store.rows()}
        for folder in [path for path in self.out.iterdir() if path.is_dir()]:
            unnoted = folder.name not in known and [path.name for path in folder.iterdir()] == ["order.json"]
            if unnoted or folder.name.startswith(GONE):
                shutil.rmtree(folder, ignore_errors=True)

    def _tidy(self) -> None:
        while not self._closing.wait(TIDY_S):
            try:
                self.store.write_late()
                self.viewers.tidy()
                self.uploads.purge()
                for row in self.store.rows():
                    days = (time.time() - (row.finished_s or time.time())) / 86400
                    if row.over and 0 < self.limits.max_age_days < days:
                        self._remove(row)
            except OSError as error:
                logger.warning("tidying stopped: %s", error)

    def _view(self, row: Row) -> JobView:
        folder = self.folder(row.id)
        waiting = [other.id for other in self.store.waiting()] if row.state == "waiting" else []
        scene = folder / "scene"
        early = {name: folder / "early" / name for name in ("cameras.json", "scene.ply", "look.ply")}
        return JobView(
            id=row.id, name=row.name, state=row.state, position=waiting.index(row.id) + 1 if row.id in waiting else 0,
            created_s=row.created_s, started_s=row.started_s, finished_s=row.finished_s, settings=dict(row.settings),
            photos=row.photos, stages={name: StageView(fraction=f, message=m, seconds=s) for name, (f, m, s) in row.stages.items()},
            advice=row.advice, reason=row.reason, remedy=row.remedy, offending=row.offending, photo_words=dict(row.photo_words),
            folder=folder,
            early_cameras=early["cameras.json"] if early["cameras.json"].is_file() else None,
            early_scene=next((early[name] for name in ("scene.ply", "look.ply") if early[name].is_file()), None),
            scene=scene if row.state == "done" and (scene / "scene.ply").is_file() else None,
            report=self._report(scene / "report.json") if row.state == "done" else None,
            bytes=row.bytes, resumed=row.resumed,
        )  # fmt: skip

    def _report(self, path: Path) -> dict[str, Any] | None:
        try:
            status = os.stat(path)
            kept = self._reports.get(path)
            if kept is None or kept[0] != status.st_mtime_ns:
                if status.st_size > LARGEST_REPORT:
                    return None
                kept = (status.st_mtime_ns, json.loads(path.read_text(encoding="utf-8")))
                self._reports[path] = kept
                while len(self._reports) > MOST_REPORTS:
                    self._reports.pop(next(iter(self._reports)))
            return kept[1]
        except (OSError, ValueError):
            return None


def clean_title(name: str) -> str:
    """A short printable name."""
    return "".join(letter for letter in str(name) if letter.isprintable())[:LONGEST_NAME].strip()


def take_lock(path: Path) -> Any:
    """Keep a folder to one server.

    Raises:
        Refused: another one has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows: SQLite's own lock keeps rows whole
        return held
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise Refused(f"Another server works in {path.parent.parent}.", "Stop it, or choose another folder with --out.") from error
    return held
