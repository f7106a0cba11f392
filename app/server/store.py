"""Jobs that survive: one SQLite row each (WAL), all of them also in memory.

Input: rows and changes to them. Output: rows, and a condition that wakes who waits for a change. Does not: touch job folders.

Reading never needs the disk. A new job is on the disk before its number is given out. A change that a full disk refuses is kept in
memory and written once there is room.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .records import OVER, State
from .refusals import NotThere, Refused

logger = logging.getLogger(__name__)

FORMAT = 1
"""``PRAGMA user_version`` of the file."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """All that is known of a job beside its files."""

    id: str
    owner: str
    name: str
    state: State = "waiting"
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    prepared: bool = False
    """Uploads have become photos."""
    photos: tuple[str, ...] = ()
    stages: dict[str, list[Any]] = field(default_factory=dict)
    """Stage -> fraction, message, seconds; in the order they were reached."""
    advice: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    offending: tuple[str, ...] = ()
    photo_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bytes: int = 0
    resumed: int = 0
    deaths: int = 0
    """How often its own process was ended from outside since it was begun."""
    turn: float = 0.0
    """Place in the queue: smaller runs earlier."""

    @property
    def over(self) -> bool:
        return self.state in OVER


class Store:
    """The jobs of one server.

    Args:
        path: the SQLite file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition(threading.RLock())
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=20.0)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            self._base.close()
            raise Refused(f"{path} was written by a newer version.", "Update recon, or choose another folder with --out.")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, row TEXT NOT NULL)"
        )
        self._base.execute(f"PRAGMA user_version={FORMAT}")
        self._rows = {row.id: row for row in map(_read, self._base.execute("SELECT row FROM jobs"))}
        self._counts = dict.fromkeys(self._rows, 1)
        self._unwritten: set[str] = set()

    def close(self) -> None:
        with self.changed:
            self.write_late()
            self._base.close()

    def add(self, row: Row) -> None:
        """Keep a new job.

        Raises:
            Refused: the disk is full.
        """
        with self.changed:
            try:
                self._write(row)
            except sqlite3.Error as error:
                raise Refused(f"The reconstruction could not be noted ({error}).", "Free some space on the disk.", 507) from error
            self._rows[row.id], self._counts[row.id] = row, 1
            self.changed.notify_all()

    def change(self, job_id: str, **values: Any) -> Row | None:
        """Change fields of a job; None when it was deleted meanwhile."""
        with self.changed:
            if job_id not in self._rows:
                return None
            row = self._rows[job_id] = replace(self._rows[job_id], **values)
            self._counts[job_id] += 1
            self._unwritten.add(job_id)
            self.write_late()
            self.changed.notify_all()
            return row

    def change_if(self, job_id: str, fits: Callable[[Row], bool], **values: Any) -> Row | None:
        """Change fields of a job only if it still is as ``fits`` says; None when it is not."""
        with self.changed:
            row = self._rows.get(job_id)
            return self.change(job_id, **values) if row is not None and fits(row) else None

    def remove(self, job_id: str) -> None:
        with self.changed:
            self._rows.pop(job_id, None)
            self._counts.pop(job_id, None)
            self._unwritten.add(job_id)
            self.write_late()
            self.changed.notify_all()

    def write_late(self) -> None:
        """Write what a full disk refused before."""
        with self.changed:
            for job_id in list(self._unwritten):
                try:
                    if job_id in self._rows:
                        self._write(self._rows[job_id])
                    else:
                        self._base.execute("DELETE FROM jobs WHERE id=?", (job_id,))
                except sqlite3.Error as error:
                    logger.warning("jobs.sqlite cannot be written now (%s); it is tried again", error)
                    return
                self._unwritten.discard(job_id)

    def get(self, job_id: str, owner: str | None = None) -> Row:
        """A job.

        Args:
            owner: whose it must be; None asks for nobody.

        Raises:
            NotThere: there is none, or it is somebody else's.
        """
        with self.changed:
            row = self._rows.get(job_id)
            if row is None or (owner is not None and row.owner != owner):
                raise NotThere
            return row

    def rows(self, owner: str | None = None) -> list[Row]:
        """All jobs, or an owner's, newest first."""
        with self.changed:
            mine = [row for row in self._rows.values() if owner is None or row.owner == owner]
        return sorted(mine, key=lambda row: row.created_s, reverse=True)

    def waiting(self) -> list[Row]:
        """Jobs that wait, next one first."""
        with self.changed:
            return sorted((row for row in self._rows.values() if row.state == "waiting"), key=lambda row: row.turn)

    def count(self, job_id: str) -> int:
        """A number that grows with every change of a job; 0 when there is none."""
        return self._counts.get(job_id, 0)

    def wait(self, job_id: str, since: int, timeout_s: float) -> int:
        """Return when the job's count differs from ``since``, or after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while self.count(job_id) == since and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(left)
            return self.count(job_id)

    def _write(self, row: Row) -> None:
        text = json.dumps(asdict(row), ensure_ascii=True)
        self._base.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)", (row.id, row.owner, row.state, text))


def _read(found: tuple[str]) -> Row:
    """Make a row of its text; fields of another version are left out."""
    data = json.loads(found[0])
    known = {f.name for f in fields(Row)}
    data = {name: value for name, value in data.items() if name in known}
    for name in ("photos", "advice", "offending"):
        data[name] = tuple(data.get(name, ()))
    data["photo_words"] = {name: tuple(words) for name, words in data.get("photo_words", {}).items()}
    return Row(**data)
