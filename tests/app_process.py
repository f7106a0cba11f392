"""`recon app` as a process of its own, as a person starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import helpers

PATIENCE_S = 300.0
"""Longest wait for anything; what is awaited usually comes within seconds."""


@contextmanager
def recon_app(out: Path, cache: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """`recon app` on a free port, as a process of its own; killed at the end if it still runs."""
    log = out.parent / f"app_{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "app.cli", "app", "--port", "0", "--out", str(out)]
    with open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, cwd=helpers.REPOSITORY, env={**os.environ, "RECON_CACHE": str(cache)}, stdin=subprocess.DEVNULL, stderr=stream
        )
        try:
            wait_until(lambda: "Page: " in log.read_text(encoding="utf-8"), "the server says its address")
            found = re.search(r"Page: (\S+)", log.read_text(encoding="utf-8"))
            assert found is not None
            yield process, found[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.1)
