"""Starting COLMAP in a child process, hearing from it, and ending it at once.

Input: a command and arrays. Output: the arrays it leaves. Does not: know what COLMAP does.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import UserError
from ..progress import Progress
from ..resume.leftovers import temporary_folder

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""How often a running child is checked for cancellation, seconds."""


@contextmanager
def job_folder_in(workdir: Path | None) -> Iterator[Path]:
    """A folder for one job: ``workdir``, which is kept, or a temporary one, which vanishes with the block.

    What a killed process left there is removed by the next one.
    """
    if workdir is None:
        with temporary_folder("colmap") as folder:
            yield folder
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        yield workdir


def _environment() -> dict[str, str]:
    """Environment of the child, in which this very package is importable."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": home if not path else home + os.pathsep + path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def _starting() -> Iterator[None]:
    """Hold Ctrl-C back while a process is being started: in the middle of that it would be nobody's to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, Any]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, frame: held.append((n, frame))) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for number, _ in held:
        signal.raise_signal(number)


def _end(process: subprocess.Popen) -> None:
    """End a child now; COLMAP cannot be asked politely in the middle of an adjustment.

    Its stdout is left to the thread that reads it, which closes it at the end it comes to now.
    """
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _listen(stream: IO[bytes], news: queue.Queue[dict[str, Any] | None]) -> None:
    """Pass a child's lines on, and None when it has nothing more to say."""
    with stream:
        for line in stream:
            if line.startswith(b"{") and line.endswith(b"\n"):  # a killed child leaves half a line
                news.put(json.loads(line))
    news.put(None)


def run_child(
    command: str,
    folder: Path,
    job: dict[str, Any],
    *,
    progress: Progress | None = None,
    on_news: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, np.ndarray]:
    """Run one command of ``recon.cameras.child`` and return its arrays.

    The child leads a process group of its own, so that Ctrl-C reaches this process alone, which then ends the child; and it
    ends by itself when its stdin closes, so that it does not outlive this process either.

    Args:
        command: "solve", "read" or "write".
        folder: job folder; the job and the log are left there.
        job: arrays to hand over.
        progress: checked ten times a second; None cannot be cancelled but by an exception.
        on_news: called with each line of news.

    Raises:
        Cancelled: the job was asked to stop; the child is gone by then.
        UserError: the child failed.
    """
    for left in ("result.npz", "error.json"):  # by the command before
        (folder / left).unlink(missing_ok=True)
    np.savez(folder / "job.npz", **job)
    news: queue.Queue[dict[str, Any] | None] = queue.Queue()
    windows = sys.platform == "win32"
    process: subprocess.Popen | None = None
    with (folder / "log.txt").open("wb") as log:
        try:
            with _starting():
                process = subprocess.Popen(
                    [sys.executable, "-m", "recon.cameras.child", command, str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(),
                    start_new_session=not windows,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if windows else 0,
                )
            threading.Thread(target=_listen, args=(process.stdout, news), daemon=True).start()
            running = True
            while running:
                if progress is not None:
                    progress.check()
                try:
                    item = news.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                running = item is not None
                if item is not None and on_news is not None:
                    on_news(item)
            process.wait()
        finally:
            if process is not None:
                _end(process)
    assert process is not None
    if process.returncode or not (folder / "result.npz").exists():
        raise _child_error(folder, process.returncode)
    with np.load(folder / "result.npz") as result:
        return dict(result)


def _child_error(folder: Path, code: int) -> UserError:
    """Say why the child left no result."""
    log = (folder / "log.txt").read_text(errors="replace").strip()
    logger.debug("COLMAP's log:\n%s", log)
    told = folder / "error.json"
    if told.exists():
        reason = json.loads(told.read_text())["error"]
    else:
        reason = f"exit code {code}; its last words: {log.splitlines()[-1] if log else 'none'}"
    return UserError(f"COLMAP stopped with an error ({reason}).", "Run `recon doctor`, or give cameras with --cameras FILE.")
