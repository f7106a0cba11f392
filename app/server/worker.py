"""The queue: uploads become photos, photos become scenes, one reconstruction after another, each in a process of its own.

Input: rows that wait. Output: rows that are over. Does not: import torch; ``app.server.run_child`` does the work.

A child that is killed is begun again and goes on with its last finished stage; a server that is killed does so at its next start.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon.errors import UserError

from .limits import Limits
from .processes import HOME, child_environment, end_child, let_go, new_group
from .store import Row, Store

logger = logging.getLogger(__name__)

LEAST_S = 0.4
"""Seconds between two notes of one stage."""
STOP_S = 20.0
"""Seconds a reconstruction has to stop by itself."""
DIED = "The process of the reconstruction was ended from outside{where}: the machine may lack memory."
LIGHTER = "Choose a smaller working size or fewer photos, or continue: it goes on with the last finished stage."
LABELS = {
    "photos": "looking at the photos", "cameras": "finding cameras", "depth": "estimating depth", "gaussians": "making Gaussians",
    "polish": "polishing", "score": "scoring", "write": "writing",
}  # fmt: skip


class Worker:
    """Two threads: one prepares uploads, one runs reconstructions.

    Args:
        store: the jobs.
        folder_of: job id -> its folder.
        prepare: makes photos of a job's uploads; returns what it learnt as fields of the row.
        module: what the child runs.
        on_cameras: called when a run has found its cameras: somebody may soon want to see its scene.
    """

    def __init__(
        self,
        store: Store,
        folder_of: Callable[[str], Path],
        prepare: Callable[[Row], dict[str, Any]],
        limits: Limits,
        *,
        module: str = "app.server.run_child",
        on_cameras: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_cameras = on_cameras
        self._store, self._folder_of, self._prepare, self._limits, self._module = store, folder_of, prepare, limits, module
        self._child: subprocess.Popen | None = None
        self._ahead: subprocess.Popen | None = None
        self._ahead_lock = threading.Lock()
        self._running = ""
        self._stopping: set[str] = set()
        self._closing = False
        self.recover()
        self._threads = [
            threading.Thread(target=self._forever, args=(step,), name=f"recon-{name}", daemon=True)
            for name, step in (("prepare", self._prepare_next), ("run", self._run_next))
        ]
        for thread in self._threads:
            thread.start()

    def recover(self) -> None:
        """Put what ran when the server died in front of the queue again."""
        for row in self._store.rows():
            if row.state == "running":
                self._store.change(row.id, state="waiting", resumed=row.resumed + 1, turn=row.turn - 1e12)

    def warm(self) -> None:
        """Start the process of the next reconstruction ahead of it, as loading takes seconds. It ends by itself when none comes."""
        with self._ahead_lock:
            if self._closing or self._running or (self._ahead is not None and self._ahead.poll() is None):
                return
            if self._ahead is not None:
                let_go(self._ahead)
            try:
                self._ahead = self._spawn([], HOME, subprocess.DEVNULL)
            except OSError:
                logger.info("no process could be started ahead of a reconstruction", exc_info=True)

    def _spawn(self, words: list[str], folder: Path | None, errors: Any) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", self._module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env=child_environment(self._limits.cores), cwd=folder, **new_group(),
        )  # fmt: skip

    def _begin(self, folder: Path) -> subprocess.Popen:
        """The process of a reconstruction: the one started ahead, or a new one."""
        with self._ahead_lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            assert ahead.stdin is not None
            try:
                ahead.stdin.write(json.dumps({"folder": str(folder)}).encode() + b"\n")
                ahead.stdin.flush()
            except OSError:  # it has ended
                end_child(ahead)
                let_go(ahead)
            else:
                return ahead
        with open(folder / "run.log", "wb") as log:
            return self._spawn([str(folder)], folder, log)

    def cancel(self, job_id: str) -> None:
        """Stop a job at its next step; one that waits stops at once."""
        waited = self._store.change_if(job_id, lambda row: row.state == "waiting", **over("stopped", "Stopped before it began."))
        if waited is None and self._running == job_id:
            self._stopping.add(job_id)
            if self._child is not None:
                ask_to_stop(self._child)

    def finish(self, job_id: str, timeout_s: float = STOP_S + 10.0) -> None:
        """Stop a job and return when nothing works in its folder any more."""
        self.cancel(job_id)
        deadline = time.monotonic() + timeout_s
        while self._running == job_id and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """End the running reconstruction; it is continued at the next start."""
        self._closing = True
        with self._store.changed:
            self._store.changed.notify_all()
        with self._ahead_lock:
            ahead, self._ahead = self._ahead, None
        for child in (self._child, ahead):
            if child is not None:
                end_child(child)
        if ahead is not None:
            let_go(ahead)
        for thread in self._threads:
            thread.join(STOP_S)

    def _forever(self, step: Callable[[], bool]) -> None:
        """Repeat a step; wait for a change when there was nothing to do."""
        while not self._closing:
            try:
                idle = not step()
            except Exception:
                logger.exception("a reconstruction could not be handled")
                idle = True
            with self._store.changed:
                if idle and not self._closing:
                    self._store.changed.wait(1.0)

    def _prepare_next(self) -> bool:
        row = next((row for row in self._store.waiting() if not row.prepared), None)
        if row is None:
            return False
        try:
            learnt = self._prepare(row)
            self._store.change_if(row.id, lambda now: now.state == "waiting", prepared=True, **learnt)
        except UserError as error:
            self._store.change_if(row.id, lambda now: not now.over, **over("failed", error.reason, error.remedy))
        except OSError as error:
            words = over(
                "failed", f"The photos could not be taken in ({error.strerror or error}).", "Free some space and continue."
            )
            self._store.change_if(row.id, lambda now: not now.over, **words)
        return True

    def _run_next(self) -> bool:
        row = next((row for row in self._store.waiting() if row.prepared), None)
        if row is None:
            return False
        self._running = row.id
        try:
            begun = self._store.change_if(
                row.id, lambda now: now.state == "waiting", state="running", started_s=row.started_s or time.time()
            )
            if begun is not None:
                self._run(begun)
        except Exception as error:
            words = f"Something went wrong in the server ({type(error).__name__})."
            self._store.change_if(row.id, lambda now: not now.over, **over("failed", words, "Continue; its log may say more."))
            raise
        finally:
            self._running, self._child = "", None
            self._stopping.discard(row.id)
        return True

    def _run(self, row: Row) -> None:
        """Run the child of one job to its end."""
        folder = self._folder_of(row.id)
        try:
            self._write_order(folder, row)
            child = self._begin(folder)
        except OSError as error:
            words = f"The reconstruction could not begin ({error.strerror or error})."
            self._store.change_if(row.id, lambda now: not now.over, **over("failed", words, "Free some space and continue."))
            return
        self._child = child
        assert child.stdin is not None
        assert child.stdout is not None
        if self._closing:
            end_child(child)
        elif row.id in self._stopping:  # asked while the process began
            ask_to_stop(child)
        end = self._listen(row.id, child)
        let_go(child)
        self._settle(row, end, child.returncode)

    def _write_order(self, folder: Path, row: Row) -> None:
        order = {"settings": row.settings, "max_memory": self._limits.max_memory, "cores": self._limits.cores}
        partial = folder / ".job.json.part"
        partial.write_text(json.dumps(order), encoding="utf-8")
        os.replace(partial, folder / "job.json")

    def _listen(self, job_id: str, child: subprocess.Popen) -> dict[str, Any]:
        """Note what the child says; returns its last words."""
        assert child.stdout is not None
        last_s, stage, end = 0.0, "", {}
        for line in child.stdout:
            try:
                news = json.loads(line)
            except ValueError:  # killed in the middle of a line
                continue
            now = time.monotonic()
            row = self._store.get(job_id)
            if "end" in news:
                end = news
            elif "advice" in news and news["advice"] not in row.advice:
                self._store.change(job_id, advice=(*row.advice, news["advice"]))
            elif "early" in news:
                self._store.change(job_id, bytes=folder_bytes(self._folder_of(job_id)))
                if news["early"] == "cameras":
                    self._on_cameras()
            elif "stage" in news and (news["stage"] != stage or news["fraction"] >= 1.0 or now - last_s > LEAST_S):
                entry = [news["fraction"], news["message"], news["seconds"]]
                done = {name: [1.0, "", old[2]] if name == stage != news["stage"] else old for name, old in row.stages.items()}
                self._store.change(job_id, stages={**done, news["stage"]: entry})
                last_s, stage = now, news["stage"]
        return end

    def _settle(self, row: Row, end: dict[str, Any], code: int) -> None:
        """Note how a run ended; a child that was killed is begun again, some times."""
        now = self._store.get(row.id)
        folder = self._folder_of(row.id)
        where = f" while {LABELS.get(list(now.stages)[-1], 'it worked')}" if now.stages else ""
        if end.get("end") == "done":
            shutil.rmtree(folder / "cache", ignore_errors=True)
            facts: dict[str, Any] = {name: tuple(end[name]) for name in ("advice", "offending")}
            facts["photo_words"] = {name: tuple(words) for name, words in end["photo_words"].items()}
            facts["stages"] = {name: [1.0, "", seconds] for name, (_, _, seconds) in now.stages.items()}
            change = over("done") | facts
        elif end.get("end") == "failed":
            said = f"{end['reason']} {end['remedy']}"
            named = tuple(name for name in now.photos if name in said)
            change = over("failed", end["reason"], end["remedy"]) | {"offending": named or now.offending}
        elif end.get("end") == "stopped" or row.id in self._stopping:  # the latter: it did not stop in time and was ended
            change = over("stopped", f"Stopped on request{where}.", "Continue goes on with the last finished stage.")
        elif self._closing:
            change = {"state": "waiting"}
        elif code == 1:
            change = over("failed", f"An error of the program{where}; its log has the details.", "Please report it with the log.")
        elif now.deaths + 1 < self._limits.tries:
            change = {"state": "waiting", "deaths": now.deaths + 1, "resumed": now.resumed + 1}
        else:
            change = over("failed", DIED.format(where=where), LIGHTER) | {"deaths": 0}
        self._store.change(row.id, bytes=folder_bytes(folder), **change)


def ask_to_stop(child: subprocess.Popen) -> None:
    """Ask a reconstruction to stop in good order, and end it if it does not."""
    assert child.stdin is not None
    try:
        child.stdin.write(b"stop\n")
        child.stdin.flush()
    except (OSError, ValueError):
        return  # it has just ended
    late = threading.Timer(STOP_S, end_child, (child,))
    late.daemon = True
    late.start()


def over(state: str, reason: str = "", remedy: str = "") -> dict[str, Any]:
    """Fields of a row that is over."""
    return {"state": state, "reason": reason, "remedy": remedy, "finished_s": time.time()}


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take; those that vanish meanwhile take nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total
