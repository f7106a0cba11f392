"""Reconstructions asked for from a server: queued, run one after another in one worker thread, watched and stopped.

Input: photos and a config. Output: ``Job`` records that other threads may read at any time.
Does not: run two jobs at once. One worker renders and reconstructs, since a run uses every core.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recon.config import PipelineConfig
from recon.errors import UserError
from recon.pipeline import Result
from recon.progress import Cancelled, Progress, ProgressEvent
from recon.resume.disk import disk_trouble

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "stopped"]
Start = Callable[[Sequence[Path], Path | None, PipelineConfig, Progress], Result]
"""Runs one reconstruction; ``app.run.start`` in earnest."""


@dataclass
class Job:
    """One reconstruction. Written by the worker alone; ``changed`` is notified at every step."""

    photos: Sequence[Path]
    out: Path
    config: PipelineConfig
    state: State = "waiting"
    events: dict[str, ProgressEvent] = field(default_factory=dict)
    """Latest event of each stage reached, in order."""
    result: Result | None = None
    reason: str = ""
    """Why it failed, in words."""
    remedy: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self._hear)

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    def stop(self) -> None:
        """Ask it to stop at its next step."""
        self.progress.cancel()

    def wait(self, timeout_s: float) -> None:
        """Return at the next change, or after ``timeout_s``."""
        with self.changed:
            if not self.finished:
                self.changed.wait(timeout_s)

    def settle(self, state: State, *, reason: str = "", remedy: str = "") -> None:
        """Enter a state and tell those who wait."""
        with self.changed:
            self.state, self.reason, self.remedy = state, reason, remedy
            self.changed.notify_all()

    def _hear(self, event: ProgressEvent) -> None:
        with self.changed:
            self.events[event.stage] = event
            self.changed.notify_all()


class JobRunner:
    """One worker thread with a queue.

    Args:
        start: runs a reconstruction.
        on_done: called in the worker thread with each finished job that has a result.
    """

    def __init__(self, start: Start, on_done: Callable[[Job], None] | None = None) -> None:
        self._start = start
        self._on_done = on_done
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._work, name="recon-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Queue a job."""
        self._waiting.put(job)
        return job

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop the running job, drop the waiting ones and end the worker."""
        while not self._waiting.empty():
            job = self._waiting.get_nowait()
            if job is not None:
                job.settle("stopped")
        self._waiting.put(None)
        if self._running is not None:
            self._running.stop()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            self._running = job
            self._run(job)
            self._running = None

    def _run(self, job: Job) -> None:
        if job.progress.cancelled:
            job.settle("stopped")
            return
        job.settle("running")
        try:
            job.result = self._start(job.photos, job.out, job.config, job.progress)
            if self._on_done is not None:
                self._on_done(job)
        except Cancelled:
            job.settle("stopped")
        except UserError as error:
            job.settle("failed", reason=error.reason, remedy=error.remedy)
        except OSError as error:
            told = disk_trouble(error)
            if told is None:
                logger.exception("job failed")
                told = UserError(f"Internal error: {error!r}.", "The terminal that runs `recon app` has the details.")
            job.settle("failed", reason=told.reason, remedy=told.remedy)
        except Exception as error:  # a fault of ours must not end the worker: told to the person, traceback in the log
            logger.exception("job failed")
            job.settle("failed", reason=f"Internal error: {error!r}.", remedy="The terminal that runs `recon app` has the details.")
        else:
            job.settle("done")
