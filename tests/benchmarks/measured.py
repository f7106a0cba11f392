"""A program run to its end: what it said, how long it took, how much memory it held at most."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Measured:
    """What came of a run."""

    told: str
    """Standard output."""
    wall_s: float
    processor_s: float
    """Of all its threads; a busy machine does not count."""
    peak_gb: float


def run_measured(command: list[str]) -> Measured:
    """Run a program from the root of the repository.

    Raises:
        SystemExit: it failed; what it said is on standard error already.
    """
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(told, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, peak / 1e9)
